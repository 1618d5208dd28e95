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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmcore import storage
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.decoder_reads import Found, Read
from mmcore.core.executor import Executor
from mmcore.core.file_columns import (
    digest_of_columns,
    digest_of_listing,
    infos,
    list_source,
    write_columns,
)
from mmcore.core.in_hand import Refusal
from mmcore.core.manifest import Counts, Manifest, commit_manifest, load_manifest
from mmcore.core.reader import Gathered, HashingStream, SourceReader
from mmcore.core.reading import answers
from mmcore.core.step import Artifact, canonical_json, fingerprint_of
from mmcore.core.tables import read_table
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
    limits: DecoderLimits = field(default_factory=DecoderLimits)
    """What a record of a file that holds many may cost when they are counted."""


@dataclass(frozen=True)
class SourceState:
    """What a look at the source found, before any byte was read."""

    files: pa.Table
    """Path, size and version of each, sorted by path."""
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
    files, unusable = list_source(source.url)
    if not files.num_rows:
        raise ConfigError(
            f"source.path: no file below {source.url!r}. "
            f"{source.hint or 'Give the folder or s3:// prefix that holds the corpus.'}"
        )
    listing = digest_of_listing(files, unusable)
    kind = "" if source.reader is None else fingerprint_of(source.reader.scan_identity())[:12]
    memo = storage.read_if_exists(_memory(memory_url, kind, "memo.json"))
    content, num_pending = None, 0
    if memo is not None:
        remembered = json.loads(memo)
        num_pending = remembered.get("num_pending", 0)
        if remembered["listing"] == listing and not num_pending:
            content = remembered["content"]
    return SourceState(files, listing, content, kind, num_pending, unusable)


def describe_change(state: SourceState, memory_url: str) -> str:
    """Say how the source differs from what was known of it."""
    known = _load_known(memory_url, state.kind)
    if not known.num_rows:
        return f"{state.files.num_rows} files not seen before"
    at = pc.index_in(state.files["path"], known["path"])
    new = at.null_count
    changed = pc.sum(pc.not_equal(known["version"].take(at), state.files["version"])).as_py() or 0
    removed = known.num_rows - (state.files.num_rows - new)
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
    now = _hashed(source, state, _load_known(memory_url, state.kind), executor)
    store_url = storage.join(memory_url, _FETCHED)
    gathered = _gather(source, state, store_url, executor)
    before_commit()
    artifact = _commit(
        source, now, gathered, state.unusable, directory=directory, store_url=store_url
    )
    num_pending = sum(one.num_pending for one in gathered)
    content = artifact.manifest.fingerprint
    _remember(state, now, memory_url, content=content, num_pending=num_pending)
    return artifact


def hash_files(
    url: str, reader: SourceReader | None, limits: DecoderLimits, files: Sequence[FileInfo]
) -> list[tuple[str, int | None]]:
    """Return the SHA-256 of each file below a URL, and how many samples it holds.

    To be counted a file is opened, which is done in the decoder process.
    """
    if reader is None:
        return [(_hash_file(storage.join(url, file.path), file.num_bytes), None) for file in files]
    found: list[tuple[str, int | None]] = []
    counting = answers(_Counting(url, reader), [file.path for file in files], limits)
    for number, answer in counting:
        if isinstance(answer, Refusal):
            file = files[number]
            found.append((_hash_file(storage.join(url, file.path), file.num_bytes), 1))
        else:
            digest, num_samples = json.loads(bytes(answer[0]))
            found.append((digest, num_samples))
    return found


def _hash_file(url: str, num_bytes: int) -> str:
    if num_bytes <= _WHOLE_BYTES:
        return sha256_hex(storage.read(url))
    with HashingStream(storage.open_read(url)) as hashing:
        return hashing.finish()


@dataclass(frozen=True)
class _Counting:
    """Hashes files below a URL and counts their samples in the same pass."""

    url: str
    reader: SourceReader

    def build(self, entering: Callable[[str], None]) -> Callable[[Json], Read]:
        return lambda _: self._read

    def _read(self, question: Json) -> Iterator[Found]:
        path = str(question)
        with HashingStream(storage.open_read(storage.join(self.url, path))) as hashing:
            stream = cast(BinaryIO, io.BufferedReader(hashing, 1 << 16))
            num_samples = self.reader.count(path, stream)
            yield json.dumps([hashing.finish(), num_samples]).encode(), ()


