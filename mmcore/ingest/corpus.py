"""What a worker may read of a scanned corpus, each byte of it checked against the scan."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from mmcore import storage
from mmcore.core import in_hand
from mmcore.core.reader import HashingStream
from mmcore.core.rows import load_part
from mmcore.core.source import FILES_NAME, SCAN_STEP, fetched_name
from mmcore.core.step import Artifact, Inputs
from mmcore.core.tables import read_table, rows_where, table_of
from mmcore.errors import IntegrityError
from mmcore.ingest.layout import Arrived, SourceFile
from mmcore.sample import PartRef

RESULTS_NAME = "results.parquet"
_COLUMNS = ["path", "num_bytes", "sha256"]
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class OpenCorpus:
    """The corpus as a task of `ingest` sees it."""

    source_url: str
    scan_url: str

    @classmethod
    def of(cls, inputs: Inputs) -> "OpenCorpus":
        """Return the corpus that was scanned for a step."""
        return cls(inputs.bases["source"], inputs[SCAN_STEP].url)

    def read(self, file: SourceFile) -> bytes:
        data = load_part(file.part(), {"source": self.source_url})
        in_hand.passed(len(data))
        return data

    @contextmanager
    def stream(self, file: SourceFile) -> Iterator[BinaryIO]:
        url = storage.join(self.source_url, file.path)
        with HashingStream(storage.open_read(url)) as hashing:
            buffered = io.BufferedReader(hashing, 1 << 16)  # named: unnamed, it closes the stream
            yield cast(BinaryIO, buffered)
            if hashing.finish() != file.sha256:
                raise IntegrityError(
                    f"{url} holds other bytes than were scanned (SHA-256 differs). The source "
                    "changed meanwhile: run again, and the change will be found."
                )

    @contextmanager
    def seekable(self, file: SourceFile) -> Iterator[BinaryIO]:
        with self.stream(file):
            pass
        with storage.open_read(storage.join(self.source_url, file.path)) as stream:
            yield cast(BinaryIO, _Counted(stream))

    def find(self, paths: Sequence[str]) -> Mapping[str, SourceFile]:
        if not paths:
            return {}
        rows = rows_where(self._files, "path", paths, columns=_COLUMNS)
        return {row["path"]: SourceFile(**row) for row in rows}

    @cached_property
    def _files(self) -> bytes:
        return storage.read(storage.join(self.scan_url, FILES_NAME))

    def arrived(self, path: str) -> Iterator[Arrived]:
        return map(_arrived, _rows(self.scan_url, fetched_name(path, RESULTS_NAME)))


class _Counted(io.RawIOBase):
    """A file read anywhere: what is in hand has longer for each byte that is truly there."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        in_hand.passed(len(data))
        return data


def read_file_table(scan: Artifact) -> pa.Table:
    """Return the files that a scan found, sorted by path, as columns."""
    return read_table(storage.join(scan.url, FILES_NAME), _COLUMNS)


def read_num_samples(scan: Artifact) -> dict[str, int]:
    """Return how many samples each file of a scan holds, for those that hold many."""
    data = storage.read(storage.join(scan.url, FILES_NAME))
    table = table_of(data)
    if "num_samples" not in table.column_names:
        return {}
    columns = (table[name].to_pylist() for name in ("path", "num_samples"))
    return {path: num for path, num in zip(*columns, strict=True) if num is not None}


@dataclass(frozen=True)
class Arrivals:
    """What of a list of URLs has arrived; two are equal when the same has."""

    digest: str = ""
    num_urls: int = 0


def arrivals(before: Artifact, after: Artifact, path: str) -> tuple[Arrivals, Arrivals]:
    """Return what has arrived of a list at two scans; why the rest failed is no matter.

    Nothing is read of what is no list, or where nothing changed.
    """
    name = fetched_name(path, RESULTS_NAME)
    old, new = (
        next((file.sha256 for file in scan.manifest.files if file.path == name), "")
        for scan in (before, after)
    )
    if old == new:
        return Arrivals(), Arrivals()
    return _arrivals(before, name) if old else Arrivals(), _arrivals(
        after, name
    ) if new else Arrivals()


def _arrivals(scan: Artifact, name: str) -> Arrivals:
    digest, num_urls = sha256(), 0
    for row in _rows(scan.url, name):
        if not row["reason"]:
            digest.update(f"{row['url']}\n{row['sha256']}\n".encode())
            num_urls += 1
    return Arrivals(digest.hexdigest(), num_urls)


def source_files(table: pa.Table) -> list[SourceFile]:
    """Return the files that are lines of a table."""
    columns = (table[name].to_pylist() for name in _COLUMNS)
    return [SourceFile(*values) for values in zip(*columns, strict=True)]


def _rows(scan_url: str, name: str) -> Iterator[dict[str, str | int]]:
    with storage.open_read(storage.join(scan_url, name)) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(_ROWS_AT_ONCE, use_threads=False):
            yield from batch.to_pylist()


def _arrived(row: Mapping[str, str | int]) -> Arrived:
    if row["reason"]:
        why = (str(row["reason"]), str(row["detail"]))
        return Arrived(str(row["url"]), None, *why)
    ref = PartRef(
        SCAN_STEP,
        str(row["pack"]),
        int(row["offset"]),
        int(row["num_bytes"]),
        str(row["sha256"]),
    )
    return Arrived(str(row["url"]), ref, extension=str(row["extension"]))
