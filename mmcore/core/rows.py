"""How samples lie between two steps: a Parquet table of all outcomes, and a blob of new bytes.

Every task writes `NAME.parquet`, a row for each sample it was given, kept or not, and, where a
stage made bytes, `NAME.bin` with them end to end. Bytes that no stage touched stay where they are
and are named by reference. What was made ahead of a part (`core/ahead.py`) is beside it, in a
column of a table that has some.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmcore import storage
from mmcore.core.manifest import Counts, FileRecord
from mmcore.core.step import Artifact, TaskContext, TaskReport, canonical_json
from mmcore.core.tables import table_of
from mmcore.errors import IntegrityError
from mmcore.sample import Dropped, Made, Outcome, Part, PartRef, Sample, sha256_hex

ROWS_SUFFIX = ".parquet"
BLOB_SUFFIX = ".bin"

_PLACE = [
    ("extension", pa.string()),
    ("base", pa.string()),
    ("path", pa.string()),
    ("offset", pa.int64()),
    ("num_bytes", pa.int64()),
    ("sha256", pa.string()),
]
_PART = pa.struct(_PLACE)
_MADE = pa.struct([("of", pa.string()), ("by", pa.string()), *_PLACE])
_MADE_NAME = "made"
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("rule", pa.string()),
        ("twin", pa.string()),
        ("parts", pa.list_(_PART)),
        ("meta", pa.string()),
        ("scores", pa.map_(pa.string(), pa.float64())),
    ]
)


@dataclass(frozen=True)
class Row:
    """What became of a sample in a step."""

    sample: Sample
    """Parts unloaded."""
    status: str
    """`kept`, `dropped` or `quarantined`."""
    reason: str = ""
    detail: str = ""
    rule: str = ""
    """The stage or rule that decided, for samples that were not kept."""
    twin: str = ""


def write_part(
    name: str, outcomes: Iterable[tuple[str, Outcome]], *, step: str, context: TaskContext
) -> TaskReport:
    """Write the outcomes of one task, each with the name of the rule that decided, and count them.

    Bytes in memory go to the blob; the rows refer to them with `step` as their base.
    """
    table = _RowTable(step, name + BLOB_SUFFIX)
    for rule, outcome in outcomes:
        table.add(rule, outcome)
    files = []
    if table.blob.tell():
        files.append(file_record(context.output_url, name + BLOB_SUFFIX, table.blob.getvalue()))
    data = table_bytes(table.built())
    num_rows = len(table.rows)
    files.append(file_record(context.output_url, name + ROWS_SUFFIX, data, num_samples=num_rows))
    return TaskReport(files=files, counts=table.counts())


def read_rows(artifact: Artifact) -> Iterator[Row]:
    """Yield every row of an artifact, kept or not, by file and then by row."""
    for record in rows_files(artifact):
        yield from read_rows_file(artifact, record)


def read_kept(artifact: Artifact) -> Iterator[Sample]:
    """Yield the samples that a step kept, parts unloaded, by file and then by row."""
    return (row.sample for row in read_rows(artifact) if row.status == "kept")


def rows_files(artifact: Artifact) -> list[FileRecord]:
    """Return the records of the tables of outcomes among an artifact's files, sorted by path."""
    is_rows = lambda record: record.path.endswith(ROWS_SUFFIX) and record.num_samples is not None  # noqa: E731
    return sorted(filter(is_rows, artifact.manifest.files), key=lambda record: record.path)


def read_rows_file(artifact: Artifact, record: FileRecord) -> Iterator[Row]:
    """Yield the rows of one file of an artifact; IntegrityError when it is not what was written."""
    url = storage.join(artifact.url, record.path)
    data = storage.read(url)
    if sha256_hex(data) != record.sha256:
        raise IntegrityError(
            f"{url} is not the file that was committed (SHA-256 differs). Delete the directory "
            f"{artifact.url} and run again: the step will be made anew."
        )
    for values in table_of(data).to_pylist():
        yield decode_row(values)


