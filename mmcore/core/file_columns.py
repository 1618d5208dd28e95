"""Files of a source as columns: paths, sizes, versions, some tens of bytes for each file."""

import itertools
from collections.abc import Sequence
from hashlib import sha256

import pyarrow as pa
import pyarrow.compute as pc

from mmcore import storage
from mmcore.core.grown_table import write_grown
from mmcore.core.manifest import FileRecord
from mmcore.core.step import canonical_json
from mmcore.sample import Json
from mmcore.storage import FileInfo

AT_ONCE = 4096
SCHEMA = pa.schema([("path", pa.string()), ("num_bytes", pa.int64()), ("version", pa.string())])


def list_source(url: str) -> tuple[pa.Table, list[str]]:
    """Return the files below a URL, sorted, and those whose names are no text."""
    batches: list[pa.RecordBatch] = []
    unusable: list[str] = []
    found = storage.iter_files(url)
    while some := list(itertools.islice(found, AT_ONCE)):
        files = [file for file in some if _is_text(file.path)]
        unusable += [_escaped(file.path) for file in some if not _is_text(file.path)]
        columns = [[getattr(file, name) for file in files] for name in SCHEMA.names]
        arrays = [pa.array(column, one.type) for column, one in zip(columns, SCHEMA, strict=True)]
        batches.append(pa.record_batch(arrays, schema=SCHEMA))
    table = pa.Table.from_batches(batches, SCHEMA)
    return table.take(pc.sort_indices(table["path"])).combine_chunks(), sorted(unusable)


def digest_of_listing(files: pa.Table, unusable: Sequence[str]) -> str:
    """Return the SHA-256 of what a look at a source found."""
    digest = sha256()
    separator = ""
    for batch in files.to_batches(AT_ONCE):
        fields = (batch["path"], batch["num_bytes"].cast(pa.string()), batch["version"], "\t")
        lines = pc.binary_join_element_wise(*fields).to_pylist()
        digest.update((separator + "\n".join(lines)).encode())
        separator = "\n"
    digest.update("".join(f"\n{path}" for path in unusable).encode())
    return digest.hexdigest()


def _is_text(path: str) -> bool:
    return path.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in path)


def _escaped(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def infos(files: pa.Table) -> list[FileInfo]:
    """Return the files that are lines of a table."""
    columns = (files[name].to_pylist() for name in SCHEMA.names)
    return [FileInfo(*values) for values in zip(*columns, strict=True)]


def digest_of_columns(columns: Sequence[pa.ChunkedArray], more: Sequence[Json]) -> str:
    """Return the SHA-256 of columns and of what comes after them, as one list in JSON."""
    digest = sha256()
    before = b"["
    for column in columns:
        digest.update(before + b"[")
        for start in range(0, len(column), AT_ONCE):
            values = canonical_json(column.slice(start, AT_ONCE).to_pylist())
            digest.update((b"," if start else b"") + values[1:-1])
        digest.update(b"]")
        before = b","
    for value in more:
        digest.update(b"," + canonical_json(value))
    digest.update(b"]")
    return digest.hexdigest()


def write_columns(url: str, path: str, table: pa.Table) -> FileRecord:
    """Write a table, some lines at a time."""
    return write_grown(
        url,
        path,
        (table.slice(i, AT_ONCE) for i in range(0, max(1, table.num_rows), AT_ONCE)),
        table.schema,
    )
