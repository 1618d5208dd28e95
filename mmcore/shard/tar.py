"""Tars that every reader opens and that are the same bytes each time: USTAR, nothing optional.

Written with `tarfile` they would cost about as much time as hashing them; a header is 512 bytes of
which only the name, the size and the checksum change, so a template is patched instead.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from mmcore.errors import IntegrityError

BLOCK_BYTES = 512
RECORD_BYTES = 20 * BLOCK_BYTES
MAX_NAME_BYTES = 99
"""One less than the field holds: readers that look for the final NUL find it."""
MAX_MEMBER_BYTES = 8**11 - 1

MEMBER = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
"""How webdataset, Ray, datasets and Energon all split a member into key and extension."""
_PRINTABLE = re.compile(r"[!-z|~]+")
_SKIPPED = re.compile(r"__.*__")
_UNSAFE_LAST = frozenset(
    {
        "pickle",
        "pkl",
        "pyd",
        "pt",
        "pth",
        "gz",
        "bz2",
        "xz",
        "zst",
        "lz4",
        "zip",
        "7z",
        "rar",
        "tar",
    }
)
_NAME, _SIZE, _CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar: where its header and its bytes begin."""

    name: str
    header_offset: int
    offset: int
    num_bytes: int


def name_problem(key: str, extension: str) -> str | None:
    """Return why a part cannot have this name in a shard, or None when every reader takes it."""
    name = f"{key}.{extension}"
    pieces = name.split("/")
    last = extension.rsplit(".", 1)[-1]
    if len(name) > MAX_NAME_BYTES:
        return f"{name!r} has {len(name)} characters; some readers see only {MAX_NAME_BYTES}"
    if _PRINTABLE.fullmatch(name) is None:
        return f"{name!r} has a space, a brace, or something that is not printable ASCII"
    if any(not piece or piece.startswith(".") or _SKIPPED.match(piece) for piece in pieces):
        return f"{name!r} has an empty, hidden or __reserved__ piece, which readers skip"
    matched = MEMBER.match(name)
    if matched is None or matched.groups() != (key, extension) or not all(extension.split(".")):
        return f"{name!r} would be read back as another key and extension: no dots in a key"
    if extension != extension.lower():
        return f"{extension!r} is not lower-case; readers disagree on what to do with it"
    if last in _UNSAFE_LAST:
        return f".{last} is executed or unpacked by some readers; store the contents as such"
    return None


def padded(num_bytes: int) -> int:
    """Return the room that a file of this length takes, without its header."""
    return -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES


class TarWriter:
    """Builds a tar in memory: a shard is written by one atomic operation, so it is whole there."""

    def __init__(self) -> None:
        self._buffer = BytesIO()

    @property
    def offset(self) -> int:
        """Where the next header begins; after the last member, the end of the data."""
        return self._buffer.tell()

    def add(self, name: str, data: bytes) -> Member:
        """Append a file and return where it lies."""
        header_offset = self.offset
        self._buffer.write(_header(name, len(data)))
        self._buffer.write(data)
        self._buffer.write(bytes(padded(len(data)) - len(data)))
        return Member(name, header_offset, header_offset + BLOCK_BYTES, len(data))

    def finish(self) -> bytes:
        """Append the two closing blocks, fill up the last record, and return the tar."""
        end = self.offset + 2 * BLOCK_BYTES
        self._buffer.write(bytes(-(-end // RECORD_BYTES) * RECORD_BYTES - self.offset))
        return self._buffer.getvalue()


def walk(data: bytes | memoryview, *, where: str) -> Iterator[Member]:
    """Yield the members of a tar that `TarWriter` wrote; IntegrityError for any other header."""
    view = memoryview(data)
    at = 0
    while True:
        header = bytes(view[at : at + BLOCK_BYTES])
        if len(header) < BLOCK_BYTES:
            raise IntegrityError(f"{where} ends at byte {len(data)} in the middle of a header.")
        if not any(header):
            return
        name, num_bytes = _parse_header(header, where=f"{where} at byte {at}")
        start = at + BLOCK_BYTES
        if start + num_bytes > len(data):
            raise IntegrityError(f"{where} ends at byte {len(data)} in the middle of {name}.")
        yield Member(name, at, start, num_bytes)
        at = start + padded(num_bytes)


def _template() -> bytes:
    header = bytearray(BLOCK_BYTES)
    header[100:108] = b"0000644\0"
    header[108:116] = header[116:124] = b"0000000\0"
    header[136:148] = b"00000000000\0"
    header[_CHECKSUM] = b" " * 8
    header[156:157] = b"0"
    header[257:265] = b"ustar\x0000"
    return bytes(header)


_TEMPLATE = _template()
_TEMPLATE_SUM = sum(_TEMPLATE)


def _header(name: str, num_bytes: int) -> bytes:
    encoded = name.encode("ascii")
    assert 0 < len(encoded) <= MAX_NAME_BYTES, f"check with name_problem first: {name!r}"
    assert num_bytes <= MAX_MEMBER_BYTES, f"{name} has {num_bytes} bytes; USTAR ends at 8 GiB"
    size = b"%011o\0" % num_bytes
    header = bytearray(_TEMPLATE)
    header[: len(encoded)] = encoded
    header[_SIZE] = size
    header[_CHECKSUM] = b"%06o\0 " % (_TEMPLATE_SUM + sum(encoded) + sum(size))
    return bytes(header)


def _parse_header(header: bytes, *, where: str) -> tuple[str, int]:
    try:
        name = header[_NAME].rstrip(b"\0").decode("ascii")
        num_bytes = int(header[_SIZE].rstrip(b"\0"), 8)
        is_ours = bool(name) and _header(name, num_bytes) == header
    except (ValueError, AssertionError) as error:
        raise IntegrityError(f"{where}: not a header that mmcore wrote: {error}") from error
    if not is_ours:
        raise IntegrityError(
            f"{where}: not a header that mmcore wrote, or damaged (its checksum does not hold)."
        )
    return name, num_bytes
