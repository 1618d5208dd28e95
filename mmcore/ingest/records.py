"""Rows of tables that strangers wrote: Parquet, JSON lines, CSV and TSV, plain or gzipped.

A few rows are in memory at a time. A row that cannot be read is a row with a problem, and the next
one is read; where that is impossible, the last row says so.
"""

import csv
import gzip
import json
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from mmcore.ingest.sidecar import parse_object

MAX_ROW_BYTES = 32 << 20
_ROWS_AT_ONCE = 16  # with a picture in each, a batch is still small
_BUFFER_BYTES = 1 << 20
_FOOTER_BYTES = 16 << 20  # of Parquet files: a few KB per row group
_FORMATS = ("parquet", "jsonl", "ndjson", "csv", "tsv", "txt")
# pyarrow says OSError for what is in a file; a disk at fault is a StorageError here
_PARQUET_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError, ValueError, OverflowError)
UNREADABLE = "table_unreadable"
ROW_UNREADABLE = "row_unreadable"


@dataclass(frozen=True, slots=True)
class Record:
    """A row of a table, or why there is none."""

    number: int
    """From 0, blank lines and the header not counted."""
    values: Mapping[str, Any]
    problem: tuple[str, str] | None = None


class _TableBroken(Exception):
    """From here on a table cannot be read."""


def format_of(path: str) -> str | None:
    """Return the format of a table by its name, or None.

    >>> format_of("data/captions.jsonl.gz"), format_of("cat.jpg")
    ('jsonl', None)
    """
    pieces = path.lower().rpartition("/")[2].split(".")
    if len(pieces) > 2 and pieces[-1] == "gz":
        pieces.pop()
    found = pieces[-1] if len(pieces) > 1 and pieces[-1] in _FORMATS else None
    return None if found == "parquet" and path.lower().endswith(".gz") else found


def read_records(path: str, stream: BinaryIO) -> Iterator[Record]:
    """Yield every row of a table, in order."""
    number = 0
    try:
        for values, problem in _rows(path, stream):
            why = None if problem is None else (problem.reason, problem.detail)
            yield Record(number, values, why)
            number += 1 if problem is None else max(problem.num_rows, 1)
    except _TableBroken as error:
        yield Record(number, {}, (UNREADABLE, f"{path}: after {number} rows: {error}"))


def count_records(path: str, stream: BinaryIO) -> int:
    """Return how many rows a table has, reading it once from its beginning."""
    if format_of(path) != "parquet":
        return sum(1 for _ in read_records(path, stream))
    tail = b""
    while data := stream.read(_FOOTER_BYTES):
        tail = (tail + data)[-_FOOTER_BYTES:]
    try:
        return int(pq.read_metadata(pa.BufferReader(tail)).num_rows)
    except (pa.ArrowException, OSError):
        return 1  # the one that says why it cannot be read


