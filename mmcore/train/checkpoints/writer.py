"""Writes checkpoints while training goes on: each rank its own part, the first one the commit.

The training thread copies tensors and goes on. A thread of this module writes and hashes the copy
in pieces of megabytes, in calls that let go of the interpreter's lock. A rank's part is there when
`rank-00001.json` is, written after the tensors were synced; the first rank waits for all of them.
That is the barrier: a collective in a thread would mix with those of the training.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from hashlib import sha256

from torch import Tensor

from mmcore import storage
from mmcore.core.manifest import FileRecord
from mmcore.core.rows import file_record
from mmcore.errors import StorageError
from mmcore.sample import Json
from mmcore.train.checkpoints.config import CheckpointConfig
from mmcore.train.checkpoints.store import CheckpointId, CheckpointStore, Found
from mmcore.train.checkpoints.tensor_file import FlatBuffer, Snapshot

_LOOK_SECONDS = 0.02
_LOOK_REMOTE_SECONDS = 0.5
_PATIENCE_SECONDS = 600.0  # of the first rank with the others; one that is dead ends the group


@dataclass(frozen=True, kw_only=True)
class RankState:
    """What one rank puts into a checkpoint."""

    tensors: Mapping[str, Tensor]
    layout: Mapping[str, Json]
    """Which slices of which whole parameters they are, as the engine says."""
    facts: Mapping[str, Json] = field(default_factory=dict)
    """Of this rank alone."""


@dataclass(frozen=True, kw_only=True)
class SharedState:
    """What the first rank adds for all of them."""

    facts: Mapping[str, Json] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    """By name: the lines that were logged so far."""


class CheckpointWriter:
    """Writes the part of one rank, one checkpoint at a time."""

    def __init__(
        self,
        store: CheckpointStore,
        config: CheckpointConfig,
        *,
        rank: int,
        num_ranks: int,
        attempt: int,
        on_commit: Callable[[Found], None] | None = None,
    ) -> None:
        self._store = store
        self._config = config
        self._rank = rank
        self._num_ranks = num_ranks
        self._attempt = attempt
        self._on_commit = on_commit
        self._buffer = FlatBuffer()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._has_ended = threading.Event()

    def reserve(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the memory for the snapshots."""
        self._buffer.reserve(tensors)

    def save(self, step: int, state: RankState, shared: SharedState) -> None:
        """Copy the state and begin to write it; returns as soon as training may change it.

        Waits for the checkpoint before, and raises what went wrong with it.
        """
        self.wait()
        snapshot = self._buffer.take(state.tensors)
        checkpoint = CheckpointId(step, self._attempt)
        digest = self._threads.submit(_digest, snapshot)
        self._pending = self._threads.submit(
            self._write, checkpoint, snapshot, digest, state, shared
        )

    @property
    def is_busy(self) -> bool:
        """Return whether a checkpoint is still being written on this rank."""
        return self._pending is not None and not self._pending.done()

    def wait(self) -> None:
        """Wait until what was begun is there, on this rank; on the first: until it is committed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Let go of the threads; what they are writing is left half-written."""
        self._has_ended.set()
        self._threads.shutdown(wait=True)

    def _write(
        self,
        checkpoint: CheckpointId,
        snapshot: Snapshot,
        digest: Future[str],
        state: RankState,
        shared: SharedState,
    ) -> None:
        url = self._store.url_of(checkpoint)
        name = tensors_name(self._rank)
        storage.write_pieces(storage.join(url, name), snapshot.pieces())
        own = FileRecord(name, snapshot.num_bytes, digest.result())
        said = {
            "format": "mm.checkpoint.rank",
            "format_version": 1,
            "file": asdict(own),
            "layout": dict(state.layout),
            "facts": dict(state.facts),
        }
        # after the tensors are synced: who sees it may count on them
        storage.write(storage.join(url, record_name(self._rank)), _json(said))
        if self._rank == 0:
            self._commit(checkpoint, shared)

    def _commit(self, checkpoint: CheckpointId, shared: SharedState) -> None:
        url = self._store.url_of(checkpoint)
        files = [file_record(url, name, data) for name, data in sorted(shared.files.items())]
        for rank in range(self._num_ranks):
            data = self._record(url, rank)
            record = FileRecord(record_name(rank), len(data), sha256(data).hexdigest())
            files += [record, FileRecord(**json.loads(data)["file"])]
        self._check_sizes(url, files)
        facts: dict[str, Json] = {
            **shared.facts,
            "step": checkpoint.step,
            "num_ranks": self._num_ranks,
        }
        found = self._store.commit(checkpoint, files, facts)
        self._store.prune(self._config, attempt=self._attempt)
        if self._on_commit is not None:
            self._on_commit(found)

    def _record(self, url: str, rank: int) -> bytes:
        wanted = storage.join(url, record_name(rank))
        pause = _LOOK_SECONDS if storage.is_local(wanted) else _LOOK_REMOTE_SECONDS
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (data := storage.read_if_exists(wanted)) is None:
            if self._has_ended.wait(pause) or time.monotonic() > deadline:
                raise StorageError(
                    f"rank {rank} has not written its part of the checkpoint {url}, so that was "
                    "not committed. The one before is in force; run the same command again."
                )
        return data

    def _check_sizes(self, url: str, files: Sequence[FileRecord]) -> None:
        sizes = {file.path: file.num_bytes for file in storage.list_files(url)}
        for file in files:
            if sizes.get(file.path) != file.num_bytes:
                raise StorageError(
                    f"{url} is not complete: {file.path} has {sizes.get(file.path)} bytes and "
                    f"{file.num_bytes} were written. The checkpoint was not committed; the one "
                    "before is in force. Look at the disk, then run the same command again."
                )


def tensors_name(rank: int) -> str:
    """Return the name of the file with a rank's tensors."""
    return f"rank-{rank:05d}.safetensors"


def record_name(rank: int) -> str:
    """Return the name of the file that says what a rank wrote."""
    return f"rank-{rank:05d}.json"


def _digest(snapshot: Snapshot) -> str:
    digest = sha256()
    for piece in snapshot.pieces():
        digest.update(piece)
    return digest.hexdigest()


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
