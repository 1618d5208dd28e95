"""What a dataset version holds, gathered while its table streams by.

Held in memory are counts, sketches of scores, a few examples, and some twenty bytes for each
sample, by which two versions are compared.
"""

import json
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmcore import storage
from mmcore.core.diff import contents_digest
from mmcore.core.forgotten import hidden_keys
from mmcore.core.lineage import SHARD_STEP, SHARD_TABLE, DatasetVersion
from mmcore.evaluate.data.reservoir import Reservoir
from mmcore.evaluate.data.sketch import Floats, Ints, Sketch
from mmcore.sample import Json, Part, PartRef, Sample

COLUMNS = ("key", "split", "shard", "index", "parts", "meta", "scores")
FIELDS = ("language", "licence")
MAX_LABELS = 20_000
"""Of more different values than this, labels are no classes, and are not counted."""
_ROWS_AT_ONCE = 4096

Marks = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass
class Contents:
    """What is counted of a version."""

    by_split: Counter[str] = field(default_factory=Counter)
    by_label: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (label, split)."""
    has_classes: bool = True
    """False where labels are too many to be counted."""
    values: dict[str, Counter[str]] = field(default_factory=dict)
    """By field of `FIELDS` how many samples have each value."""
    parts: Counter[str] = field(default_factory=Counter)
    """By extension."""
    part_bytes: Counter[str] = field(default_factory=Counter)
    scores: dict[str, Sketch] = field(default_factory=dict)
    keys: Marks = field(default_factory=lambda: np.empty(0, np.uint64))
    """Digests of the keys, rising."""
    digests: Marks = field(default_factory=lambda: np.empty(0, np.uint64))
    """What stands for the parts and metadata of each."""
    splits: Marks = field(default_factory=lambda: np.empty(0, np.uint64))
    """What stands for the split of each."""

    @property
    def num_samples(self) -> int:
        """How many samples there are."""
        return self.by_split.total()


def read_contents(
    version: DatasetVersion,
    examples: Reservoir[Sample] | None = None,
    *,
    shared: frozenset[str] | None = None,
) -> Contents:
    """Count what a version holds, but for what nobody may read; offer examples by split.

    `shared` are the shards that the version to be compared has as well: of samples there the place
    tells whether they are the same. Without it nothing is kept to compare by.
    """
    found = Contents(values={name: Counter() for name in FIELDS})
    marks = {name: array("Q") for name in ("keys", "digests", "splits")}
    hidden = hidden_keys(version.artifact.url)
    for batch in _batches(version):
        if hidden:
            batch = batch.filter(
                pa.array([key not in hidden for key in batch["key"].to_pylist()], pa.bool_())
            )
        metas = [json.loads(meta) for meta in batch["meta"].to_pylist()]
        _count(batch, metas, found)
        _count_parts(batch["parts"], found)
        if shared is not None:
            _mark(batch, metas, shared, marks)
        for name, values, _ in score_values(batch["scores"]):
            found.scores.setdefault(name, Sketch()).add(values)
        if examples is not None:
            _offer(batch, examples)
    order = np.argsort(np.frombuffer(marks["keys"], np.uint64), kind="stable")
    found.keys, found.digests, found.splits = (
        np.frombuffer(marks[name], np.uint64)[order] for name in marks
    )
    return found


def shards_of_both(one: DatasetVersion, other: DatasetVersion) -> frozenset[str]:
    """Return the paths of the shards that two versions have in common, byte for byte."""
    of_one, of_other = (
        {(record.path, record.sha256) for record in version.artifact.manifest.files}
        for version in (one, other)
    )
    return frozenset(path for path, _ in of_one & of_other)


def score_values(column: Any) -> Iterator[tuple[str, Floats, Ints]]:
    """Yield each score in a column of maps: its name, its values, the rows that they are of."""
    offsets = _numbers(column.offsets, np.int32)
    if len(column) == 0 or offsets[-1] == offsets[0]:
        return
    first, num = int(offsets[0]), int(offsets[-1] - offsets[0])
    names = column.keys.slice(first, num).dictionary_encode()
    values = _numbers(column.items.slice(first, num), np.float64)
    rows = np.repeat(np.arange(len(column)), np.diff(offsets))
    codes = _numbers(names.indices, np.int32)
    for code, name in enumerate(names.dictionary.to_pylist()):
        chosen = codes == code
        yield name, values[chosen], rows[chosen]


def _numbers(values: Any, kind: Any) -> Any:
    """Return an array of Arrow without nulls as one of NumPy; its own way would import pandas."""
    assert values.null_count == 0, "every value is there"
    size = np.dtype(kind).itemsize
    return np.frombuffer(values.buffers()[1], kind, len(values), values.offset * size)


def _batches(version: DatasetVersion) -> Iterator[pa.RecordBatch]:
    url = storage.join(version.artifact.url, SHARD_TABLE)
    with storage.open_read(url) as source, pq.ParquetFile(source) as file:
        yield from file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=list(COLUMNS))


def _count(batch: pa.RecordBatch, metas: Sequence[dict[str, Json]], found: Contents) -> None:
    for split, meta in zip(batch["split"].to_pylist(), metas, strict=True):
        found.by_split[split] += 1
        label = meta.get("label")
        if label is not None and found.has_classes:
            found.by_label[str(label), split] += 1
        for name, counter in found.values.items():
            if meta.get(name) not in (None, ""):
                counter[str(meta[name])] += 1
    if len(found.by_label) > MAX_LABELS:
        found.has_classes = False
        found.by_label.clear()


def _count_parts(column: Any, found: Contents) -> None:
    parts = column.flatten()
    sizes = parts.field("num_bytes").to_pylist()
    for extension, num_bytes in zip(parts.field("extension").to_pylist(), sizes, strict=True):
        found.parts[extension] += 1
        found.part_bytes[extension] += num_bytes


def _mark(
    batch: pa.RecordBatch,
    metas: Sequence[dict[str, Json]],
    shared: frozenset[str],
    marks: dict[str, Any],
) -> None:
    names = ("key", "split", "shard", "index")
    columns = (batch[name].to_pylist() for name in names)
    is_shared = all(shard in shared for shard in batch["shard"].unique().to_pylist())
    parts = [] if is_shared else batch["parts"].to_pylist()
    for row, (key, split, shard, index) in enumerate(zip(*columns, strict=True)):
        if shard in shared:
            contents = f"{shard} {index}"
        else:
            contents = contents_digest(parts[row], metas[row])
        marks["keys"].append(_digest(key))
        marks["digests"].append(_digest(contents))
        marks["splits"].append(_digest(split))


def _offer(batch: pa.RecordBatch, examples: Reservoir[Sample]) -> None:
    keys, splits = batch["key"].to_pylist(), batch["split"].to_pylist()
    for place, (key, split) in enumerate(zip(keys, splits, strict=True)):
        examples.offer(split, key, partial(_sample, batch, place))


def _sample(batch: pa.RecordBatch, place: int) -> Sample:
    row = batch.slice(place, 1).to_pylist()[0]
    parts = {
        part["extension"]: Part(
            ref=PartRef(SHARD_STEP, row["shard"], part["offset"], part["num_bytes"], part["sha256"])
        )
        for part in row["parts"]
    }
    return Sample(row["key"], parts, json.loads(row["meta"]), dict(row["scores"]))


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