def class_names(stream: BinaryIO) -> Mapping[str, Sequence[str]]:
    """Return the names of classes by column, where Hugging Face wrote them into a Parquet file."""
    try:
        metadata = pq.ParquetFile(stream).schema_arrow.metadata or {}
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {
            name: [str(one) for one in feature["names"]]
            for name, feature in features.items()
            if feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, AttributeError, ValueError, OSError, pa.ArrowException):
        return {}


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why one row, or several in one place, cannot be read."""

    reason: str
    detail: str
    num_rows: int = 1


_Row = tuple[Mapping[str, Any], _Problem | None]


def _rows(path: str, stream: BinaryIO) -> Iterator[_Row]:
    name = format_of(path)
    if name == "parquet":
        yield from _parquet(stream)
        return
    lines = _lines(stream, is_gzipped=path.lower().endswith(".gz"))
    if name in ("csv", "tsv"):
        yield from _csv(lines, delimiter="\t" if name == "tsv" else None)
    elif name == "txt":
        yield from _txt(lines)
    else:
        yield from _jsonl(lines)


def _parquet(stream: BinaryIO) -> Iterator[_Row]:
    try:
        file = pq.ParquetFile(stream, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except _PARQUET_ERRORS as error:
        raise _TableBroken(_first_line(error)) from error
    for group in range(file.num_row_groups):
        left = file.metadata.row_group(group).num_rows
        try:
            for batch in file.iter_batches(_ROWS_AT_ONCE, [group], use_threads=False):
                for values in batch.to_pylist():
                    yield values, None
                    left -= 1
        except _PARQUET_ERRORS as error:
            detail = f"{left} rows of row group {group}: {_first_line(error)}"
            yield {}, _Problem(UNREADABLE, detail, left)


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0][:200]


def _lines(stream: BinaryIO, *, is_gzipped: bool) -> Iterator[bytes]:
    """Yield the lines with their ends; of one that is too long the beginning, without an end."""
    source = gzip.GzipFile(fileobj=stream) if is_gzipped else stream
    try:
        while line := source.readline(MAX_ROW_BYTES + 1):
            yield line
            while len(line) > MAX_ROW_BYTES and not line.endswith(b"\n"):
                line = source.readline(MAX_ROW_BYTES + 1)
                if not line:
                    return
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise _TableBroken(f"no gzip, or cut: {error}") from error


def _jsonl(lines: Iterator[bytes]) -> Iterator[_Row]:
    for number, line in enumerate(lines):
        if len(line) > MAX_ROW_BYTES:
            detail = f"line {number + 1}: more than {MAX_ROW_BYTES} bytes"
            yield {}, _Problem("row_too_long", detail)
        elif line.strip():
            try:
                encoding = "utf-8-sig" if number == 0 else "utf-8"
                yield parse_object(line.decode(encoding)), None
            except ValueError as error:  # UnicodeDecodeError too
                yield {}, _Problem(ROW_UNREADABLE, f"line {number + 1}: {error!s:.160}")


def _txt(lines: Iterator[bytes]) -> Iterator[_Row]:
    for number, line in enumerate(lines):
        try:
            text = line.decode("utf-8-sig" if number == 0 else "utf-8").strip()
        except UnicodeDecodeError as error:
            yield {}, _Problem(ROW_UNREADABLE, f"line {number + 1}: not UTF-8: byte {error.start}")
            continue
        if text and not text.startswith("#"):
            yield {"url": text}, None


def _csv(lines: Iterator[bytes], *, delimiter: str | None) -> Iterator[_Row]:
    source = _CsvLines(lines)
    header: list[str] | None = None
    dialect: dict[str, Any] = {"strict": True, "delimiter": delimiter or ","}
    # the limit is the process's: a field is at most as long as a row
    csv.field_size_limit(MAX_ROW_BYTES)
    while True:
        first = source.begin()
        if first is None:
            return
        if header is None and delimiter is None and "," not in first and ";" in first:
            dialect["delimiter"] = ";"
        where = f"line {source.line}"
        try:
            fields = next(csv.reader(source, **dialect))
            _refuse_surrogates(fields)
        except (csv.Error, ValueError, StopIteration) as error:
            source.give_back()
            if header is None:
                raise _TableBroken(f"the header: {error!s:.160}") from error
            yield {}, _Problem(ROW_UNREADABLE, f"{where}: {error!s:.160}")
            continue
        if header is None:
            header = fields
            if len(set(header)) != len(header):
                raise _TableBroken(f"two columns have one name: {header}")
        elif len(fields) == len(header):
            yield dict(zip(header, fields, strict=True)), None
        elif fields:
            said = f"{where}: {len(fields)} fields, and the header has {len(header)}"
            yield {}, _Problem(ROW_UNREADABLE, said)


class _CsvLines:
    """Lines for one row at a time, given back when they turn out to be none of it.

    A quote that is never closed would take all that follows with it; like this it costs one row.
    """

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._waiting: deque[bytes] = deque()
        self._taken: list[bytes] = []
        self.line = 0

    def begin(self) -> str | None:
        """Begin with the next line that is not blank; return it, or None at the end."""
        self._taken = []
        for line in iter(self._next, None):
            self.line += 1
            if line.strip():
                self._waiting.appendleft(line)
                return line.decode("utf-8", "surrogateescape")
        return None

    def give_back(self) -> None:
        """Take back all lines of this row but the first."""
        self._waiting.extendleft(reversed(self._taken[1:]))
        self.line -= max(len(self._taken) - 1, 0)
        self._taken = self._taken[:1]

    def __iter__(self) -> "_CsvLines":
        return self

    def __next__(self) -> str:
        if sum(map(len, self._taken)) > MAX_ROW_BYTES // 32 or len(self._taken) > 1000:
            raise csv.Error("a quote is not closed")
        line = self._next()
        if line is None:
            raise StopIteration
        if len(line) > MAX_ROW_BYTES:
            raise csv.Error(f"more than {MAX_ROW_BYTES} bytes")
        self._taken.append(line)
        if len(self._taken) > 1:
            self.line += 1
        text = line.decode("utf-8", "surrogateescape")
        return text.removeprefix("\ufeff") if self.line == 1 else text

    def _next(self) -> bytes | None:
        return self._waiting.popleft() if self._waiting else next(self._lines, None)


def _refuse_surrogates(fields: Sequence[str]) -> None:
    for text in fields:
        if not text.isascii():
            text.encode()  # UnicodeEncodeError is a ValueError
