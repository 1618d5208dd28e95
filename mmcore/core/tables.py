"""Parquet tables of artifacts, read in the thread that asks for them.

Arrow's own readers start threads, and a process that ends while such a thread is ending is aborted,
its work done and its answer given (apache/arrow#34314; two to four of 25 `mm explain` on a busy
machine). Nothing here starts one.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmcore import storage


def read_table(url: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a table, or some columns of it; of a local file nothing else is read."""
    if storage.is_local(url):
        # as one buffer: what is no buffer is read ahead by a thread
        mapped = pa.memory_map(url).read_buffer()
        return _whole(pq.ParquetFile(pa.BufferReader(mapped)), columns)
    return table_of(storage.read(url), columns)


def table_of(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Return what a Parquet file holds, or some columns of it."""
    return _whole(pq.ParquetFile(pa.BufferReader(data)), columns)


def rows_where(
    data: bytes, column: str, wanted: Sequence[str], *, columns: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows with one of some texts in a column, and decode none of where it is not.

    Groups of rows whose bounds leave all of the texts out are passed over.
    """
    if not wanted:
        return
    file = pq.ParquetFile(pa.BufferReader(data))
    values = pa.array(sorted(set(wanted)), pa.string())
    for group in range(file.num_row_groups):
        if _may_have(file.metadata.row_group(group), column, min(wanted), max(wanted)):
            there = pc.is_in(_group(file, group, [column])[column], values)
            if pc.any(there).as_py():
                yield from _group(file, group, columns).filter(there).to_pylist()


def _may_have(group: pq.RowGroupMetaData, column: str, lowest: str, highest: str) -> bool:
    for number in range(group.num_columns):
        chunk = group.column(number)
        if chunk.path_in_schema == column:
            bounds = chunk.statistics
            is_known = bounds is not None and bounds.has_min_max
            return not is_known or bool(bounds.min <= highest and lowest <= bounds.max)
    return True


def _whole(file: pq.ParquetFile, columns: Sequence[str] | None) -> pa.Table:
    names = None if columns is None else list(columns)
    return file.read(columns=names, use_threads=False)


def _group(file: pq.ParquetFile, group: int, columns: Sequence[str] | None) -> pa.Table:
    names = None if columns is None else list(columns)
    return file.read_row_group(group, columns=names, use_threads=False)
