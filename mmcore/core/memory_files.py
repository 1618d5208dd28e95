"""Where it is written what was measured before: files of rows that a step committed.

`core/memory.py` says what is taken from them.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from mmcore import storage
from mmcore.core.ahead import has_made, marked
from mmcore.core.manifest import FileRecord, Manifest, load_manifest
from mmcore.core.memory import FACT, GIVEN, REWRITTEN, Measuring, Memory
from mmcore.core.rows import Row, read_rows_file, rows_files
from mmcore.core.stage import Stage
from mmcore.core.step import Artifact
from mmcore.errors import IntegrityError, StorageError
from mmcore.sample import Json

_LIMITS = "limits"
_TAIL_BYTES = 64 * 1024
_MAX_FILES = 64
"""Read for one task at the most: beyond it, looking costs more than measuring."""


def places(
    directory: str,
    wanted: Measuring,
    ahead: Sequence[Stage],
    work: Mapping[str, Json],
    inputs: Artifact,
    records: Sequence[FileRecord],
) -> list[list[list[Json]]]:
    """Return, for each file of the input, the files of earlier artifacts that may know of it.

    Each as [URL of the artifact, path]. An artifact of the same input is divided the same way; of
    others those files are taken whose keys lie among those of the input's, the largest first. The
    samples of an increment are new, and nothing is looked for: it costs what it holds.
    """
    found: list[list[list[Json]]] = [[] for _ in records]
    if not (wanted.given or ahead) or "base" in inputs.manifest.identity:
        return found
    alike: list[Artifact] = []
    others: list[Artifact] = []
    for artifact in _useful(directory, wanted, ahead, work):
        had: Any = artifact.manifest.identity["inputs"]
        is_alike = inputs.manifest.fingerprint in had.values()
        (alike if is_alike else others).append(artifact)
    for artifact in alike:
        for place, record in zip(found, rows_files(artifact), strict=False):
            place.append([artifact.url, record.path])
    files = [(artifact, record) for artifact in others for record in rows_files(artifact)]
    ranges = [_keys(inputs, record) for record in records] if files else []
    for artifact, record in sorted(files, key=lambda file: -(file[1].num_samples or 0)):
        there = _keys(artifact, record)
        for place, keys in zip(found, ranges, strict=True):
            if there and keys and there[0] <= keys[1] and keys[0] <= there[1]:
                place.append([artifact.url, record.path])
    return [place[:_MAX_FILES] for place in found]


def load_memory(
    files: Sequence[Sequence[Any]],
    wanted: Measuring,
    ahead: Sequence[Stage],
    keys: Iterable[str],
    work: Mapping[str, Json],
) -> Memory:
    """Return what files of earlier artifacts know of the samples with these keys.

    They are read until all is known. Whatever is not as it was committed is not believed.
    """
    memory = Memory(work=work)
    missing, marks = set(keys), marked(ahead)
    for url, path in files:
        if not missing:
            break
        for row, made in _rows(url, path):
            if row.sample.key in missing:
                memory.learn_row(row, made)
                if marks:
                    memory.made.learn_row(row, url)
                if memory.knows(row, wanted) and memory.made.has(marks, row.sample):
                    missing.discard(row.sample.key)
    return memory


def _rows(url: str, path: str) -> Iterator[tuple[Row, Manifest]]:
    made = _manifest(url)
    if made is None:
        return
    record = next((file for file in made.files if file.path == path), None)
    if record is None:
        return
    try:
        rows = list(read_rows_file(Artifact(url, made), record))
    except (IntegrityError, StorageError):
        # a memory and no more: what it does not say is measured
        return
    for row in rows:
        yield row, made


@lru_cache(maxsize=64)
def _manifest(url: str) -> Manifest | None:
    return load_manifest(url)


def _useful(
    directory: str, wanted: Measuring, ahead: Sequence[Stage], work: Mapping[str, Json]
) -> Iterator[Artifact]:
    """Yield the artifacts of a step, of whatever configuration, that know what is wanted."""
    marks = [mark for _, mark in marked(ahead)]
    for version in storage.list_directories(directory):
        url = storage.join(directory, version)
        try:
            made = load_manifest(url)
        except IntegrityError:
            continue
        if made is None or not _is_within(made, work):
            continue
        if _has_use(made, wanted) or has_made(made, marks):
            yield Artifact(url, made)


def _is_within(made: Manifest, work: Mapping[str, Json]) -> bool:
    """Whether what could be measured then can be now: what a sample may cost is no less."""
    its, mine = (cast("Any", one).get(_LIMITS) for one in (made.identity["work"], work))
    if its is None or mine is None:
        return its is mine
    return its.keys() == mine.keys() and all(its[name] <= mine[name] for name in its)


def _has_use(made: Manifest, wanted: Measuring) -> bool:
    """Whether any score was measured as it would be now."""
    facts: Any = made.facts.get(FACT)
    if facts is None:
        return False
    return any(
        facts[kind].get(modality, {}).get(name) == by
        for kind, names in ((GIVEN, wanted.given), (REWRITTEN, wanted.rewritten))
        for modality, measured in names.items()
        for name, by in measured.items()
    )


def _keys(artifact: Artifact, record: FileRecord) -> tuple[str, str] | None:
    """Return the first and the last key in a file of rows, by its footer; None without any."""
    url = storage.join(artifact.url, record.path)
    try:
        tail = storage.read(url, offset=max(0, record.num_bytes - _TAIL_BYTES))
        if int.from_bytes(tail[-8:-4], "little") + 8 > len(tail):
            tail = storage.read(url)
        metadata = pq.read_metadata(io.BytesIO(tail))
    except (StorageError, pa.ArrowInvalid):
        return None
    # the first column of the table
    groups = [metadata.row_group(i).column(0) for i in range(metadata.num_row_groups)]
    ranges = [one.statistics for one in groups if one.is_stats_set and one.statistics.has_min_max]
    if not ranges or len(ranges) < len(groups):
        return None
    return min(one.min for one in ranges), max(one.max for one in ranges)
