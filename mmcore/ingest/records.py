"""Rows of tables that strangers wrote: Parquet, JSON lines, CSV and TSV, plain or gzipped.

A few rows are in memory at a time. A row that cannot be read is a row with a problem, and the next
one is read; where that is impossible, the last row says so.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from mmcore.core import in_hand
from mmcore.core.in_hand import Refusal
from mmcore.ingest.csv_lines import CsvLines
from mmcore.ingest.sidecar import parse_object

MAX_ROW_BYTES = 32 << 20
_ROWS_AT_ONCE = 16  # with a picture in each, a batch is still small
_BYTES_AT_ONCE = 16 << 20  # of rows that are larger than pictures
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
    is_rest: bool = False
    """Whether it stands for several that cannot be read: those of a place, or all that are left."""


class _TableBroken(Exception):
    """From here on a table cannot be read."""


class _TableRefused(Exception):
    """From here on a table is not read."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason, refusal.detail)
        self.reason, self.detail = refusal.reason, refusal.detail


class _InHand:
    """The row that is looked at next."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.number = 0

    def begin(self) -> "_Problem | None":
        """Take it in hand; return why it is stepped over, if it is."""
        refusal = in_hand.begin(self.path, self.number)
        if refusal is None:
            return None
        if refusal.is_last:
            raise _TableRefused(refusal)
        return _Problem(refusal.reason, refusal.detail)

    def begin_whole(self) -> None:
        """Take in hand what tells of all rows."""
        refusal = in_hand.begin(self.path, in_hand.WHOLE)
        if refusal is not None:
            raise _TableRefused(refusal)


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
    row = _InHand(path)
    try:
        for values, problem in _rows(row, stream):
            if problem is None:
                yield Record(row.number, values)
                row.number += 1
            else:
                why = (problem.reason, problem.detail)
                yield Record(row.number, values, why, problem.is_rest)
                row.number += max(problem.num_rows, 1)
    except _TableBroken as error:
        detail = f"{path}: after {row.number} rows: {error}"
        yield Record(row.number, {}, (UNREADABLE, detail), is_rest=True)
    except _TableRefused as refused:
        detail = f"{path}: after {row.number} rows: {refused.detail}"
        yield Record(row.number, {}, (refused.reason, detail), is_rest=True)


def count_records(path: str, stream: BinaryIO) -> int:
    """Return how many rows a table has, reading it once from its beginning."""
    if format_of(path) != "parquet":
        return sum(1 for _ in read_records(path, stream))
    if in_hand.begin(path, in_hand.WHOLE) is not None:
        return 1
    tail = b""
    while data := stream.read(_FOOTER_BYTES):
        tail = (tail + data)[-_FOOTER_BYTES:]
    try:
        return int(pq.read_metadata(pa.BufferReader(tail)).num_rows)
    except MemoryError:
        raise  # pyarrow's own are both: they say nothing of the table, but of this process
    except (pa.ArrowException, OSError):
        return 1  # the one that says why it cannot be read


def class_names(path: str, stream: BinaryIO) -> Mapping[str, Sequence[str]]:
    """Return the names of classes by column, where Hugging Face wrote them into a Parquet file."""
    if in_hand.begin(path, in_hand.WHOLE) is not None:
        return {}
    try:
        metadata = pq.ParquetFile(stream).schema_arrow.metadata or {}
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {
            name: [str(one) for one in feature["names"]]
            for name, feature in features.items()
            if feature.get("_type") == "ClassLabel"
        }
    except MemoryError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OSError, pa.ArrowException):
        return {}


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why one row, or several in one place, cannot be read."""

    reason: str
    detail: str
    num_rows: int = 1
    is_rest: bool = False


_Row = tuple[Mapping[str, Any], _Problem | None]


def _rows(row: _InHand, stream: BinaryIO) -> Iterator[_Row]:
    name = format_of(row.path)
    if name == "parquet":
        yield from _parquet(row, stream)
        return
    lines = _lines(stream, is_gzipped=row.path.lower().endswith(".gz"))
    if name in ("csv", "tsv"):
        yield from _csv(row, lines, delimiter="\t" if name == "tsv" else None)
    elif name == "txt":
        yield from _txt(row, lines)
    else:
        yield from _jsonl(row, lines)


