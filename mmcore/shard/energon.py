"""What Megatron-Energon expects in `.nv-meta`, so that a dataset needs no `energon prepare`.

Written after Energon 7.4.0; its documentation warns that the tables may change without notice.
"""

import json
import sqlite3
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from mmcore import storage
from mmcore.core.manifest import FileRecord
from mmcore.core.rows import record_pieces
from mmcore.core.tombstones import Tombstone
from mmcore.errors import AccountingError
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
INDEX_PATH = f"{DIRECTORY}/index.sqlite"
_AT_ONCE = 1 << 22
_WRITER_VERSION = 96
"""Where an SQLite file says which release wrote it."""


def energon_files(
    order: Sequence[str],
    num_samples: Mapping[str, int],
    *,
    tombstones: Sequence[Tombstone] = (),
    table_sha256: str,
) -> dict[str, bytes]:
    """Return the files of `.nv-meta` by path, but for the index of samples.

    `order` is that of the shards in the index. `num_samples` is by shard, with those under a
    tombstone: they are excluded by name. The id is derived from the table's hash: the same data,
    the same id.
    """
    info = {
        "energon_version": ENERGON_VERSION,
        "shard_counts": {path: num_samples[path] for path in order},
    }
    files = {
        "dataset.yaml": _DATASET_YAML,
        "split.yaml": _split_yaml(sorted(order), _excluded(tombstones, num_samples)),
        ".info.json": (json.dumps(info, indent=2) + "\n").encode(),
        "index.uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, table_sha256)).encode(),
    }
    return {f"{DIRECTORY}/{name}": data for name, data in files.items()}


def shards_in_order(before: str | None, shards: Iterable[str]) -> list[str]:
    """Return the shards as Energon numbers them: those of the version before, and then new ones.

    In a dataset of one increment they are sorted, as Energon's own tool has them.
    """
    if before is None:
        return sorted(shards)
    info = json.loads(storage.read(storage.join(before, DIRECTORY, ".info.json")))
    known = list(info["shard_counts"])
    return [*known, *sorted(set(shards).difference(known))]


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


class SampleIndex:
    """`index.sqlite`: where each sample and each part lies; grown in place on a copy of the one
    before, so that an old row costs what copying it costs.
    """

    def __init__(self, order: Sequence[str], *, before: str | None) -> None:
        self._tar_ids = {path: number for number, path in enumerate(order)}
        self._is_grown = before is not None
        self._num_twice = 0
        self._scratch = tempfile.TemporaryDirectory(prefix="mm-index-")
        self._path = Path(self._scratch.name, "index.sqlite")
        if before is not None:
            _copy(storage.join(before, INDEX_PATH), self._path)
        self._database = sqlite3.connect(self._path)
        self._database.executescript(
            # nobody else sees the file, and what is taken out leaves no trace in it
            "PRAGMA page_size=4096; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "PRAGMA secure_delete=ON; PRAGMA cache_size=-512;" + ("" if before else _TABLES)
        )

    def __enter__(self) -> "SampleIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
        self._scratch.cleanup()

    def remove(self, samples: Iterable[StoredSample]) -> None:
        """Take out samples that count no more."""
        for one in samples:
            self._database.execute("DELETE FROM samples WHERE sample_key = ?", (one.key,))
            self._database.execute(
                "DELETE FROM sample_parts WHERE tar_file_id = ? AND sample_index = ?",
                (self._tar_ids[one.shard], one.index),
            )

    def add(self, samples: Sequence[StoredSample]) -> None:
        """Add the samples of a shard."""
        inserted = self._database.executemany(
            # what leaks between splits is looked for first, and is the better answer
            "INSERT OR IGNORE INTO samples VALUES (?, ?, ?, ?, ?)",
            ((self._tar_ids[s.shard], s.key, s.index, *sample_range(s)) for s in samples),
        )
        self._num_twice += len(samples) - inserted.rowcount
        self._database.executemany(
            "INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)",
            (
                (self._tar_ids[s.shard], s.index, part.extension, part.offset, part.num_bytes)
                for s in samples
                for part in s.parts
            ),
        )

    def finish(self, output_url: str) -> FileRecord:
        """Write the file of the artifact; AccountingError when a key was there twice."""
        if self._num_twice:
            raise AccountingError(
                f"{self._num_twice} samples have a key that another one has; keys are unique in a "
                "dataset. Nothing was published. Make keys distinct where the data comes in."
            )
        if not self._is_grown:
            self._database.executescript(_INDEXES)
        self._database.commit()
        self._database.close()
        with self._path.open("r+b") as file:
            # hosts have different releases; which one wrote the file is of no interest to a reader
            file.seek(_WRITER_VERSION)
            file.write((3_040_000).to_bytes(4))
            file.seek(0)
            return record_pieces(output_url, INDEX_PATH, iter(partial(file.read, _AT_ONCE), b""))


def _copy(url: str, path: Path) -> None:
    with storage.open_read(url) as stream, path.open("wb") as file:
        while data := stream.read(_AT_ONCE):
            file.write(data)
