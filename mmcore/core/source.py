"""The raw corpus as the first step of a graph: what is there, and what each file hashes to.

Listing is cheap and done every time. Hashing is done once per version of a file: what a path held
when it had this size and this mtime (or ETag) is remembered below the root. That memory is a cache:
deleting it costs time, never a result.

Of files that hold many samples (tars, tables) the samples are counted in the same pass. What a list
of URLs names is fetched here, so that it is part of what the source is found to be: what arrived
is kept below the root and not asked for again; what failed is, by the next scan.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, cast

import pyarrow as pa

from mmcore import storage
from mmcore.core.executor import Executor
from mmcore.core.manifest import Counts, Manifest, commit_manifest, load_manifest
from mmcore.core.reader import Gathered, HashingStream, SourceReader
from mmcore.core.rows import file_record, table_bytes
from mmcore.core.step import Artifact, canonical_json, fingerprint_of
from mmcore.core.tables import table_of
from mmcore.errors import ConfigError
from mmcore.sample import Json, sha256_hex
from mmcore.storage import FileInfo

SCAN_STEP = "scan"
FILES_NAME = "files.parquet"
_FILES_PER_TASK = 512
_BYTES_PER_TASK = 256 << 20
_FETCHED = "fetched"
_WHOLE_BYTES = 32 << 20
"""Up to here a file is read in one request."""
_KNOWN_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("num_bytes", pa.int64()),
        ("version", pa.string()),
        ("sha256", pa.string()),
        ("num_samples", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Source:
    """Where the raw corpus lies."""

    url: str
    hint: str = ""
    """What to do when nothing is there, for the error message."""
    reader: SourceReader | None = None
    """None where each file is a part of a sample."""


@dataclass(frozen=True)
class SourceState:
    """What a look at the source found, before any byte was read."""

    files: Sequence[FileInfo]
    listing: str
    """The digest of paths, sizes and versions."""
    content: str | None
    """The fingerprint of the content, if this very listing has been hashed before and nothing is
    left to be fetched."""
    kind: str = ""
    """What the source's reader is known by in the memory."""
    num_pending: int = 0
    """URLs that failed and are tried again."""
    unusable: Sequence[str] = ()
    """Files whose names are no UTF-8, escaped: no table could hold them."""


def look(source: Source, memory_url: str) -> SourceState:
    """List the source; ConfigError when there is nothing."""
    everything = storage.list_files(source.url)
    files = [file for file in everything if _is_text(file.path)]
    unusable = [_escaped(file.path) for file in everything if not _is_text(file.path)]
    if not files:
        raise ConfigError(
            f"source.path: no file below {source.url!r}. "
            f"{source.hint or 'Give the folder or s3:// prefix that holds the corpus.'}"
        )
    listed = [*(f"{f.path}\t{f.num_bytes}\t{f.version}" for f in files), *unusable]
    listing = sha256_hex("\n".join(listed).encode())
    kind = "" if source.reader is None else fingerprint_of(source.reader.scan_identity())[:12]
    memo = storage.read_if_exists(_memory(memory_url, kind, "memo.json"))
    content, num_pending = None, 0
    if memo is not None:
        remembered = json.loads(memo)
        num_pending = remembered.get("num_pending", 0)
        if remembered["listing"] == listing and not num_pending:
            content = remembered["content"]
    return SourceState(files, listing, content, kind, num_pending, unusable)


def _is_text(path: str) -> bool:
    return path.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in path)


