"""Tables beside the files that they tell of: `metadata.csv` with a row per file.

pictures/metadata.csv    file_name,text
pictures/owl.png
"""

import io
import posixpath
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmcore.errors import SampleError
from mmcore.ingest.cells import plain_values
from mmcore.ingest.layout import ReadFile, SourceFile
from mmcore.ingest.records import read_records
from mmcore.sample import Json

MAX_TABLE_BYTES = 64 << 20
_MAX_OPEN = 4


@dataclass(frozen=True)
class FolderTable:
    """The rows of a table by the file that each tells of."""

    rows: Mapping[str, Mapping[str, Json]]
    twice: frozenset[str]
    """Files that two rows tell of."""
    problems: Sequence[tuple[str, str]]
    """(table#row, reason) of rows that cannot be read."""

    def row(self, table: SourceFile, paths: Sequence[str]) -> Mapping[str, Json]:
        """Return what a table tells of the files of a sample; nothing where no row names one."""
        folder = posixpath.dirname(table.path)
        names = [posixpath.relpath(path, folder or ".") for path in paths]
        doubled = sorted(self.twice.intersection(names))
        if doubled:
            detail = f"{table.path}: two rows tell of {doubled[0]}"
            raise SampleError("metadata_unreadable", detail)
        return next((self.rows[name] for name in names if name in self.rows), {})


def nearest_table(path: str, tables: Mapping[str, SourceFile]) -> SourceFile | None:
    """Return the table of the folder of a file, or of the nearest folder above; by folder."""
    folder = posixpath.dirname(path)
    while True:
        if folder in tables:
            return tables[folder]
        if not folder:
            return None
        folder = posixpath.dirname(folder)


_open: OrderedDict[tuple[str, str, str], FolderTable] = OrderedDict()


def open_table(file: SourceFile, read_file: ReadFile, *, key: str) -> FolderTable:
    """Return a table, read once by a worker for all the samples that it tells of."""
    at = (file.path, file.sha256, key)
    if at not in _open:
        _open[at] = _read(file, read_file, key)
        while len(_open) > _MAX_OPEN:
            _open.popitem(last=False)
    return _open[at]


def _read(file: SourceFile, read_file: ReadFile, key: str) -> FolderTable:
    if file.num_bytes > MAX_TABLE_BYTES:
        detail = f"{file.path}: {file.num_bytes} bytes > {MAX_TABLE_BYTES}; use the layout `table`"
        raise SampleError("metadata_unreadable", detail)
    rows: dict[str, Mapping[str, Json]] = {}
    twice: set[str] = set()
    problems = []
    for record in read_records(file.path, io.BytesIO(read_file(file))):
        name = record.values.get(key)
        if record.problem is not None:
            problems.append((f"{file.path}#{record.number}", record.problem[0]))
        elif not isinstance(name, str):
            problems.append((f"{file.path}#{record.number}", "key_missing"))
        else:
            name = posixpath.normpath(name)
            if name in rows:
                twice.add(name)
            lists = {
                column: value for column, value in record.values.items() if isinstance(value, list)
            }
            rows[name] = {**plain_values(record.values, without={key}), **lists}
    return FolderTable(rows, frozenset(twice), problems)
