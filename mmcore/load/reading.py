"""Samples out of shards, checked: every byte of a sample against its table and the tar's own sums.

A sample is checked when a process first reads it, and again when its file has changed since. What
is checked is the whole of it: contents, headers and padding, so that a shard with one flipped byte
is refused.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from mmcore import storage
from mmcore.errors import IntegrityError, StorageError
from mmcore.load.cache import Group, ShardCache
from mmcore.sample import sha256_hex

BLOCK_BYTES = 512
"""Of a tar: a header takes one, and contents are padded to a multiple."""
_CHECKSUM = slice(148, 156)
_CLOSING_BYTES = 42 * BLOCK_BYTES
"""Two blocks of zeros end a tar, and a record of twenty is filled up; read with the last sample."""
_MAX_HANDLES = 128
_MAX_GROUPS = 2048
"""Far more than are told once, so that none is unknown; see `mmcore.load.ahead`."""
_MAX_WASTE_BYTES = 64 << 10
"""Parts this far apart are read at once: a second read costs more."""


class Slice(NamedTuple):
    """Where the contents of a part lie in the shard."""

    extension: str
    offset: int
    num_bytes: int
    sha256: str


class Wanted(NamedTuple):
    """A sample to be read: plain values, which travel as JSON."""

    key: str
    dataset_url: str
    shard: str
    first: int
    """Where its first header begins in the shard."""
    last: int
    """Where it ends, padding included."""
    parts: tuple[Slice, ...]
    visit: int = 0
    """Which of the times that this sample is read; see `mmcore.load.order.Picks`."""
    is_last: bool = False
    """Whether nothing of the table comes after it in the shard."""
    shard_bytes: int = 0
    """How long the shard must be; 0 where nobody knows."""
    group: str = ""
    """The group of samples it is fetched with, where the shard is elsewhere."""

    @property
    def url(self) -> str:
        """Where the shard lies."""
        return f"{self.dataset_url}/{self.shard}"

    @staticmethod
    def from_json(value: Sequence[object]) -> "Wanted":
        """Return what `json` has made lists of."""
        fields = list(value)
        fields[5] = tuple(Slice(*part) for part in fields[5])  # type: ignore[attr-defined]
        return Wanted(*fields)  # type: ignore[arg-type]


class SampleReader:
    """Reads parts of samples: from disks of this machine, or through a cache on one."""

    def __init__(self, cache: ShardCache | None = None) -> None:
        self._cache = cache
        self._groups: dict[str, Group] = {}
        self._handles: OrderedDict[str, int] = OrderedDict()
        self._verified: dict[str, set[int]] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def learn(self, groups: Collection[Group]) -> None:
        """Remember what is to be fetched together, and begin to fetch it."""
        for group in groups:
            self._groups.pop(group.name, None)
            self._groups[group.name] = group
            if self._cache is not None:
                self._cache.prefetch(group)
        while len(self._groups) > _MAX_GROUPS:
            del self._groups[next(iter(self._groups))]

    def begin_batch(self) -> None:
        """Look whether files have changed, and close some; no part may be under way."""
        while len(self._handles) > _MAX_HANDLES:
            os.close(self._handles.popitem(last=False)[1])
        for url, handle in self._handles.items():
            self._look(url, os.fstat(handle))

    def parts(self, wanted: Wanted, extensions: Collection[str]) -> Mapping[str, bytes]:
        """Return some parts of a sample; IntegrityError when bytes are not those of the table."""
        place = wanted.group or wanted.url
        if wanted.first not in self._verified.get(place, ()):
            found = self.checked(wanted)
            self._verified.setdefault(place, set()).add(wanted.first)
            return {name: found[name] for name in extensions}
        chosen = [part for part in wanted.parts if part.extension in extensions]
        if len(chosen) == 1:
            (part,) = chosen
            data = self._read(wanted, part.offset, part.num_bytes)
            if len(data) != part.num_bytes:
                raise _other_bytes(wanted, part)
            return {part.extension: data}
        first = min((part.offset for part in chosen), default=0)
        last = max((part.offset + part.num_bytes for part in chosen), default=0)
        if last - first <= sum(part.num_bytes for part in chosen) + _MAX_WASTE_BYTES:
            data = self._read(wanted, first, last - first)
            found = {
                part.extension: data[part.offset - first : part.offset - first + part.num_bytes]
                for part in chosen
            }
        else:
            found = {
                part.extension: self._read(wanted, part.offset, part.num_bytes) for part in chosen
            }
        for part in chosen:
            if len(found[part.extension]) != part.num_bytes:
                raise _other_bytes(wanted, part)
        return found

    def checked(self, wanted: Wanted) -> dict[str, bytes]:
        """Return all parts of a sample, each of its bytes checked."""
        try:
            return _checked(wanted, self._whole(wanted))
        except IntegrityError:
            if self._cache is None or not wanted.group:
                raise
            # the copy may have gone bad; the shard itself is asked once
            self._cache.forget(self._groups[wanted.group])
            return _checked(wanted, self._whole(wanted))

    def close(self) -> None:
        """Close the shards that were opened."""
        while self._handles:
            os.close(self._handles.popitem()[1])
        if self._cache is not None:
            self._cache.close()

    def _whole(self, wanted: Wanted) -> bytes:
        more = _CLOSING_BYTES if wanted.is_last and not wanted.group else 0
        data = self._read(wanted, wanted.first, wanted.last - wanted.first + more)
        if wanted.url in self._handles:
            self._check_length(wanted)
        return data

    def _read(self, wanted: Wanted, offset: int, num_bytes: int) -> bytes:
        if wanted.group and self._cache is not None:
            with self._cache.opened(self._groups[wanted.group]) as handle:
                self._look(wanted.group, os.fstat(handle))
                return os.pread(handle, num_bytes, offset - self._groups[wanted.group].first)
        url = wanted.url
        known = self._handles.get(url)  # of what is local alone
        if known is None and not storage.is_local(url):
            return storage.read(url, offset=offset, num_bytes=num_bytes)
        try:
            return os.pread(self._handle(url) if known is None else known, num_bytes, offset)
        except OSError as error:
            raise StorageError(f"cannot read {url}: {error}. Run again when it is back.") from error

    def _handle(self, url: str) -> int:
        """Return a handle that stays open: opening a file anew costs more than the read."""
        handle = self._handles.get(url)
        if handle is None:
            with self._lock:
                handle = self._handles.get(url)
                if handle is None:
                    handle = os.open(url, os.O_RDONLY | os.O_CLOEXEC)
                    self._look(url, os.fstat(handle))
                    self._handles[url] = handle
        return handle

    def _look(self, place: str, stat: os.stat_result) -> None:
        found = stat.st_mtime_ns, stat.st_size
        if self._seen.get(place) != found:
            self._seen[place] = found
            self._verified.pop(place, None)

    def _check_length(self, wanted: Wanted) -> None:
        num_bytes = self._seen[wanted.url][1]
        if wanted.shard_bytes not in (0, num_bytes):
            raise IntegrityError(
                f"{wanted.url} has {num_bytes} bytes, not {wanted.shard_bytes}. {_remedy(wanted)}"
            )


def _checked(wanted: Wanted, data: bytes) -> dict[str, bytes]:
    found = {}
    for part in wanted.parts:
        at = part.offset - wanted.first
        contents = data[at : at + part.num_bytes]
        if len(contents) != part.num_bytes or sha256_hex(contents) != part.sha256:
            raise _other_bytes(wanted, part)
        if not _is_header(data[at - BLOCK_BYTES : at]):
            raise _other_tar(wanted, part, part.offset - BLOCK_BYTES)
        end = at + part.num_bytes
        padding = data[end : end + -end % BLOCK_BYTES]
        if padding.count(0) != len(padding):
            raise _other_tar(wanted, part, part.offset + part.num_bytes)
        found[part.extension] = contents
    if wanted.is_last and not wanted.group:
        # the end of the tar, or a sample that counts no more
        rest = data[wanted.last - wanted.first :]
        if len(rest) < 2 * BLOCK_BYTES or not (
            _is_header(rest[:BLOCK_BYTES]) or rest.count(0) == len(rest)
        ):
            raise _other_tar(wanted, part, wanted.last)
    return found


def _is_header(block: bytes) -> bool:
    """POSIX.1-1988: a header holds the sum of its bytes, that field taken for spaces."""
    stored = block[_CHECKSUM]
    told = stored.rstrip(b"\0 ").strip()
    total = sum(block) - sum(stored) + 8 * ord(" ")
    return told.isdigit() and all(digit <= ord("7") for digit in told) and int(told, 8) == total


def _other_bytes(wanted: Wanted, part: Slice) -> IntegrityError:
    return IntegrityError(
        f"{wanted.url} holds other bytes at {part.offset} than the table says for "
        f"{wanted.key}. {_remedy(wanted)}"
    )


def _other_tar(wanted: Wanted, part: Slice, at: int) -> IntegrityError:
    return IntegrityError(
        f"{wanted.url} holds other bytes at {at}, beside {part.extension} of {wanted.key}, than a "
        f"tar has there. {_remedy(wanted)}"
    )


def _remedy(wanted: Wanted) -> str:
    return f"Delete the directory {wanted.dataset_url} and run again: the step will be made anew."
