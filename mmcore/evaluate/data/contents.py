"""What a dataset version holds, gathered while its table streams by.

Held in memory are counts, sketches of scores, a few examples, and some twenty bytes for each
sample, by which two versions are compared.
"""

import io
import json
from array import array
from collections import Counter
from collections.abc import Iterator
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

COLUMNS = ("key", "split", "shard", "parts", "meta", "scores")
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
    num_without_caption: int = 0
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


def read_contents(version: DatasetVersion, examples: Reservoir[Sample] | None = None) -> Contents:
    """Count what a version holds, but for what nobody may read; offer examples by split."""
    found = Contents(values={name: Counter() for name in FIELDS})
    marks = {name: array("Q") for name in ("keys", "digests", "splits")}
    hidden = hidden_keys(version.artifact.url)
    for batch in _batches(version):
        if hidden:
            batch = batch.filter(
                pa.array([key not in hidden for key in batch["key"].to_pylist()], pa.bool_())
            )
        _count(batch, found, marks)
        for name, values, _ in score_values(batch["scores"]):
            found.scores.setdefault(name, Sketch()).add(values)
        if examples is not None:
            _offer(batch, examples)
    order = np.argsort(np.frombuffer(marks["keys"], np.uint64), kind="stable")
    found.keys, found.digests, found.splits = (
        np.frombuffer(marks[name], np.uint64)[order] for name in marks
    )
    return found


def score_values(column: Any) -> Iterator[tuple[str, Floats, Ints]]:
    """Yield each score in a column of maps: its name, its values, the rows that they are of."""
    offsets = column.offsets.to_numpy()
    if len(column) == 0 or offsets[-1] == offsets[0]:
        return
    taken = slice(int(offsets[0]), int(offsets[-1]))
    names = column.keys.slice(taken.start, taken.stop - taken.start).dictionary_encode()
    items = column.items.slice(taken.start, taken.stop - taken.start)
    values = items.to_numpy(zero_copy_only=False).astype(np.float64)
    rows = np.repeat(np.arange(len(column)), np.diff(offsets))
    codes = names.indices.to_numpy()
    for code, name in enumerate(names.dictionary.to_pylist()):
        chosen = codes == code
        yield name, values[chosen], rows[chosen]


def _batches(version: DatasetVersion) -> Iterator[pa.RecordBatch]:
    url = storage.join(version.artifact.url, SHARD_TABLE)
    source = url if storage.is_local(url) else io.BytesIO(storage.read(url))
    with pq.ParquetFile(source) as file:
        yield from file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=list(COLUMNS))


def _count(batch: pa.RecordBatch, found: Contents, marks: dict[str, Any]) -> None:
    for row in batch.select(["key", "split", "parts", "meta"]).to_pylist():
        meta: dict[str, Json] = json.loads(row["meta"])
        split = row["split"]
        found.by_split[split] += 1
        label = meta.get("label")
        if label is not None and found.has_classes:
            found.by_label[str(label), split] += 1
        for name, counter in found.values.items():
            if meta.get(name) not in (None, ""):
                counter[str(meta[name])] += 1
        for part in row["parts"]:
            found.parts[part["extension"]] += 1
            found.part_bytes[part["extension"]] += part["num_bytes"]
        marks["keys"].append(_mark(row["key"]))
        marks["digests"].append(_mark(contents_digest(row["parts"], meta)))
        marks["splits"].append(_mark(split))
    if len(found.by_label) > MAX_LABELS:
        found.has_classes = False
        found.by_label.clear()


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


def _mark(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