def load_part(part: Part, bases: Mapping[str, str]) -> bytes:
    """Return the bytes of a part, checked against the length and SHA-256 of its reference."""
    if part.data is not None:
        return part.data
    ref = part.ref
    assert ref is not None, "a part has bytes or a reference"
    url = storage.join(bases[ref.base], ref.path)
    data = storage.read(url, offset=ref.offset, num_bytes=ref.num_bytes)
    if len(data) != ref.num_bytes or sha256_hex(data) != ref.sha256:
        remedy = (
            "The source changed after it was scanned: run again, and the change will be found."
            if ref.base == "source"
            else f"Delete the artifact below {bases[ref.base]} and run again."
        )
        raise IntegrityError(
            f"{url} holds other bytes than were recorded ({len(data)} of {ref.num_bytes} bytes, "
            f"SHA-256 {'differs' if len(data) == ref.num_bytes else 'not compared'}). {remedy}"
        )
    return data


def with_loaded(sample: Sample, extensions: Iterable[str], bases: Mapping[str, str]) -> Sample:
    """Return the sample with the bytes of some of its parts in memory."""
    loaded = {
        extension: Part(part.ref, load_part(part, bases), part.made)
        for extension in extensions
        if (part := sample.parts[extension]).data is None
    }
    return sample.with_parts({**sample.parts, **loaded}) if loaded else sample


def file_record(
    output_url: str, path: str, data: bytes | list[bytes], *, num_samples: int | None = None
) -> FileRecord:
    """Write a file of an artifact, whole or not at all, and return its record."""
    pieces = data if isinstance(data, list) else [data]
    storage.write(storage.join(output_url, path), pieces)
    digest = sha256()
    for piece in pieces:
        digest.update(piece)
    return FileRecord(path, sum(map(len, pieces)), digest.hexdigest(), num_samples)


def record_pieces(output_url: str, path: str, pieces: Iterable[bytes]) -> FileRecord:
    """Write a file of an artifact that is made a piece at a time, and return its record."""
    digest, num_bytes = sha256(), 0

    def passing() -> Iterator[bytes]:
        nonlocal num_bytes
        for piece in pieces:
            digest.update(piece)
            num_bytes += len(piece)
            yield piece

    storage.write_pieces(storage.join(output_url, path), passing())
    return FileRecord(path, num_bytes, digest.hexdigest())


