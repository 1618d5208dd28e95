"""Which raw samples of a corpus that has changed are looked at, and what of earlier ones goes on.

A raw sample (a stamp, a table, a tar) may give many samples. When it changed, it is opened again,
and those of its samples that came out as they were before are left alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmcore import storage
from mmcore.core.change import INGEST_STEP, Change, standing
from mmcore.core.rows import decode_row, rows_files, table_bytes
from mmcore.core.step import Artifact, Inputs, canonical_json
from mmcore.core.tombstones import CHANGED, FORGOTTEN, REMOVED, REVIVED
from mmcore.sample import Json, Outcome, Sample, sha256_hex

ORIGINS_SUFFIX = ".origins.parquet"
_NUM_DIGITS = 20
"""Of the digests that are sent to workers: two versions of one sample are told apart by 80 bits."""
_SCHEMA = pa.schema([("key", pa.string()), ("raw", pa.string()), ("is_same", pa.bool_())])


@dataclass(frozen=True)
class Origin:
    """Which raw sample a sample came from."""

    key: str
    raw: str
    is_same: bool = False
    """Whether it came out as it was in an earlier increment, and no row was written for it."""


@dataclass(frozen=True)
class Again:
    """What an increment has to do about the samples that are there."""

    change: Change
    keys_of: Mapping[str, tuple[str, ...]]
    """The keys of the samples that a raw sample gave last, for those that matter here."""
    revived: frozenset[str]
    """Samples that were dropped in favour of one that may be gone: they are decided anew."""
    revived_raws: frozenset[str]

    @property
    def raws(self) -> frozenset[str]:
        """The names of the raw samples to be opened."""
        return frozenset({*self.change.added, *self.change.changed} | self.revived_raws)

    def gone(self, origins: Iterable[Origin]) -> dict[str, str]:
        """Return the reason by key of what counts no more, given what the raw samples gave."""
        given = {origin.key: origin.is_same for origin in origins}
        found = {
            key: CHANGED if key in given else REMOVED
            for raw in (*self.change.changed, *self.change.removed)
            for key in self.keys_of.get(raw, ())
            if not given.get(key, False)
        }
        found |= {key: REVIVED for key in self.revived if not given.get(key, True)}
        return found | dict.fromkeys(self.change.forgotten, FORGOTTEN)


def look_again(inputs: Inputs, change: Change) -> Again:
    """Return what follows from a change of the corpus for the samples that are there."""
    ends = {*change.changed, *change.removed}
    if not (ends or change.forgotten):
        return Again(change, {}, frozenset(), frozenset())
    ingests = standing(inputs, INGEST_STEP)
    raw_of = _raw_of(artifact for artifact, _ in ingests)
    may_go = {key for key, raw in raw_of.items() if raw in ends} | set(change.forgotten)
    revived = frozenset(_outlived(inputs, [gone for _, gone in ingests], may_go))
    revived_raws = frozenset(raw_of[key] for key in revived if key in raw_of) - set(change.removed)
    wanted = ends | revived_raws
    keys_of: dict[str, list[str]] = {}
    for key, raw in sorted(raw_of.items()):
        if raw in wanted:
            keys_of.setdefault(raw, []).append(key)
    return Again(change, {raw: tuple(keys) for raw, keys in keys_of.items()}, revived, revived_raws)


def known_digests(inputs: Inputs, again: Again) -> dict[str, str]:
    """Return what stands for the samples that need not be taken in when they come out the same."""
    keys = {key for keys in again.keys_of.values() for key in keys}
    keys -= {*again.revived, *again.change.forgotten}
    if not keys:
        return {}
    found: dict[str, str] = {}
    for artifact, gone in standing(inputs, INGEST_STEP):
        for table in _tables(artifact):
            wanted = table.filter(
                pc.is_in(table["key"], pa.array(sorted(keys - gone), pa.string()))
            )
            for row in map(decode_row, wanted.to_pylist()):
                found[row.sample.key] = _digest(row.status, row.reason, row.sample)
    return found


def digest_of_outcome(outcome: Outcome) -> str:
    """Return what stands for a sample as it came in: what became of it, its parts, its metadata."""
    if isinstance(outcome, Sample):
        return _digest("kept", "", outcome)
    status = "dropped" if type(outcome).__name__ == "Dropped" else "quarantined"
    return _digest(status, outcome.reason, outcome.sample)


def origins_table(origins: Sequence[Origin]) -> bytes:
    """Return where samples came from as Parquet."""
    columns = {
        "key": [one.key for one in origins],
        "raw": [one.raw for one in origins],
        "is_same": [one.is_same for one in origins],
    }
    return table_bytes(pa.table(columns, schema=_SCHEMA))


def read_origins(url: str) -> Iterator[Origin]:
    """Yield what an origins file says."""
    table = pq.read_table(pa.BufferReader(storage.read(url)))
    columns = (table[name].to_pylist() for name in _SCHEMA.names)
    return (Origin(*values) for values in zip(*columns, strict=True))


def _raw_of(ingests: Iterable[Artifact]) -> dict[str, str]:
    """Return the raw sample that gave each key: of several increments the last one says so."""
    found: dict[str, str] = {}
    for artifact in ingests:
        given: dict[str, str] = {}
        for file in artifact.manifest.files:
            if file.path.endswith(ORIGINS_SUFFIX):
                for origin in read_origins(storage.join(artifact.url, file.path)):
                    given[origin.key] = origin.raw
        opened = set(given.values())
        found = {key: raw for key, raw in found.items() if raw not in opened} | given
    return found


def _outlived(inputs: Inputs, gone: Sequence[frozenset[str]], survivors: set[str]) -> Iterator[str]:
    """Yield the samples that a step after this one dropped in favour of one of some others."""
    values = pa.array(sorted(survivors), pa.string())
    for increment, over in zip(inputs.history, gone, strict=True):
        for step, artifact in increment.items():
            if step == INGEST_STEP:
                continue
            for table in _tables(artifact):
                lost = table.filter(pc.is_in(table["twin"], values))["key"].to_pylist()
                yield from (key for key in lost if key not in over)


def _tables(artifact: Artifact) -> Iterator[pa.Table]:
    for record in rows_files(artifact):
        data = storage.read(storage.join(artifact.url, record.path))
        table = pq.read_table(pa.BufferReader(data))
        if "twin" in table.column_names:  # the table of a dataset version has no outcomes
            yield table


def _digest(status: str, reason: str, sample: Sample) -> str:
    parts: dict[str, Json] = {}
    for extension, part in sample.parts.items():
        if part.ref is not None:
            parts[extension] = part.ref.sha256
        else:
            assert part.data is not None, "a part has bytes or a reference"
            parts[extension] = sha256_hex(part.data)
    told: list[Json] = [status, reason, parts, dict(sample.meta)]
    return sha256_hex(canonical_json(told))[:_NUM_DIGITS]
