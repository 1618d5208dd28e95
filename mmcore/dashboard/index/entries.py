"""What is told of each sample of an increment: first those in its shards, then those left out.

Read as a stream: kept samples from the dataset's table, all others from the rows of the step that
decided about them. The order depends on the files alone, so that an interrupted index goes on.
"""

import io
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmcore import storage
from mmcore.core.lineage import SHARD_STEP
from mmcore.core.manifest import FileRecord
from mmcore.core.rows import rows_files
from mmcore.core.step import Artifact
from mmcore.errors import StorageError
from mmcore.media.near.prints import without_prints
from mmcore.sample import Json, modality_of
from mmcore.shard.document import EXTENSION as DOCUMENT
from mmcore.shard.table import TABLE_NAME

Chain = Mapping[str, Artifact]
"""What made an increment, by step, the raw corpus' first, the dataset version last."""

MAX_CAPTION_CHARACTERS = 2000
_MAX_CACHED_BYTES = 32 * 2**20
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class PartEntry:
    """Where the bytes of a part lie."""

    extension: str
    base: str
    path: str
    offset: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A sample as the index knows it; empty text where something is not known."""

    key: str
    status: str
    split: str
    step: str
    rule: str
    reason: str
    detail: str
    twin: str
    label: str
    language: str
    source: str
    caption: str
    scores: str
    """JSON."""
    parts: tuple[PartEntry, ...]
    words: str
    """What full text search finds it by."""


@dataclass(frozen=True, slots=True)
class PartFile:
    """A file of rows and the keys that may lie in it."""

    step: str
    path: str
    first_key: str
    last_key: str


def num_entries(chain: Chain) -> int:
    """Return how many samples an increment has, as its manifests say."""
    counts = [artifact.manifest.counts for artifact in chain.values()]
    lost = sum(sum(one.dropped.values()) + sum(one.quarantined.values()) for one in counts)
    return chain[SHARD_STEP].manifest.counts.kept + lost


def entries(
    chain: Chain, bases: Mapping[str, str], *, inherited: Collection[str] = (), skip: int = 0
) -> Iterator[Entry]:
    """Yield the samples of an increment after the first `skip`.

    `inherited` are the files of the dataset version that came with earlier increments; `bases` says
    where the bytes that parts refer to lie.
    """
    with _Texts(bases) as texts:
        for step, values in _rows(chain, inherited):
            if skip:
                skip -= 1
            else:
                yield _entry(step, values, texts)


def part_files(chain: Chain, *, inherited: Collection[str] = ()) -> Iterator[PartFile]:
    """Yield the files of rows of an increment with the keys at their ends, from their footers."""
    for step, artifact in chain.items():
        for record in _own_rows(step, artifact, inherited):
            first, last = _bounds(_open(storage.join(artifact.url, record.path)), "key")
            yield PartFile(step, record.path, first, last)


def survivors(chain: Chain, *, inherited: Collection[str] = ()) -> frozenset[str]:
    """Return the keys of the samples that outlived others of this increment."""
    found: set[str] = set()
    for step, artifact in chain.items():
        for record in _own_rows(step, artifact, inherited):
            file = _open(storage.join(artifact.url, record.path))
            if _bounds(file, "twin")[1]:
                found.update(pc.unique(file.read(["twin"])["twin"]).to_pylist())
    return frozenset(found - {""})


def _rows(chain: Chain, inherited: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    shard = chain[SHARD_STEP]
    tars = {file.path for file in shard.manifest.files if file.path.endswith(".tar")}
    own = pa.array(sorted(tars - set(inherited)), pa.string())
    table = _open(storage.join(shard.url, TABLE_NAME))
    for batch in table.iter_batches(batch_size=8192):
        # the table of a dataset that grew has the samples of earlier increments as well
        for values in batch.filter(pc.is_in(batch["shard"], value_set=own)).to_pylist():
            yield SHARD_STEP, values
    for step, artifact in chain.items():
        for record in _own_rows(step, artifact, inherited):
            file = _open(storage.join(artifact.url, record.path))
            if _bounds(file, "status") == ("kept", "kept"):
                continue
            rows = file.read()
            for values in rows.filter(pc.not_equal(rows["status"], "kept")).to_pylist():
                yield step, values


def _own_rows(step: str, artifact: Artifact, inherited: Collection[str]) -> Iterator[FileRecord]:
    for record in rows_files(artifact):
        if step != SHARD_STEP or record.path not in inherited:
            yield record


def _entry(step: str, values: dict[str, Any], texts: "_Texts") -> Entry:
    meta: dict[str, Json] = json.loads(values["meta"])
    shard = values.get("shard")
    parts = tuple(
        PartEntry(
            part["extension"],
            part.get("base") or SHARD_STEP,
            shard or part["path"],
            part["offset"],
            part["num_bytes"],
            part["sha256"],
        )
        for part in values["parts"]
        if not (shard and part["extension"] == DOCUMENT)
    )
    caption = texts.caption(parts) or _text(meta.get("caption"))
    scores = {name: float(f"{value:.5g}") for name, value in values["scores"]}
    return Entry(
        key=values["key"],
        status=values.get("status", "kept"),
        split=_text(values.get("split") or meta.get("split")),
        step=step,
        rule=values.get("rule", ""),
        reason=values.get("reason", ""),
        detail=values.get("detail", ""),
        twin=values.get("twin", ""),
        label=_text(meta.get("label")),
        language=_text(meta.get("language")),
        source=_text(meta.get("original_key") or meta.get("source")),
        caption=caption,
        scores=json.dumps(scores, separators=(",", ":")) if scores else "",
        parts=parts,
        words=_words(caption, values["key"], without_prints(meta)),
    )


def _words(caption: str, key: str, meta: Mapping[str, Json]) -> str:
    """Return caption, key and metadata, each text once."""
    texts = {" ".join(_WORD.findall(text.lower())): text for text in (key, *_leaves(dict(meta)))}
    told = " ".join(_WORD.findall(f"{caption} {key}".lower()))
    return " ".join([caption, key, *(text for words, text in texts.items() if words not in told)])


def _leaves(value: Json, name: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for inner_name, inner in value.items():
            yield from _leaves(inner, inner_name)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, name)
    elif isinstance(value, str):
        if "sha256" not in name and name != "split_group" and not _is_digest(value):
            yield value[:MAX_CAPTION_CHARACTERS]
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)


def _is_digest(text: str) -> bool:
    return len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)


def _text(value: Json) -> str:
    return "" if value is None else str(value)[:MAX_CAPTION_CHARACTERS]


class _Texts:
    """Reads captions out of blobs and shards; one file is open at a time."""

    def __init__(self, bases: Mapping[str, str]) -> None:
        self._bases = bases
        self._url = ""
        self._file: io.BufferedReader | None = None
        self._data: bytes | None = None

    def __enter__(self) -> "_Texts":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def caption(self, parts: Iterable[PartEntry]) -> str:
        """Return the first text part, cut where it is long; empty where there is none."""
        part = next((part for part in parts if modality_of(part.extension) == "text"), None)
        if part is None or part.base not in self._bases or not part.num_bytes:
            return ""
        try:
            data = self._read(part)
        except (StorageError, OSError):
            # the index goes on without a caption; whoever asks for the bytes is told why
            return ""
        return data.decode("utf-8", "replace").strip()[:MAX_CAPTION_CHARACTERS]

    def _read(self, part: PartEntry) -> bytes:
        url = storage.join(self._bases[part.base], part.path)
        num_bytes = min(part.num_bytes, 4 * MAX_CAPTION_CHARACTERS)
        if url != self._url:
            self._close()
            self._url = url
            if storage.is_local(url):
                self._file = open(url, "rb")  # noqa: SIM115 - closed with the next file
            elif part.offset + num_bytes <= _MAX_CACHED_BYTES:
                # many small reads of a bucket would cost more than the blob
                self._data = storage.read(url, num_bytes=_MAX_CACHED_BYTES)
        if self._file is not None:
            return os.pread(self._file.fileno(), num_bytes, part.offset)
        if self._data is not None and part.offset + num_bytes <= len(self._data):
            return self._data[part.offset : part.offset + num_bytes]
        return storage.read(url, offset=part.offset, num_bytes=num_bytes)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._data = None
        self._url = ""


def _open(url: str) -> pq.ParquetFile:
    if storage.is_local(url):
        try:
            return pq.ParquetFile(url, memory_map=True)
        except FileNotFoundError as error:
            raise StorageError(f"{url} does not exist: the artifact was deleted.") from error
    return pq.ParquetFile(pa.BufferReader(storage.read(url)))


def _bounds(file: pq.ParquetFile, column: str) -> tuple[str, str]:
    """Return the least and the greatest value of a column; open ends where nothing is recorded."""
    at = file.schema_arrow.names.index(column)
    metadata = file.metadata
    found = [metadata.row_group(i).column(at).statistics for i in range(metadata.num_row_groups)]
    if not found or any(one is None or not one.has_min_max for one in found):
        return "", "\U0010ffff"
    return min(one.min for one in found), max(one.max for one in found)