def table_bytes(table: pa.Table) -> bytes:
    """Return a table as Parquet; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=64 * 1024)
    data: bytes = sink.getvalue().to_pybytes()
    return data


class _RowTable:
    """The rows of one task, held by column: a dictionary a row costs more than the rest of it."""

    def __init__(self, base: str, path: str) -> None:
        self.rows: list[tuple[str, ...]] = []
        """Key, status, reason, detail, rule, twin, metadata."""
        self.blob = io.BytesIO()
        self._base = base
        self._path = path
        self._parts: list[tuple[Any, ...]] = []
        self._part_offsets = [0]
        self._made: list[tuple[Any, ...]] = []
        self._made_offsets: list[int | None] = []
        self._score_names: list[str] = []
        self._scores: list[float] = []
        self._score_offsets = [0]

    def add(self, rule: str, outcome: Outcome) -> None:
        """Add what became of a sample, and its new bytes to the blob."""
        if isinstance(outcome, Sample):
            sample, decided = outcome, ("kept", "", "", "", "")
        elif isinstance(outcome, Dropped):
            sample = outcome.sample
            decided = ("dropped", outcome.reason, outcome.detail, rule, outcome.twin)
        else:
            sample = outcome.sample
            decided = ("quarantined", outcome.reason, outcome.detail, rule, "")
        self.rows.append((sample.key, *decided, canonical_json(dict(sample.meta)).decode()))
        num_made = len(self._made)
        for extension, part in sorted(sample.parts.items()):
            self._parts.append((extension, *self._place_of(part, sample.key)))
            if part.made is not None:
                self._add_made(part.made, sample.key)
        self._part_offsets.append(len(self._parts))
        # a row without any has no list
        self._made_offsets.append(num_made if len(self._made) > num_made else None)
        for name, score in sorted(sample.scores.items()):
            self._score_names.append(name)
            self._scores.append(float(score))
        self._score_offsets.append(len(self._scores))

    def counts(self) -> Counts:
        """Return how many samples there are, by what became of them."""
        found = Counter((status, reason) for _, status, reason, *_ in self.rows)
        dropped, quarantined = (
            {reason: found[status, reason] for status, reason in sorted(found) if status == wanted}
            for wanted in ("dropped", "quarantined")
        )
        return Counts(len(self.rows), found["kept", ""], dropped, quarantined)

    def built(self) -> pa.Table:
        """Return the table."""
        *words, meta = _by_column(self.rows, [*SCHEMA.names[:6], "meta"])
        parts = _structs(self._parts, _PART)
        names = pa.array(self._score_names, pa.string())
        scores = pa.array(self._scores, pa.float64())
        arrays = [
            *(pa.array(column, pa.string()) for column in words),
            pa.ListArray.from_arrays(
                _offsets(self._part_offsets), parts, SCHEMA.field("parts").type
            ),
            pa.array(meta, pa.string()),
            pa.MapArray.from_arrays(_offsets(self._score_offsets), names, scores),
        ]
        if not self._made:
            return pa.Table.from_arrays(arrays, schema=SCHEMA)
        offsets = _offsets([*self._made_offsets, len(self._made)])
        made_type = pa.list_(_MADE)
        arrays.append(pa.ListArray.from_arrays(offsets, _structs(self._made, _MADE), made_type))
        return pa.Table.from_arrays(arrays, schema=SCHEMA.append(pa.field(_MADE_NAME, made_type)))

    def _place_of(self, part: Part, key: str) -> tuple[str, str, int, int, str]:
        """Return where the bytes of a part lie; new ones go to the blob."""
        ref = part.ref
        if ref is not None:
            return ref.base, ref.path, ref.offset, ref.num_bytes, ref.sha256
        data = part.data
        assert data is not None, f"a part of {key} has no bytes"
        offset = self.blob.tell()
        self.blob.write(data)
        return self._base, self._path, offset, len(data), sha256_hex(data)

    def _add_made(self, made: Made, key: str) -> None:
        where = (None,) * 5 if made.part is None else self._place_of(made.part, key)
        self._made.append((made.of, made.by, made.extension, *where))


def _by_column(rows: list[tuple[Any, ...]], names: list[str]) -> list[tuple[Any, ...]]:
    return list(zip(*rows, strict=True)) if rows else [()] * len(names)


def _structs(rows: list[tuple[Any, ...]], kind: pa.StructType) -> pa.StructArray:
    fields = [kind.field(number) for number in range(kind.num_fields)]
    columns = _by_column(rows, [field.name for field in fields])
    arrays = [pa.array(column, field.type) for column, field in zip(columns, fields, strict=True)]
    return pa.StructArray.from_arrays(arrays, fields=fields)


def _offsets(offsets: Sequence[int | None]) -> pa.Array:
    return pa.array(offsets, pa.int32())


def _decode_made(values: dict[str, Any]) -> Made:
    by, of, extension = (values.pop(name) for name in ("by", "of", "extension"))
    return Made(by, of, extension, None if values["path"] is None else Part(PartRef(**values)))


def decode_row(values: dict[str, Any]) -> Row:
    """Return a row from the values of one line of the table."""
    parts = {}
    for part in values["parts"]:
        extension = part.pop("extension")
        parts[extension] = Part(ref=PartRef(**part))
    for value in values.get(_MADE_NAME) or ():
        made = _decode_made(value)
        parts[made.of] = replace(parts[made.of], made=made)
    sample = Sample(
        key=values["key"],
        parts=parts,
        meta=json.loads(values["meta"]),
        scores=dict(values["scores"]),
    )
    decided = {name: values[name] for name in ("status", "reason", "detail", "rule", "twin")}
    return Row(sample, **decided)
