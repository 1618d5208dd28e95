"""Which raw samples of a corpus that has changed are looked at, and what of earlier ones goes on.

A raw sample (the files of one sample, a table, a tar) may give many samples. When it changed, it is
opened again, and those of its samples that came out as they were before are left alone. Beside the
rows of each task lies where its samples came from; only what a change is about is held of that.
"""

import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmcore import storage
from mmcore.core.change import INGEST_STEP, Change, standing
from mmcore.core.rows import decode_row, rows_files
from mmcore.core.step import Artifact, Inputs, canonical_json
from mmcore.core.tables import read_table
from mmcore.core.tombstones import CHANGED, FORGOTTEN, REMOVED, REVIVED
from mmcore.sample import Dropped, Json, Outcome, Sample, sha256_hex

ORIGINS_SUFFIX = ".origins.parquet"
_ROW_NUMBER = re.compile(r"#\d+\Z")
_ORIGINS_AT_ONCE = 1 << 16
_SCHEMA = pa.schema([("key", pa.string()), ("raw", pa.string()), ("is_same", pa.bool_())])

Place = tuple[int, str]
"""An increment by its number, and a task of its `ingest`."""


@dataclass(frozen=True)
class Again:
    """What an increment has to do about the samples that are there."""

    change: Change
    keys_of: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The keys of the samples that a raw sample gave last, for those that matter here."""
    places: Mapping[str, Sequence[Place]] = field(default_factory=dict)
    """Where it was opened so far."""
    revived: frozenset[str] = frozenset()
    """Samples that were dropped in favour of one that may be gone: they are decided anew."""
    revived_raws: frozenset[str] = frozenset()

    @property
    def raws(self) -> frozenset[str]:
        """The names of the raw samples to be opened."""
        return frozenset({*self.change.added, *self.change.changed} | self.revived_raws)

    @property
    def keys(self) -> frozenset[str]:
        """The samples of which it matters whether they come out again."""
        return self.revived.union(*self.keys_of.values())

    def gone(self, given: Mapping[str, bool]) -> dict[str, str]:
        """Return the reason by key of what counts no more.

        `given` are those of `keys` that came out again, and whether as they were.
        """
        found = {
            key: CHANGED if key in given else REMOVED
            for raw in (*self.change.changed, *self.change.removed)
            for key in self.keys_of.get(raw, ())
            if not given.get(key, False)
        }
        found |= {key: REVIVED for key in self.revived if not given.get(key, True)}
        return found | dict.fromkeys(self.change.forgotten, FORGOTTEN)


class Origins:
    """Where the samples of a task come from, written some at a time."""

    def __init__(self) -> None:
        self._sink = io.BytesIO()
        self._writer = pq.ParquetWriter(self._sink, _SCHEMA, compression="zstd")
        self._rows: list[dict[str, str | bool]] = []

    def add(self, key: str, raw: str, *, is_same: bool) -> None:
        """Note a sample; `is_same` when it came out as it was and has no row here."""
        self._rows.append({"key": key, "raw": raw, "is_same": is_same})
        if len(self._rows) == _ORIGINS_AT_ONCE:
            self._flush()

    def finish(self) -> bytes:
        """Return all of it as Parquet."""
        self._flush()
        self._writer.close()
        return self._sink.getvalue()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, _SCHEMA))
        self._rows.clear()


def look_again(inputs: Inputs, change: Change) -> Again:
    """Return what follows from a change of the corpus for the samples that are there."""
    ends = {*change.changed, *change.removed}
    if not (ends or change.forgotten):
        return Again(change)
    ingests = standing(inputs.history, INGEST_STEP)
    keys_of, places = _opened(ingests, ends)
    may_go = {key for keys in keys_of.values() for key in keys} | set(change.forgotten)
    revived = frozenset(_outlived(inputs, [gone for _, gone in ingests], may_go))
    raws = frozenset(_raws_of(ingests, revived)) - set(change.removed)
    more_keys, more_places = _opened(ingests, raws - ends)
    return Again(change, {**keys_of, **more_keys}, {**places, **more_places}, revived, raws)


def known_digests(
    inputs: Inputs, places: Iterable[Place], raws: Collection[str], anew: Collection[str]
) -> dict[str, str]:
    """Return by key what stands for the samples of some raw samples that still count.

    Without those in `anew`: they are taken in whatever comes out.
    """
    wanted = sorted(set(places))
    if not wanted:
        return {}
    ingests = standing(inputs.history, INGEST_STEP)
    found: dict[str, str] = {}
    for number, task in wanted:
        artifact, gone = ingests[number]
        origins = _read(artifact, task + ORIGINS_SUFFIX, ["key", "raw"])
        keys = origins.filter(_is_in(origins["raw"], raws))["key"]
        for record in rows_files(artifact):
            if record.path.startswith((f"{task}.", f"{task}-")):
                table = _read(artifact, record.path)
                there = table.filter(pc.is_in(table["key"], keys))
                for row in map(decode_row, there.to_pylist()):
                    if row.sample.key not in gone:
                        found[row.sample.key] = _digest(row.status, row.reason, row.sample)
    return {key: digest for key, digest in found.items() if key not in anew}


def came_out(url: str, paths: Iterable[str], keys: Collection[str]) -> dict[str, bool]:
    """Return those of some samples that an increment has opened, and whether they are as before."""
    found: dict[str, bool] = {}
    for path in paths:
        if path.endswith(ORIGINS_SUFFIX):
            table = read_table(storage.join(url, path))
            some = table.filter(_is_in(table["key"], keys))
            found |= zip(some["key"].to_pylist(), some["is_same"].to_pylist(), strict=True)
    return found


def digest_of_outcome(outcome: Outcome) -> str:
    """Return what stands for a sample as it came in: what became of it, its parts, its metadata.

    In which row of its table it lay is no matter.
    """
    if isinstance(outcome, Sample):
        return _digest("kept", "", outcome)
    status = "dropped" if isinstance(outcome, Dropped) else "quarantined"
    return _digest(status, outcome.reason, outcome.sample)


def _opened(
    ingests: Sequence[tuple[Artifact, frozenset[str]]], raws: Collection[str]
) -> tuple[dict[str, list[str]], dict[str, list[Place]]]:
    """Return what some raw samples gave when they were last opened, and where they ever were."""
    keys_of: dict[str, list[str]] = {}
    places: dict[str, list[Place]] = {}
    for number, (artifact, _) in enumerate(ingests if raws else ()):
        given: dict[str, list[str]] = {}
        for task, table in _origins(artifact):
            some = table.filter(_is_in(table["raw"], raws))
            for key, raw in zip(some["key"].to_pylist(), some["raw"].to_pylist(), strict=True):
                given.setdefault(raw, []).append(key)
            for raw in some["raw"].unique().to_pylist():
                places.setdefault(raw, []).append((number, task))
        keys_of |= given
    return keys_of, places


def _raws_of(
    ingests: Sequence[tuple[Artifact, frozenset[str]]], keys: Collection[str]
) -> Iterator[str]:
    """Yield the raw samples that gave some samples: of several increments the last one says so."""
    found: dict[str, str] = {}
    for artifact, _ in ingests if keys else ():
        for _, table in _origins(artifact):
            some = table.filter(_is_in(table["key"], keys))
            found |= zip(some["key"].to_pylist(), some["raw"].to_pylist(), strict=True)
    yield from found.values()


def _outlived(
    inputs: Inputs, gone: Sequence[frozenset[str]], survivors: Collection[str]
) -> Iterator[str]:
    """Yield the samples that a step after this one dropped in favour of one of some others."""
    for increment, over in zip(inputs.history, gone, strict=True):
        for step, artifact in increment.items():
            if step == INGEST_STEP or not artifact.manifest.counts.dropped:
                continue
            for record in rows_files(artifact):
                table = _read(artifact, record.path, ["key", "twin"])
                lost = table.filter(_is_in(table["twin"], survivors))["key"].to_pylist()
                yield from (key for key in lost if key not in over)


def _origins(artifact: Artifact) -> Iterator[tuple[str, pa.Table]]:
    """Yield (task, its origins) of an increment."""
    for file in artifact.manifest.files:
        if file.path.endswith(ORIGINS_SUFFIX):
            table = _read(artifact, file.path, ["key", "raw"])
            yield file.path.removesuffix(ORIGINS_SUFFIX), table


def _read(artifact: Artifact, path: str, columns: list[str] | None = None) -> pa.Table:
    return read_table(storage.join(artifact.url, path), columns)


def _is_in(column: Any, values: Collection[str]) -> Any:
    return pc.is_in(column, pa.array(sorted(values), pa.string()))


def _digest(status: str, reason: str, sample: Sample) -> str:
    parts: dict[str, Json] = {}
    for extension, part in sample.parts.items():
        if part.ref is not None:
            parts[extension] = part.ref.sha256
        else:
            assert part.data is not None, "a part has bytes or a reference"
            parts[extension] = sha256_hex(part.data)
    meta = dict(sample.meta)
    meta["source"] = _ROW_NUMBER.sub("", str(meta.get("source", "")))
    told: list[Json] = [status, reason, parts, meta]
    return sha256_hex(canonical_json(told))
