"""The whole story of one sample, read from the few files of rows that can hold it.

What `mm explain` tells by reading every file of a dataset's steps; the index knows which to open.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from sqlite3 import Row as IndexRow
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmcore import storage
from mmcore.core.rows import Row, decode_row
from mmcore.dashboard.index.datasets import Dataset
from mmcore.dashboard.index.live import SampleIndex
from mmcore.errors import StorageError
from mmcore.sample import Json, PartRef

ROLES = {"train": "learned from it", "val": "was tuned on it", "test": "was judged on it"}


@dataclass(frozen=True)
class Verdict:
    """What a step said of the sample."""

    step: str
    status: str
    rule: str = ""
    reason: str = ""
    detail: str = ""
    twin: str = ""
    measured: Mapping[str, float] = field(default_factory=dict)
    """Scores that are new or changed after this step."""
    learned: Mapping[str, Json] = field(default_factory=dict)
    """Metadata that is new or changed after this step; all of it after the first."""
    made: tuple[str, ...] = ()
    """Parts that are new or changed after this step."""


@dataclass(frozen=True)
class Story:
    """What became of a sample, step by step."""

    verdicts: tuple[Verdict, ...]
    source: Mapping[str, PartRef]
    """The parts as they were when the sample was found, by extension."""
    meta: Mapping[str, Json]
    scores: Mapping[str, float]
    missing: str = ""
    """Why something could not be read."""


def tell(index: SampleIndex, dataset: Dataset, sample: IndexRow) -> Story:
    """Return the story of a sample; a file that is gone shortens it and is named."""
    connection = index.database.read()
    segment, key = sample["segment"], sample["key"]
    bases = {
        row["name"]: row["url"]
        for row in connection.execute("SELECT name, url FROM base WHERE segment=?", (segment,))
    }
    files = connection.execute(
        "SELECT step, path FROM part_file WHERE segment=? AND first_key <= ? AND last_key >= ? "
        "ORDER BY position",
        (segment, key, key),
    ).fetchall()
    order = [level["step"] for level in dataset.lineage]
    rows: dict[str, Row] = {}
    missing = ""
    for file in sorted(files, key=lambda one: order.index(one["step"])):
        if file["step"] in rows:
            continue
        url = storage.join(index.root, bases[file["step"]], file["path"])
        try:
            row = _find(url, key)
        except StorageError as error:
            missing = str(error)
            continue
        if row is not None:
            rows[file["step"]] = row
    return _story(rows, missing)


def _story(rows: Mapping[str, Row], missing: str) -> Story:
    verdicts = []
    before: Row | None = None
    for step, row in rows.items():
        old_scores: Mapping[str, float] = before.sample.scores if before else {}
        old_meta: Mapping[str, Json] = before.sample.meta if before else {}
        old_parts: Mapping[str, Any] = before.sample.parts if before else {}
        verdicts.append(
            Verdict(
                step=step,
                status=row.status,
                rule=row.rule if row.status != "kept" else "",
                reason=row.reason,
                detail=row.detail,
                twin=row.twin,
                measured=_changed(row.sample.scores, old_scores),
                learned=_changed(row.sample.meta, old_meta) if before else {},
                made=tuple(_changed(row.sample.parts, old_parts)) if before else (),
            )
        )
        before = row
    if before is None:
        return Story((), {}, {}, {}, missing)
    first = next(iter(rows.values())).sample
    source = {extension: part.ref for extension, part in sorted(first.parts.items()) if part.ref}
    return Story(tuple(verdicts), source, before.sample.meta, before.sample.scores, missing)


def _changed(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in sorted(now.items())
        if name not in before or before[name] != value
    }


def _find(url: str, key: str) -> Row | None:
    """Return the row of a key in a file of rows, reading only the row groups that may hold it."""
    version = _version(url)
    for group, (first, last) in enumerate(_bounds(url, version)):
        if first <= key and (last is None or key <= last):
            index = pc.index(_keys(url, version, group), key).as_py()
            if index >= 0:
                found = _open(url).read_row_group(group).slice(index, 1).to_pylist()
                return decode_row(found[0])
    return None


def _version(url: str) -> int:
    """Return what changes when the file does: when it was written; 0 in a bucket."""
    if not storage.is_local(url):
        return 0
    try:
        return os.stat(url).st_mtime_ns
    except FileNotFoundError as error:
        raise StorageError(f"{url} is gone, and with it what that step said.") from error


@lru_cache(maxsize=256)
def _bounds(url: str, _version: int) -> tuple[tuple[str, str | None], ...]:
    """Return the least and the greatest key of each row group; open ends where none is recorded."""
    metadata = _open(url).metadata
    at = metadata.schema.to_arrow_schema().names.index("key")
    groups = [metadata.row_group(group).column(at) for group in range(metadata.num_row_groups)]
    statistics = [column.statistics for column in groups]
    return tuple(
        (one.min, one.max) if one is not None and one.has_min_max else ("", None)
        for one in statistics
    )


@lru_cache(maxsize=16)
def _keys(url: str, _version: int, group: int) -> pa.ChunkedArray:
    """Return the keys of a row group. Whoever goes from sample to sample stays in few of them."""
    return _open(url).read_row_group(group, columns=["key"])["key"]


def _open(url: str) -> pq.ParquetFile:
    if storage.is_local(url):
        return pq.ParquetFile(url, memory_map=True)
    return pq.ParquetFile(pa.BufferReader(storage.read(url)))
