"""The raw corpus as the first step of a graph: what is there, and what each file hashes to.

Listing is cheap and done every time. Hashing is done once per version of a file: what a path held
when it had this size and this mtime (or ETag) is remembered below the root. That memory is a cache:
deleting it costs time, never a result.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from mmcore import storage
from mmcore.core.executor import Executor
from mmcore.core.manifest import Counts, FileRecord, Manifest, commit_manifest, load_manifest
from mmcore.core.rows import file_record, table_bytes
from mmcore.core.step import Artifact, canonical_json, fingerprint_of
from mmcore.errors import ConfigError
from mmcore.sample import Json, sha256_hex
from mmcore.storage import FileInfo

SCAN_STEP = "scan"
FILES_NAME = "files.parquet"
_FILES_PER_TASK = 512
_KNOWN_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("num_bytes", pa.int64()),
        ("version", pa.string()),
        ("sha256", pa.string()),
    ]
)


@dataclass(frozen=True)
class Source:
    """Where the raw corpus lies."""

    url: str
    hint: str = ""
    """What to do when nothing is there, for the error message."""


@dataclass(frozen=True)
class SourceState:
    """What a look at the source found, before any byte was read."""

    files: Sequence[FileInfo]
    listing: str
    """The digest of paths, sizes and versions."""
    content: str | None
    """The fingerprint of the content, if this very listing has been hashed before."""


def look(source: Source, memory_url: str) -> SourceState:
    """List the source; ConfigError when there is nothing."""
    files = storage.list_files(source.url)
    if not files:
        raise ConfigError(
            f"source.path: no file below {source.url!r}. "
            f"{source.hint or 'Give the folder or s3:// prefix that holds the corpus.'}"
        )
    listing = sha256_hex("\n".join(f"{f.path}\t{f.num_bytes}\t{f.version}" for f in files).encode())
    memo = storage.read_if_exists(storage.join(memory_url, "memo.json"))
    content = None
    if memo is not None:
        remembered = json.loads(memo)
        if remembered["listing"] == listing:
            content = remembered["content"]
    return SourceState(files, listing, content)


def describe_change(state: SourceState, memory_url: str) -> str:
    """Say how the source differs from what was known of it."""
    known = _load_known(memory_url)
    if not known:
        return f"{len(state.files)} files not seen before"
    new = sum(file.path not in known for file in state.files)
    changed = sum(
        file.path in known and known[file.path][0] != file.version for file in state.files
    )
    removed = len(known.keys() - {file.path for file in state.files})
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
    """Hash what is not known yet, and commit the list of files with their hashes as an artifact."""
    known = _load_known(memory_url)
    unknown = [file.path for file in state.files if known.get(file.path, ("",))[0] != file.version]
    chunks = [unknown[i : i + _FILES_PER_TASK] for i in range(0, len(unknown), _FILES_PER_TASK)]
    hashed: dict[str, str] = {}
    for index, digests in executor.map(partial(hash_files, source.url), chunks):
        hashed.update(zip(chunks[index], digests, strict=True))
    digest_of = {
        file.path: hashed[file.path] if file.path in hashed else known[file.path][1]
        for file in state.files
    }
    before_commit()
    artifact = _commit(state, digest_of, directory)
    _remember(state, digest_of, memory_url, content=artifact.manifest.fingerprint)
    return artifact


def hash_files(url: str, paths: Sequence[str]) -> list[str]:
    """Return the SHA-256 of each file below a URL."""
    return [sha256_hex(storage.read(storage.join(url, path))) for path in paths]


def scan_identity(content: str) -> dict[str, Json]:
    """Return the parts of the scan's fingerprint, given the digest of all paths and hashes."""
    return {"step": SCAN_STEP, "work": {"work": "scan", "content": content}, "inputs": {}}


def load_scan(directory: str, fingerprint: str) -> Artifact | None:
    """Return the scan's artifact if it is there."""
    url = storage.join(directory, fingerprint[:16])
    manifest = load_manifest(url)
    return None if manifest is None else Artifact(url, manifest)


def _commit(state: SourceState, digest_of: Mapping[str, str], directory: str) -> Artifact:
    table = pa.table(
        {
            "path": [file.path for file in state.files],
            "num_bytes": [file.num_bytes for file in state.files],
            "sha256": [digest_of[file.path] for file in state.files],
        }
    )
    content = sha256_hex(canonical_json([table[name].to_pylist() for name in table.column_names]))
    identity = scan_identity(content)
    fingerprint = fingerprint_of(identity)
    url = storage.join(directory, fingerprint[:16])
    files: tuple[FileRecord, ...] = (file_record(url, FILES_NAME, table_bytes(table)),)
    facts: dict[str, Json] = {
        "num_files": len(state.files),
        "num_bytes": sum(file.num_bytes for file in state.files),
    }
    manifest = Manifest(SCAN_STEP, fingerprint, identity, Counts(), files, facts)
    return Artifact(url, commit_manifest(url, manifest))


def _load_known(memory_url: str) -> dict[str, tuple[str, str]]:
    """Return (version, SHA-256) by path, as remembered."""
    data = storage.read_if_exists(storage.join(memory_url, "known.parquet"))
    if data is None:
        return {}
    table = pq.read_table(pa.BufferReader(data))
    columns = (table[name].to_pylist() for name in ("path", "version", "sha256"))
    return {path: (version, digest) for path, version, digest in zip(*columns, strict=True)}


def _remember(
    state: SourceState, digest_of: Mapping[str, str], memory_url: str, *, content: str
) -> None:
    rows = [
        {
            "path": file.path,
            "num_bytes": file.num_bytes,
            "version": file.version,
            "sha256": digest_of[file.path],
        }
        for file in state.files
    ]
    table = pa.Table.from_pylist(rows, schema=_KNOWN_SCHEMA)
    storage.write(storage.join(memory_url, "known.parquet"), table_bytes(table))
    memo = {"listing": state.listing, "content": content}
    storage.write(storage.join(memory_url, "memo.json"), canonical_json(memo))
