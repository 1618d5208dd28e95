"""What a kind of source adds to a scan: counting in the same pass, fetching what is only named."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, cast

from mmcore.core import in_hand
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.manifest import FileRecord
from mmcore.sample import Json

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Gathered:
    """What the URLs of one list brought. But for `num_pending`, equal bytes give equal values."""

    path: str
    """Of the list, relative to the source."""
    digest: str
    """Of every URL with the SHA-256 of what it gave, or why it gave nothing."""
    files: Sequence[FileRecord]
    """Relative to the store: they become part of the scan's artifact, under the same names."""
    num_fetched: int
    failed: Mapping[str, int]
    """By reason."""
    num_pending: int
    """How many of the failed will be tried again by the next scan."""


class SourceReader(Protocol):
    """What a kind of source does when it is scanned, besides hashing its files."""

    def scan_identity(self) -> Mapping[str, Json]:
        """Return what decides the scan, besides the content of the files."""
        ...

    def count(self, path: str, stream: BinaryIO) -> int | None:
        """Return how many samples a file holds, or None for a file that is no more than a part of
        one. What it leaves unread of the stream is read afterwards, for the hash.
        """
        ...

    def lists(self, paths: Sequence[str]) -> list[str]:
        """Return those of the files that name URLs to be fetched."""
        ...

    def gather(
        self, path: str, *, url: str, store_url: str, num_workers: int, limits: DecoderLimits
    ) -> Gathered:
        """Fetch what a list below `url` names and the store does not hold; what it names is read
        within limits.
        """
        ...


class HashingStream(io.RawIOBase):
    """A stream that is read once from its beginning, and hashed as it is read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        num_bytes = cast(io.BufferedReader, self._stream).readinto(buffer)
        self._digest.update(memoryview(buffer)[:num_bytes])
        in_hand.passed(num_bytes)
        return num_bytes

    def finish(self) -> str:
        """Read what is left; return the SHA-256 of the whole file."""
        while data := self._stream.read(_PIECE_BYTES):
            self._digest.update(data)
            in_hand.passed(len(data))
        return self._digest.hexdigest()

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
