"""What Megatron-Energon expects in `.nv-meta`, so that a dataset needs no `energon prepare`.

Written after Energon 7.4.0; its documentation warns that the tables may change without notice.
"""

import json
import sqlite3
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence

from mmcore.core.tombstones import Tombstone
from mmcore.shard.table import StoredSample
from mmcore.shard.tar import BLOCK_BYTES, padded

ENERGON_VERSION = "7.4.0"
DIRECTORY = ".nv-meta"
_DATASET_YAML = b"__module__: megatron.energon\n__class__: CrudeWebdataset\n"
_TABLES = """
CREATE TABLE samples (
    tar_file_id INTEGER NOT NULL,
    sample_key TEXT NOT NULL UNIQUE,
    sample_index INTEGER NOT NULL,
    byte_offset INTEGER,
    byte_size INTEGER
);
CREATE TABLE sample_parts (
    tar_file_id INTEGER,
    sample_index INTEGER,
    part_name TEXT,
    content_byte_offset INTEGER,
    content_byte_size INTEGER
);
"""
_INDEXES = """
CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq ON sample_parts(tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full ON sample_parts(
    tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size
);
"""
_WRITER_VERSION = slice(96, 100)
"""Where an SQLite file says which release wrote it."""


def energon_files(
    samples: Sequence[StoredSample],
    num_samples: Mapping[str, int],
    *,
    tombstones: Sequence[Tombstone] = (),
    table_sha256: str,
) -> dict[str, bytes]:
    """Return the files of `.nv-meta` by path, from the samples in the order of their shards.

    `num_samples` is by shard, with those under a tombstone: they are excluded by name. The id is
    derived from the table's hash: the same data, the same id.
    """
    shards = sorted(num_samples)
    info = {
        "energon_version": ENERGON_VERSION,
        "shard_counts": {path: num_samples[path] for path in shards},
    }
    files = {
        "dataset.yaml": _DATASET_YAML,
        "split.yaml": _split_yaml(shards, _excluded(tombstones, num_samples)),
        ".info.json": (json.dumps(info, indent=2) + "\n").encode(),
        "index.sqlite": _index_sqlite(samples, shards),
        "index.uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, table_sha256)).encode(),
    }
    return {f"{DIRECTORY}/{name}": data for name, data in files.items()}


def sample_range(sample: StoredSample) -> tuple[int, int]:
    """Return where a sample's first header begins and how many bytes it takes in its shard."""
    first, last = sample.parts[0], sample.parts[-1]
    start = first.offset - BLOCK_BYTES
    return start, last.offset + padded(last.num_bytes) - start


def _excluded(tombstones: Sequence[Tombstone], num_samples: Mapping[str, int]) -> list[str]:
    """Return what Energon is to pass over: samples, or the shards that hold nothing else."""
    dead = Counter(one.shard for one in tombstones)
    wholly = {shard for shard, number in dead.items() if number == num_samples[shard]}
    alone = {f"{one.shard}/{one.key}" for one in tombstones if one.shard not in wholly}
    return sorted(wholly | alone)


def _split_yaml(shards: Sequence[str], excluded: Sequence[str]) -> bytes:
    # a split of which every shard is excluded would be refused as empty
    splits = sorted({path.split("/", 1)[0] for path in shards if path not in excluded})
    lines = ["split_parts:"]
    for split in splits:
        lines.append(f"  {split}:")
        lines.extend(f"  - {path}" for path in shards if path.startswith(f"{split}/"))
    lines += ["exclude:", *(f"- {name}" for name in excluded)] if excluded else ["exclude: []"]
    return ("\n".join(lines) + "\n").encode()


def _index_sqlite(samples: Sequence[StoredSample], shards: Sequence[str]) -> bytes:
    tar_ids = {path: i for i, path in enumerate(shards)}
    database = sqlite3.connect(":memory:")
    try:
        database.executescript(f"PRAGMA page_size=4096; {_TABLES}")
        database.executemany(
            "INSERT INTO samples VALUES (?, ?, ?, ?, ?)",
            ((tar_ids[s.shard], s.key, s.index, *sample_range(s)) for s in samples),
        )
        database.executemany(
            "INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)",
            (
                (tar_ids[s.shard], s.index, part.extension, part.offset, part.num_bytes)
                for s in samples
                for part in s.parts
            ),
        )
        database.executescript(_INDEXES)
        database.commit()
        data = bytearray(database.serialize())
    finally:
        database.close()
    # hosts have different releases; which one wrote the file is of no interest to a reader
    data[_WRITER_VERSION] = (3_040_000).to_bytes(4)
    return bytes(data)