def _parquet(row: _InHand, stream: BinaryIO) -> Iterator[_Row]:
    row.begin_whole()
    try:
        file = pq.ParquetFile(stream, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except MemoryError:
        raise
    except _PARQUET_ERRORS as error:
        raise _TableBroken(_first_line(error)) from error
    for group in range(file.num_row_groups):
        about = file.metadata.row_group(group)
        left = about.num_rows
        try:
            num_rows = _rows_at_once(about.num_rows, about.total_byte_size)
            batches = file.iter_batches(num_rows, [group], use_threads=False)
            while True:
                refusal = in_hand.begin(f"{row.path}#row group {group}", row.number)
                if refusal is not None:
                    detail = f"{left} rows of row group {group}: {refusal.detail}"
                    yield {}, _Problem(refusal.reason, detail, left, is_rest=True)
                    break
                batch = next(batches, None)
                if batch is None:
                    break
                for values in batch.to_pylist():
                    problem = row.begin()
                    yield (values, None) if problem is None else ({}, problem)
                    left -= 1
        except MemoryError:
            raise
        except _PARQUET_ERRORS as error:
            detail = f"{left} rows of row group {group}: {_first_line(error)}"
            yield {}, _Problem(UNREADABLE, detail, left, is_rest=True)


def _rows_at_once(num_rows: int, num_bytes: int) -> int:
    """Return how many rows are decoded together, by what the file says of their size.

    >>> _rows_at_once(4000, 160 << 20), _rows_at_once(10, 600 << 20), _rows_at_once(0, -1)
    (16, 1, 16)
    """
    per_row = max(num_bytes // max(num_rows, 1), 1)
    return max(min(_BYTES_AT_ONCE // per_row, _ROWS_AT_ONCE), 1)


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


def _in_hand(row: _InHand, lines: Iterator[bytes]) -> Iterator[tuple[int, bytes, _Problem | None]]:
    """Yield the lines, each with its number and with why its row is stepped over."""
    for number in count():
        problem = row.begin()
        line = next(lines, None)
        if line is None:
            return
        yield number, line, problem


def _jsonl(row: _InHand, lines: Iterator[bytes]) -> Iterator[_Row]:
    for number, line, problem in _in_hand(row, lines):
        if problem is not None and line.strip():
            yield {}, problem
        elif len(line) > MAX_ROW_BYTES:
            detail = f"line {number + 1}: more than {MAX_ROW_BYTES} bytes"
            yield {}, _Problem("row_too_long", detail)
        elif line.strip():
            try:
                encoding = "utf-8-sig" if number == 0 else "utf-8"
                yield parse_object(line.decode(encoding)), None
            except ValueError as error:  # UnicodeDecodeError too
                yield {}, _Problem(ROW_UNREADABLE, f"line {number + 1}: {error!s:.160}")


def _txt(row: _InHand, lines: Iterator[bytes]) -> Iterator[_Row]:
    for number, line, problem in _in_hand(row, lines):
        if problem is not None and line.strip():
            yield {}, problem
            continue
        try:
            text = line.decode("utf-8-sig" if number == 0 else "utf-8").strip()
        except UnicodeDecodeError as error:
            yield {}, _Problem(ROW_UNREADABLE, f"line {number + 1}: not UTF-8: byte {error.start}")
            continue
        if text and not text.startswith("#"):
            yield {"url": text}, None


def _csv(row: _InHand, lines: Iterator[bytes], *, delimiter: str | None) -> Iterator[_Row]:
    source = CsvLines(lines, max_row_bytes=MAX_ROW_BYTES)
    header: list[str] | None = None
    dialect: dict[str, Any] = {"strict": True, "delimiter": delimiter or ","}
    # the limit is the process's: a field is at most as long as a row
    csv.field_size_limit(MAX_ROW_BYTES)
    while True:
        problem = row.begin()
        first = source.begin()
        if first is None:
            return
        if problem is not None and header is not None:
            source.skip()
            yield {}, problem
            continue
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


def _refuse_surrogates(fields: Sequence[str]) -> None:
    for text in fields:
        if not text.isascii():
            text.encode()  # UnicodeEncodeError is a ValueError
