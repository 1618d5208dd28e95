"""`manifest.parquet`: one row per sample, with its shard, its place there and its provenance."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmcore.core.rows import table_bytes
from mmcore.core.step import canonical_json
from mmcore.core.tables import rows_where, table_of
from mmcore.sample import Json, Part, PartRef, Sample

TABLE_NAME = "manifest.parquet"

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("index", pa.int64()),
        (
            "parts",
            pa.list_(
                pa.struct(
                    [
                        ("extension", pa.string()),
                        ("offset", pa.int64()),
                        ("num_bytes", pa.int64()),
                        ("sha256", pa.string()),
                    ]
                )
            ),
        ),
        ("meta", pa.string()),
        ("scores", pa.map_(pa.string(), pa.float64())),
    ]
)


@dataclass(frozen=True, slots=True)
class StoredPart:
    """Where the bytes of a part lie in its shard."""

    extension: str
    offset: int
    """Of the contents, not of the header."""
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoredSample:
    """A row of the table."""

    key: str
    split: str
    shard: str
    """Relative to the dataset: `train/train-000000.tar`."""
    index: int
    """Position in the shard."""
    parts: tuple[StoredPart, ...]
    """In the order of the tar, the `json` part among them."""
    meta: Mapping[str, Json]
    scores: Mapping[str, float]

    def as_sample(self, *, base: str) -> Sample:
        """Return the sample with references into its shard."""
        parts = {
            part.extension: Part(
                ref=PartRef(base, self.shard, part.offset, part.num_bytes, part.sha256)
            )
            for part in self.parts
        }
        return Sample(self.key, parts, self.meta, self.scores)


def to_parquet(samples: Sequence[StoredSample]) -> bytes:
    """Return rows as Parquet; equal rows give equal bytes."""
    return table_bytes(as_table(samples))


def as_table(samples: Sequence[StoredSample]) -> pa.Table:
    """Return samples as rows."""
    return pa.Table.from_pylist([_encode(sample) for sample in samples], schema=SCHEMA)


def of_keys(
    groups: Iterable[pa.Table], keys: Collection[str], *, but: bool = False
) -> Iterator[pa.Table]:
    """Yield what of a table is of some samples, or what is not."""
    values = pa.array(sorted(keys), pa.string())
    for group in groups:
        there = pc.is_in(group["key"], values)
        yield group.filter(pc.invert(there) if but else there)


def samples_in(tables: Iterable[pa.Table]) -> Iterator[StoredSample]:
    """Yield the samples that rows are of."""
    for table in tables:
        yield from map(from_row, table.to_pylist())


def from_parquet(data: bytes, *, key: str | None = None) -> Iterator[StoredSample]:
    """Yield the rows of a table, or only those of one key."""
    rows = table_of(data).to_pylist() if key is None else rows_where(data, "key", [key])
    yield from map(from_row, rows)


def _encode(sample: StoredSample) -> dict[str, Any]:
    return {
        "key": sample.key,
        "split": sample.split,
        "shard": sample.shard,
        "index": sample.index,
        # not asdict, which copies: this is done for every part of every sample
        "parts": [
            {
                "extension": part.extension,
                "offset": part.offset,
                "num_bytes": part.num_bytes,
                "sha256": part.sha256,
            }
            for part in sample.parts
        ],
        "meta": canonical_json(dict(sample.meta)).decode(),
        "scores": sorted((name, float(score)) for name, score in sample.scores.items()),
    }


def from_row(values: dict[str, Any]) -> StoredSample:
    """Return the sample that a row is of."""
    parts = tuple(StoredPart(**part) for part in values.pop("parts"))
    meta = json.loads(values.pop("meta"))
    scores = dict(values.pop("scores"))
    return StoredSample(**values, parts=parts, meta=meta, scores=scores)