def _hashed(source: Source, state: SourceState, known: pa.Table, executor: Executor) -> pa.Table:
    """Return the files with what each was found to hold; what is not known yet is hashed."""
    files = state.files
    at = pc.index_in(files["path"], known["path"])
    is_known = pc.fill_null(pc.equal(known["version"].take(at), files["version"]), False)
    unknown = files.filter(pc.invert(is_known)).combine_chunks()
    digests: Any = np.empty(unknown.num_rows, "S64")
    nums = np.full(unknown.num_rows, -1, np.int64)
    bounds = _bounds(unknown["num_bytes"].to_numpy())
    chunks = (infos(unknown.slice(first, last - first)) for first, last in bounds)
    for index, found in executor.map(
        partial(hash_files, source.url, source.reader, source.limits), chunks
    ):
        first, last = bounds[index]
        digests[first:last] = [digest for digest, _ in found]
        nums[first:last] = [-1 if num is None else num for _, num in found]
    anew = {
        "sha256": pa.array(digests.tolist(), pa.binary()).cast(pa.string()),
        "num_samples": pa.array(nums, mask=nums < 0),
    }
    mask = pc.invert(is_known).combine_chunks()
    columns = {name: files[name] for name in ("path", "num_bytes", "version")}
    for name, found in anew.items():
        before = known[name].take(at).combine_chunks()
        columns[name] = pc.replace_with_mask(before, mask, found)
    return pa.table(columns, schema=_KNOWN_SCHEMA)


def _bounds(sizes: Any) -> list[tuple[int, int]]:
    """Return where slices of files begin and end that are about equally much work."""
    bounds = []
    first = num_bytes = 0
    for number, size in enumerate(sizes.tolist()):
        if number > first and (number - first == _FILES_PER_TASK or num_bytes >= _BYTES_PER_TASK):
            bounds.append((first, number))
            first, num_bytes = number, 0
        num_bytes += size
    return [*bounds, (first, len(sizes))] if len(sizes) else []


def _gather(
    source: Source, state: SourceState, store_url: str, executor: Executor
) -> list[Gathered]:
    if source.reader is None:
        return []
    lists = source.reader.lists(state.files["path"].to_pylist())
    function = partial(
        source.reader.gather,
        url=source.url,
        store_url=store_url,
        num_workers=min(executor.num_workers, max(len(lists), 1)),
        limits=source.limits,
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
    now: pa.Table,
    gathered: Sequence[Gathered],
    unusable: Sequence[str],
    *,
    directory: str,
    store_url: str,
) -> Artifact:
    names = ["path", "num_bytes", "sha256"]
    more: list[Json] = [[one.path, one.digest] for one in gathered]
    more += unusable
    content = digest_of_columns([now[name] for name in names], more)
    identity = scan_identity(content, source.reader)
    fingerprint = fingerprint_of(identity)
    url = storage.join(directory, fingerprint[:16])
    facts: dict[str, Json] = {
        "num_files": now.num_rows,
        "num_bytes": pc.sum(now["num_bytes"]).as_py(),
    }
    if unusable:
        facts["unusable"] = list(unusable)
    if source.reader is not None:
        names.append("num_samples")
    files = [write_columns(url, FILES_NAME, now.select(names))]
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


def _memory(memory_url: str, kind: str, name: str) -> str:
    return storage.join(memory_url, *([kind] if kind else []), name)


def _load_known(memory_url: str, kind: str) -> pa.Table:
    """Return what is remembered of each file."""
    url = _memory(memory_url, kind, "known.parquet")
    if storage.exists(url):
        table = read_table(url)
        if table.schema == _KNOWN_SCHEMA:
            return table
    return _KNOWN_SCHEMA.empty_table()  # or it is of another version of this code


def _remember(
    state: SourceState, now: pa.Table, memory_url: str, *, content: str, num_pending: int
) -> None:
    write_columns(_memory(memory_url, state.kind, ""), "known.parquet", now)
    memo = {"listing": state.listing, "content": content, "num_pending": num_pending}
    storage.write(_memory(memory_url, state.kind, "memo.json"), canonical_json(memo))
