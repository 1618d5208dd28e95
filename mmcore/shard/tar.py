"""Tars that every reader opens and that are the same bytes each time: USTAR, nothing optional.

Written with `tarfile` they would cost about as much time as hashing them; a header is 512 bytes of
which only the name, the size and the checksum change, so a template is patched instead.
"""

import re
from typing import NamedTuple
from zlib import adler32

BLOCK_BYTES = 512
RECORD_BYTES = 20 * BLOCK_BYTES
MAX_NAME_BYTES = 99
"""One less than the field holds: readers that look for the final NUL find it."""
MAX_MEMBER_BYTES = 8**11 - 1
_SMALL_BYTES = 4096  # below it a copy costs less than another piece

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


class Member(NamedTuple):
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
    """Builds a tar in memory: a shard is written by one atomic operation, so it is whole there.

    It stays in pieces, so that the bytes of a large part are copied once: into the file.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._pending: list[bytes] = []  # headers, padding and small parts, to become one piece
        self.offset = 0
        """Where the next header begins; after the last member, the end of the data."""

    def add(self, name: str, data: bytes) -> Member:
        """Append a file and return where it lies."""
        num_bytes = len(data)
        member = Member(name, self.offset, self.offset + BLOCK_BYTES, num_bytes)
        padding = _ZEROS[: -num_bytes % BLOCK_BYTES]
        if num_bytes < _SMALL_BYTES:
            self._pending += (_header(name, num_bytes), data, padding)
        else:
            self._pending.append(_header(name, num_bytes))
            self._pieces += (b"".join(self._pending), data)
            self._pending = [padding]
        self.offset = member.offset + num_bytes + len(padding)
        return member

    def finish(self) -> list[bytes]:
        """Append the two closing blocks, fill up the last record, and return the tar in pieces."""
        end = self.offset + 2 * BLOCK_BYTES
        closing = bytes(-(-end // RECORD_BYTES) * RECORD_BYTES - self.offset)
        return [*self._pieces, b"".join((*self._pending, closing))]


def _template() -> bytes:
    header = bytearray(BLOCK_BYTES)
    header[100:108] = b"0000644\0"
    header[108:116] = header[116:124] = b"0000000\0"
    header[136:148] = b"00000000000\0"
    header[148:156] = b" " * 8
    header[156:157] = b"0"
    header[257:265] = b"ustar\x0000"
    return bytes(header)


_ZEROS = bytes(BLOCK_BYTES)
_TEMPLATE = _template()
_TEMPLATE_SUM = sum(_TEMPLATE)
_OWNERS, _TIME, _REST = _TEMPLATE[100:124], _TEMPLATE[136:148], _TEMPLATE[156:]


def _header(name: str, num_bytes: int) -> bytes:
    encoded = name.encode("ascii")
    assert 0 < len(encoded) <= MAX_NAME_BYTES, f"check with name_problem first: {name!r}"
    assert num_bytes <= MAX_MEMBER_BYTES, f"{name} has {num_bytes} bytes; USTAR ends at 8 GiB"
    size = b"%011o\0" % num_bytes
    # the low half of Adler-32 is 1 + the sum of the bytes (RFC 1950), at the speed of C
    checksum = _TEMPLATE_SUM + (adler32(encoded + size) & 0xFFFF) - 1
    return b"%b%b%b%b%b%06o\0 %b" % (
        encoded, _ZEROS[: 100 - len(encoded)], _OWNERS, size, _TIME, checksum, _REST,
    )  # fmt: skip
