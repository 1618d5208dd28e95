"""Pieces of shards that lie elsewhere, kept on a disk of this machine, within a bound of bytes.

The ranks of a host share the directory. A piece is there whole and checked or not at all: it is
written under a temporary name and renamed. Whoever uses a piece marks the time; where room is
needed, those that nobody has used for longest go.
"""

import contextlib
import fcntl
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from mmcore import storage
from mmcore.errors import IntegrityError, StorageError
from mmcore.sample import sha256_hex

_NUM_LOCKS = 64
_LOCK_PREFIX = ".lock-"
_NUM_FETCHERS = 4
_MAX_TRIES = 8


class Group(NamedTuple):
    """Neighbouring samples of a shard that are fetched at once."""

    name: str
    """Of the file in the cache: of no other bytes."""
    url: str
    first: int
    last: int
    parts: tuple[tuple[int, int, str], ...]
    """Offset in the shard, length and SHA-256 of every part in it."""

    @staticmethod
    def from_json(value: Sequence[Any]) -> "Group":
        """Return what `json` has made lists of."""
        name, url, first, last, parts = value
        return Group(name, url, first, last, tuple((at, num, sha) for at, num, sha in parts))


class ShardCache:
    """A directory of pieces that any number of processes read and write at once."""

    def __init__(self, directory: str, max_bytes: int) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self._fetchers: ThreadPoolExecutor | None = None
        os.makedirs(directory, exist_ok=True)

    def prefetch(self, group: Group) -> None:
        """Begin to fetch a piece; whoever opens it waits, or meets the error himself."""
        if os.path.exists(self._path(group)):
            return
        if self._fetchers is None:
            self._fetchers = ThreadPoolExecutor(_NUM_FETCHERS, thread_name_prefix="fetch")
        self._fetchers.submit(self._quietly_fetched, group)

    @contextlib.contextmanager
    def opened(self, group: Group) -> Iterator[int]:
        """Open a piece, fetched and checked if it was not there; offsets count from `first`."""
        for _ in range(_MAX_TRIES):
            try:
                handle = os.open(self._path(group), os.O_RDONLY | os.O_CLOEXEC)
                break
            except FileNotFoundError:
                self._fetch(group)  # it may go again before it is opened: others need room
            except OSError as error:
                raise StorageError(f"cannot read {self._path(group)}: {error}.") from error
        else:
            raise StorageError(
                f"{self.directory} has no room for what its readers need at once. Raise "
                f"loader.max_disk_cache_bytes={self.max_bytes}."
            )
        try:
            # the time of access alone: that of the contents tells whether they have changed
            os.utime(handle, ns=(time.time_ns(), os.fstat(handle).st_mtime_ns))
            yield handle
        finally:
            os.close(handle)

    def forget(self, group: Group) -> None:
        """Delete a piece whose bytes are no longer right."""
        storage.delete(self._path(group))

    def close(self) -> None:
        """Stop fetching ahead."""
        if self._fetchers is not None:
            self._fetchers.shutdown(wait=True, cancel_futures=True)
            self._fetchers = None

    def _path(self, group: Group) -> str:
        return os.path.join(self.directory, group.name)

    def _quietly_fetched(self, group: Group) -> None:
        with contextlib.suppress(StorageError, IntegrityError):
            self._fetch(group)

    def _fetch(self, group: Group) -> None:
        num_bytes = group.last - group.first
        if num_bytes > self.max_bytes:
            raise StorageError(
                f"a piece of {group.url} has {num_bytes} bytes, the cache at most "
                f"{self.max_bytes}. Raise loader.max_disk_cache_bytes."
            )
        path = self._path(group)
        # one of the ranks fetches, the others wait; the lock of a killed process is released
        with self._locked(str(zlib.crc32(group.name.encode()) % _NUM_LOCKS)):
            if os.path.exists(path):
                return
            data = storage.read(group.url, offset=group.first, num_bytes=num_bytes)
            _check(group, data)
            temporary = os.path.join(self.directory, storage.temporary_name())
            try:
                self._make_room(temporary, num_bytes)
                with open(temporary, "r+b") as file:
                    file.write(data)
                os.rename(temporary, path)
            except OSError as error:
                storage.delete(temporary)
                raise StorageError(
                    f"cannot write {path}: {error}. Free some room there, or lower "
                    "loader.max_disk_cache_bytes."
                ) from error

    def _make_room(self, temporary: str, num_bytes: int) -> None:
        """Create a file of a length, others deleted so that all together stay within the bound."""
        with self._locked("room"):
            files = []
            for entry in os.scandir(self.directory):
                if entry.name.startswith(_LOCK_PREFIX):
                    continue
                if storage.is_abandoned(entry.name):
                    storage.delete(entry.path)
                    continue
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat()
                    files.append((stat.st_atime_ns, stat.st_size, entry.path))
            total = sum(size for _, size, _ in files)
            for _, size, path in sorted(files):
                if total + num_bytes <= self.max_bytes:
                    break
                if not os.path.basename(path).startswith(storage.TEMPORARY_PREFIX):
                    storage.delete(path)
                    total -= size
            with open(temporary, "xb") as file:
                file.truncate(num_bytes)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        try:
            handle = os.open(
                os.path.join(self.directory, _LOCK_PREFIX + name),
                os.O_RDWR | os.O_CREAT | os.O_CLOEXEC,
                0o600,
            )
        except OSError as error:
            raise StorageError(
                f"cannot write to {self.directory}: {error}. Set loader.cache_directory."
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _check(group: Group, data: bytes) -> None:
    view = memoryview(data)
    for offset, num_bytes, sha256 in group.parts:
        at = offset - group.first
        part = view[at : at + num_bytes]
        if len(part) != num_bytes or sha256_hex(part) != sha256:
            raise IntegrityError(
                f"{group.url} holds other bytes at {offset} than the table says. Publish the "
                "dataset again: this version is damaged."
            )
