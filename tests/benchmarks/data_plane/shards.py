"""Writing a shard, and reading all of one by its table: against buffered writes and reads, and webdataset.

As much as a shard of 5,000 pictures: a JPEG of 24 to 36 KB, a caption and a JSON document each. The
bytes are on tmpfs, which costs a disk nothing. Nothing is decoded and nothing is hashed here; what a
step spends on digests besides is the row for scale.
"""

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from figures import Against, Row, row
from turns import Taken, in_turns, interval, shared_memory

from mmcore import storage
from mmcore.core.rows import file_record
from mmcore.shard.tar import Member, TarWriter

PIECE_BYTES = 1 << 20
Sample = tuple[str, dict[str, bytes]]


def samples(num: int) -> list[Sample]:
    """Return what goes into the shard."""
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, 1 << 20, np.uint8).tobytes()
    found = []
    for number in range(num):
        length, at = int(rng.integers(24_000, 36_000)), int(rng.integers(0, 1 << 19))
        document = f'{{"key": "{number:08d}", "licence": "cc-by-4.0", "label": "owl"}}'.ljust(130)
        caption = f"the picture of number {number} shows a small brown owl in a tree"
        parts = {"jpg": noise[at : at + length], "json": document.encode(), "txt": caption.encode()}
        found.append((f"s{number:08d}", parts))
    return found


def figures(num_samples: int) -> list[Row]:
    """Return samples per second."""
    with tempfile.TemporaryDirectory(dir=shared_memory()) as directory:
        made = samples(num_samples)
        num_bytes = sum(len(data) for _, parts in made for data in parts.values())
        bench = _Shard(Path(directory), made, num_bytes)
        print(" writing", file=sys.stderr)
        written = in_turns({"bare": bench.write_bare, "ours": bench.write,
                            "ours, hashed": bench.write_hashed, "webdataset": bench.write_webdataset})  # fmt: skip
        print(" reading", file=sys.stderr)
        read = in_turns({"bare": bench.read_bare, "ours": bench.read, "webdataset": bench.read_webdataset})  # fmt: skip

    def of(what: str, taken: dict[str, Taken], mine: str, other: str, goal: float | None,
           against: Against = "bare") -> Row:  # fmt: skip
        ours, reference = taken[mine], taken[other]
        return row(what, num_samples / ours.median, num_samples / reference.median, goal=goal,
                   better="higher", value=reference.median / ours.median, against=against,
                   note=interval(ours, reference))  # fmt: skip

    return [
        of("shard write / buffered write, samples/s", written, "ours", "bare", 0.60),
        of("shard write / webdataset 1.0.2", written, "ours", "webdataset", 8, "peer"),
        of("shard write with SHA-256 of each part and of the tar / buffered write", written,
           "ours, hashed", "bare", None),
        of("shard read by its offsets / buffered read, samples/s", read, "ours", "bare", 0.60),
        of("shard read by its offsets / webdataset 1.0.2", read, "ours", "webdataset", 10, "peer"),
    ]  # fmt: skip


class _Shard:
    """The same samples, written and read in several ways."""

    def __init__(self, directory: Path, made: list[Sample], num_bytes: int) -> None:
        import webdataset

        self.webdataset: Any = webdataset
        self.tar, self.theirs = str(directory / "ours.tar"), str(directory / "theirs.tar")
        self.plain = str(directory / "plain")
        self.made, self.num_bytes = made, num_bytes
        self.dictionaries = [{"__key__": key, **parts} for key, parts in made]
        self._digest = ""
        self.members: list[list[Member]] = []

    def write_bare(self) -> float:
        started = time.process_time()
        with open(self.plain, "wb", buffering=PIECE_BYTES) as file:
            for _, parts in self.made:
                for data in parts.values():
                    file.write(data)
        spent = time.process_time() - started
        assert os.path.getsize(self.plain) == self.num_bytes
        return spent

    def write(self) -> float:
        started = time.process_time()
        tar = TarWriter()
        members = [
            [tar.add(f"{key}.{extension}", data) for extension, data in parts.items()]
            for key, parts in self.made
        ]
        storage.write(self.tar, tar.finish())
        spent = time.process_time() - started
        digest = hashlib.sha256(Path(self.tar).read_bytes()).hexdigest()
        assert digest == (self._digest or digest), "other bytes than in the round before"
        self._digest, self.members = digest, members
        return spent

    def write_hashed(self) -> float:
        started = time.process_time()
        tar = TarWriter()
        for key, parts in self.made:
            for extension, data in parts.items():
                hashlib.sha256(data).hexdigest()
                tar.add(f"{key}.{extension}", data)
        file_record(os.path.dirname(self.tar), os.path.basename(self.tar), tar.finish())
        return time.process_time() - started

    def write_webdataset(self) -> float:
        started = time.process_time()
        with self.webdataset.TarWriter(self.theirs) as sink:
            for sample in self.dictionaries:
                sink.write(sample)
        spent = time.process_time() - started
        assert os.path.getsize(self.theirs) > self.num_bytes
        return spent

    def read_bare(self) -> float:
        started = time.process_time()
        found = 0
        with open(self.tar, "rb", buffering=0) as file:
            while data := file.read(PIECE_BYTES):
                found += len(data)
        spent = time.process_time() - started
        assert found > self.num_bytes
        return spent

    def read(self) -> float:
        return self._scanned(self._by_offset)

    def read_webdataset(self) -> float:
        def scan() -> Iterator[int]:
            for sample in self.webdataset.WebDataset(self.tar, shardshuffle=False):
                yield sum(len(sample[name]) for name in ("jpg", "json", "txt"))

        return self._scanned(scan)

    def _by_offset(self) -> Iterator[int]:
        handle = os.open(self.tar, os.O_RDONLY)
        for members in self.members:
            yield sum(len(os.pread(handle, one.num_bytes, one.offset)) for one in members)
        os.close(handle)

    def _scanned(self, scan: Callable[[], Iterator[int]]) -> float:
        started = time.process_time()
        found = list(scan())
        spent = time.process_time() - started
        assert (len(found), sum(found)) == (len(self.made), self.num_bytes), "something is missing"
        return spent