def _escaped(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def describe_change(state: SourceState, memory_url: str) -> str:
    """Say how the source differs from what was known of it."""
    known = _load_known(memory_url, state.kind)
    if not known:
        return f"{len(state.files)} files not seen before"
    new = sum(file.path not in known for file in state.files)
    changed = sum(
        file.path in known and known[file.path].version != file.version for file in state.files
    )
    removed = len(known.keys() - {file.path for file in state.files})
    if state.num_pending and not (new or changed or removed):
        return f"{state.num_pending} URLs failed and are tried again"
    return f"source changed: {new} files new, {changed} changed, {removed} removed"


def _nothing_in_the_way() -> None:
    """Commit without asking anybody."""


def scan(
    source: Source,
    state: SourceState,
    *,
    memory_url: str,
    directory: str,
    executor: Executor,
    before_commit: Callable[[], None] = _nothing_in_the_way,
) -> Artifact:
    """Hash what is not known yet, fetch what is only named, and commit the list of files with
    their hashes as an artifact.
    """
    known = _load_known(memory_url, state.kind)
    unknown = [
        file
        for file in state.files
        if file.path not in known or known[file.path].version != file.version
    ]
    chunks = list(_chunks(unknown))
    found: dict[str, _Known] = {}
    for index, digests in executor.map(partial(hash_files, source.url, source.reader), chunks):
        found |= {
            file.path: _Known(file.version, digest, num_samples)
            for file, (digest, num_samples) in zip(chunks[index], digests, strict=True)
        }
    now = {file.path: found.get(file.path) or known[file.path] for file in state.files}
    store_url = storage.join(memory_url, _FETCHED)
    gathered = _gather(source, state, store_url, executor)
    before_commit()
    artifact = _commit(source, state, now, gathered, directory=directory, store_url=store_url)
    num_pending = sum(one.num_pending for one in gathered)
    content = artifact.manifest.fingerprint
    _remember(state, now, memory_url, content=content, num_pending=num_pending)
    return artifact


def hash_files(
    url: str, reader: SourceReader | None, files: Sequence[FileInfo]
) -> list[tuple[str, int | None]]:
    """Return the SHA-256 of each file below a URL, and how many samples it holds."""
    return [_hash_file(storage.join(url, file.path), reader, file) for file in files]


def _hash_file(url: str, reader: SourceReader | None, file: FileInfo) -> tuple[str, int | None]:
    if reader is None and file.num_bytes <= _WHOLE_BYTES:
        return sha256_hex(storage.read(url)), None
    with HashingStream(storage.open_read(url)) as hashing:
        stream = cast(BinaryIO, io.BufferedReader(hashing, 1 << 16))
        num_samples = None if reader is None else reader.count(file.path, stream)
        return hashing.finish(), num_samples


def _chunks(files: Sequence[FileInfo]) -> Iterator[list[FileInfo]]:
    """Yield the files in slices that are about equally much work."""
    chunk: list[FileInfo] = []
    num_bytes = 0
    for file in files:
        if chunk and (len(chunk) == _FILES_PER_TASK or num_bytes >= _BYTES_PER_TASK):
            yield chunk
            chunk, num_bytes = [], 0
        chunk.append(file)
        num_bytes += file.num_bytes
    if chunk:
        yield chunk


def _gather(
    source: Source, state: SourceState, store_url: str, executor: Executor
) -> list[Gathered]:
    if source.reader is None:
        return []
    lists = source.reader.lists([file.path for file in state.files])
    function = partial(
        source.reader.gather,
        url=source.url,
        store_url=store_url,
        num_workers=min(executor.num_workers, max(len(lists), 1)),
    )
    return sorted(
        (one for _, one in executor.map(function, lists)) if lists else [],
        key=lambda one: one.path,
    )


def fetched_name(path: str, name: str = "") -> str:
    """Return where an artifact of the scan keeps what a list of URLs brought."""
    return storage.join(_FETCHED, sha256_hex(path.encode("utf-8", "surrogateescape"))[:16], name)


def scan_identity(content: str, reader: SourceReader | None = None) -> dict[str, Json]:
    """Return the parts of the scan's fingerprint, given the digest of all paths and hashes."""
    work: dict[str, Json] = {"work": "scan", "content": content}
    if reader is not None:
        work["reader"] = dict(reader.scan_identity())
    return {"step": SCAN_STEP, "work": work, "inputs": {}}


def load_scan(directory: str, fingerprint: str) -> Artifact | None:
    """Return the scan's artifact if it is there."""
    url = storage.join(directory, fingerprint[:16])
    manifest = load_manifest(url)
    return None if manifest is None else Artifact(url, manifest)


def _commit(
    source: Source,
    state: SourceState,
    now: Mapping[str, "_Known"],
    gathered: Sequence[Gathered],
    *,
    directory: str,
    store_url: str,
) -> Artifact:
    columns: dict[str, list[Any]] = {
        "path": [file.path for file in state.files],
        "num_bytes": [file.num_bytes for file in state.files],
        "sha256": [now[file.path].sha256 for file in state.files],
    }
    more = [*([one.path, one.digest] for one in gathered), *state.unusable]
    content = sha256_hex(canonical_json([*columns.values(), *more]))
    identity = scan_identity(content, source.reader)
    fingerprint = fingerprint_of(identity)
    url = storage.join(directory, fingerprint[:16])
    facts: dict[str, Json] = {
        "num_files": len(state.files),
        "num_bytes": sum(file.num_bytes for file in state.files),
    }
    if state.unusable:
        facts["unusable"] = list(state.unusable)
    fields = [(name, pa.int64() if name == "num_bytes" else pa.string()) for name in columns]
    if source.reader is not None:
        columns["num_samples"] = [now[file.path].num_samples for file in state.files]
        fields.append(("num_samples", pa.int64()))
    files = [file_record(url, FILES_NAME, table_bytes(pa.table(columns, pa.schema(fields))))]
    if gathered:
        failed = Counts.total(Counts(dropped=one.failed) for one in gathered).dropped
        facts["fetched"] = {
            "num_fetched": sum(one.num_fetched for one in gathered),
            "failed": dict(failed),
        }
    for one in gathered:
        for record in one.files:
            # the store is named like the artifact's folder
            inside = record.path.removeprefix(_FETCHED).lstrip("/")
            storage.link(storage.join(store_url, inside), storage.join(url, record.path))
            files.append(record)
    records = tuple(sorted(files, key=lambda record: record.path))
    manifest = Manifest(SCAN_STEP, fingerprint, identity, Counts(), records, facts)
    return Artifact(url, commit_manifest(url, manifest))


@dataclass(frozen=True, slots=True)
class _Known:
    """What a version of a file was found to hold."""

    version: str
    sha256: str
    num_samples: int | None


def _memory(memory_url: str, kind: str, name: str) -> str:
    return storage.join(memory_url, *([kind] if kind else []), name)


def _load_known(memory_url: str, kind: str) -> dict[str, _Known]:
    """Return what is remembered, by path."""
    data = storage.read_if_exists(_memory(memory_url, kind, "known.parquet"))
    if data is None:
        return {}
    table = table_of(data)
    if table.schema != _KNOWN_SCHEMA:
        return {}  # of another version of this code
    columns = (table[name].to_pylist() for name in ("path", "version", "sha256", "num_samples"))
    return {path: _Known(*rest) for path, *rest in zip(*columns, strict=True)}


def _remember(
    state: SourceState,
    now: Mapping[str, _Known],
    memory_url: str,
    *,
    content: str,
    num_pending: int,
) -> None:
    known = [now[file.path] for file in state.files]
    columns = [
        [file.path for file in state.files],
        [file.num_bytes for file in state.files],
        [one.version for one in known],
        [one.sha256 for one in known],
        [one.num_samples for one in known],
    ]
    table = pa.table(columns, schema=_KNOWN_SCHEMA)
    storage.write(_memory(memory_url, state.kind, "known.parquet"), table_bytes(table))
    memo = {"listing": state.listing, "content": content, "num_pending": num_pending}
    storage.write(_memory(memory_url, state.kind, "memo.json"), canonical_json(memo))
