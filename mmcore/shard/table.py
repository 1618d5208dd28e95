"""`manifest.parquet`: one row per sample, with its shard, its place there and its provenance."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

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
    rows = [_encode(sample) for sample in samples]
    return table_bytes(pa.Table.from_pylist(rows, schema=SCHEMA))


def from_parquet(data: bytes, *, key: str | None = None) -> Iterator[StoredSample]:
    """Yield the rows of a table, or only those of one key."""
    rows = table_of(data).to_pylist() if key is None else rows_where(data, "key", [key])
    yield from map(_decode, rows)


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


def _decode(values: dict[str, Any]) -> StoredSample:
    parts = tuple(StoredPart(**part) for part in values.pop("parts"))
    meta = json.loads(values.pop("meta"))
    scores = dict(values.pop("scores"))
    return StoredSample(**values, parts=parts, meta=meta, scores=scores)
