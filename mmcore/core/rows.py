"""How samples lie between two steps: a Parquet table of all outcomes, and a blob of new bytes.

Every task writes `NAME.parquet`, a row for each sample it was given, kept or not, and, where a
stage made bytes, `NAME.bin` with them end to end. Bytes that no stage touched stay where they are
and are named by reference. What was made ahead of a part (`core/ahead.py`) is beside it, in a
column of a table that has some.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmcore import storage
from mmcore.core.manifest import Counts, FileRecord
from mmcore.core.step import Artifact, TaskContext, TaskReport, canonical_json
from mmcore.core.tables import table_of
from mmcore.errors import IntegrityError
from mmcore.sample import Dropped, Made, Outcome, Part, PartRef, Quarantined, Sample, sha256_hex

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
    blob = io.BytesIO()
    rows: list[dict[str, Any]] = []
    kept = 0
    dropped: Counter[str] = Counter()
    quarantined: Counter[str] = Counter()
    for rule, outcome in outcomes:
        row = _row_of(rule, outcome)
        if row.status == "kept":
            kept += 1
        else:
            (dropped if row.status == "dropped" else quarantined)[row.reason] += 1
        rows.append(_encode_row(_settle(row, blob, base=step, path=name + BLOB_SUFFIX)))
    files = []
    if blob.tell():
        files.append(file_record(context.output_url, name + BLOB_SUFFIX, blob.getvalue()))
    files.append(
        file_record(
            context.output_url, name + ROWS_SUFFIX, _to_parquet(rows), num_samples=len(rows)
        )
    )
    counts = Counts(
        len(rows), kept, dict(sorted(dropped.items())), dict(sorted(quarantined.items()))
    )
    return TaskReport(files=files, counts=counts)


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
        extension: replace(part, data=load_part(part, bases))
        for extension in extensions
        if (part := sample.parts[extension]).data is None
    }
    return replace(sample, parts={**sample.parts, **loaded}) if loaded else sample


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


def _to_parquet(rows: list[dict[str, Any]]) -> bytes:
    has_made = any(row.get(_MADE_NAME) for row in rows)
    schema = SCHEMA.append(pa.field(_MADE_NAME, pa.list_(_MADE))) if has_made else SCHEMA
    return table_bytes(pa.Table.from_pylist(rows, schema=schema))


def _row_of(rule: str, outcome: Outcome) -> Row:
    if isinstance(outcome, Dropped):
        return Row(outcome.sample, "dropped", outcome.reason, outcome.detail, rule, outcome.twin)
    if isinstance(outcome, Quarantined):
        return Row(outcome.sample, "quarantined", outcome.reason, outcome.detail, rule)
    return Row(outcome, "kept")


def _settle(row: Row, blob: io.BytesIO, *, base: str, path: str) -> Row:
    """Give every part a reference, appending new bytes to the blob."""

    def settled(part: Part) -> Part:
        if part.ref is not None:
            return part
        assert part.data is not None, f"a part of {row.sample.key} has no bytes"
        ref = PartRef(base, path, blob.tell(), len(part.data), sha256_hex(part.data))
        blob.write(part.data)
        return Part(ref, made=part.made)

    parts = {}
    for extension, part in sorted(row.sample.parts.items()):
        parts[extension] = part = settled(part)
        if part.made is not None and part.made.part is not None:
            made = replace(part.made, part=settled(part.made.part))
            parts[extension] = replace(part, made=made)
    return replace(row, sample=replace(row.sample, parts=parts))


def _encode_row(row: Row) -> dict[str, Any]:
    sample = row.sample
    parts = [
        {
            "extension": extension,
            # not asdict, which copies: this is done for every part of every sample
            "base": part.ref.base,
            "path": part.ref.path,
            "offset": part.ref.offset,
            "num_bytes": part.ref.num_bytes,
            "sha256": part.ref.sha256,
        }
        for extension, part in sorted(sample.parts.items())
        if part.ref is not None
    ]
    row_of = {
        "key": sample.key,
        "status": row.status,
        "reason": row.reason,
        "detail": row.detail,
        "rule": row.rule,
        "twin": row.twin,
        "parts": parts,
        "meta": canonical_json(dict(sample.meta)).decode(),
        "scores": sorted((name, float(score)) for name, score in sample.scores.items()),
    }
    made = [_encode_made(part.made) for _, part in sorted(sample.parts.items()) if part.made]
    return {**row_of, _MADE_NAME: made} if made else row_of


def _encode_made(made: Made) -> dict[str, Any]:
    where = {} if made.part is None or made.part.ref is None else asdict(made.part.ref)
    return {"of": made.of, "by": made.by, "extension": made.extension, **where}


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
