"""A Parquet table that grows: its rows are taken over as they lie, and new ones follow.

Groups of rows are copied as bytes and never decoded, so an old row costs what copying it costs. The
new footer names all of them; whoever reads the file sees one table.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmcore import storage
from mmcore.core.manifest import FileRecord
from mmcore.core.rows import record_pieces

ROWS_PER_GROUP = 8192
_MAX_PIECES = 64
_MAGIC = b"PAR1"
_BYTES_AT_ONCE = 1 << 22


def write_grown(
    output_url: str,
    path: str,
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    *,
    before: str | None = None,
) -> FileRecord:
    """Write a table of an artifact: the rows of the one at `before`, and then those of `tables`.

    Equal rows that come in equal increments give equal bytes, however they are cut into tables.
    """
    old = None if before is None else _Old.open(before)
    with tempfile.TemporaryFile() as spool:
        sink = _Sink(spool)
        with (
            pa.PythonFile(sink, mode="w") as file,
            pq.ParquetWriter(file, schema, compression="zstd") as writer,
        ):
            if old is not None:
                # offsets count from the beginning of the file, which is not written here
                sink.is_open = False
                for num_bytes in _steps(old.end_of_rows - len(_MAGIC)):
                    file.write(bytes(num_bytes))
                sink.is_open = True
            groups = _in_groups(tables)
            while (group := next(groups, None)) is not None:
                writer.write_table(group, row_group_size=ROWS_PER_GROUP)
                # gone before the next one gathers
                group = None
        pieces = _copied(spool) if old is None else _joined(old, spool, sink.num_bytes)
        return record_pieces(output_url, path, pieces)


def read_groups(url: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of a table, a group of them at a time; some columns or all."""
    with storage.open_read(url) as stream:
        # a local file as one buffer: what is no buffer may be read ahead by a thread
        is_local = storage.is_local(url)
        source = pa.BufferReader(pa.memory_map(url).read_buffer()) if is_local else stream
        file = pq.ParquetFile(source)
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, columns=columns, use_threads=False)


def is_in_pieces(url: str) -> bool:
    """Return whether a table has grown so often by so little that it is better written anew."""
    metadata = _Old.open(url).metadata
    return bool(metadata.num_row_groups > _MAX_PIECES + 2 * metadata.num_rows // ROWS_PER_GROUP)


@dataclass(frozen=True)
class _Old:
    url: str
    metadata: pq.FileMetaData
    end_of_rows: int

    @staticmethod
    def open(url: str) -> "_Old":
        with storage.open_read(url) as stream:
            size = stream.seek(0, 2)
            stream.seek(size - 8)
            start = size - 8 - int.from_bytes(stream.read(4), "little")
            stream.seek(start)
            metadata = _metadata(stream.read())
        return _Old(url, metadata, start)

    def rows(self) -> Iterator[bytes]:
        with storage.open_read(self.url) as stream:
            for num_bytes in _steps(self.end_of_rows):
                yield stream.read(num_bytes)


class _Sink:
    """Takes what a writer writes while it is open, and lets the rest go."""

    def __init__(self, spool: IO[bytes]) -> None:
        self.is_open = True
        self.closed = False
        self.num_bytes = 0
        self._spool = spool

    def write(self, data: Any) -> int:
        if self.is_open:
            self.num_bytes += self._spool.write(data)
        return len(data)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """The spool goes on."""
        self.closed = True


def _in_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    num_rows = 0
    for table in tables:
        waiting.append(table)
        num_rows += table.num_rows
        del table
        while num_rows >= ROWS_PER_GROUP:
            whole = pa.concat_tables(waiting)
            waiting = [whole.slice(ROWS_PER_GROUP)]
            num_rows -= ROWS_PER_GROUP
            group = [whole.slice(0, ROWS_PER_GROUP)]
            del whole
            yield _without_seams(group)
    if num_rows:
        yield _without_seams(waiting)


def _without_seams(waiting: list[pa.Table]) -> pa.Table:
    """Return tables as one, and empty the list: a column at a time is in memory twice.

    Where one ended would else show in what is written.
    """
    whole = pa.concat_tables(waiting)
    waiting.clear()
    schema, columns = whole.schema, []
    for name in schema.names:
        columns.append(whole[name].combine_chunks())
        whole = whole.drop_columns([name])
    return pa.Table.from_arrays(columns, schema=schema)


def _joined(old: _Old, spool: IO[bytes], num_bytes: int) -> Iterator[bytes]:
    spool.seek(num_bytes - 8)
    start = num_bytes - 8 - int.from_bytes(spool.read(4), "little")
    spool.seek(start)
    metadata = old.metadata
    metadata.append_row_groups(_metadata(spool.read()))
    footer = pa.BufferOutputStream()
    metadata.write_metadata_file(footer)
    yield from old.rows()
    spool.seek(len(_MAGIC))
    for size in _steps(start - len(_MAGIC)):
        yield spool.read(size)
    yield footer.getvalue().to_pybytes()[len(_MAGIC) :]


def _copied(spool: IO[bytes]) -> Iterator[bytes]:
    spool.seek(0)
    while data := spool.read(_BYTES_AT_ONCE):
        yield data


def _metadata(footer: bytes) -> pq.FileMetaData:
    return pq.read_metadata(pa.BufferReader(_MAGIC + footer))


def _steps(num_bytes: int) -> Iterator[int]:
    for start in range(0, num_bytes, _BYTES_AT_ONCE):
        yield min(_BYTES_AT_ONCE, num_bytes - start)
