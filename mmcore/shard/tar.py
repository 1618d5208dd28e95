"""Tars that every reader opens and that are the same bytes each time: USTAR, nothing optional.

Written with `tarfile` they would cost about as much time as hashing them; a header is 512 bytes of
which only the name, the size and the checksum change, so a template is patched instead.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

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

    It stays in pieces, so that the bytes of a part are copied once: into the file.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.offset = 0
        """Where the next header begins; after the last member, the end of the data."""

    def add(self, name: str, data: bytes) -> Member:
        """Append a file and return where it lies."""
        num_bytes = len(data)
        start = self.offset + BLOCK_BYTES
        member = Member(name, self.offset, start, num_bytes)
        self._pieces += (_header(name, num_bytes), data, _ZEROS[: -num_bytes % BLOCK_BYTES])
        self.offset = start + num_bytes + -num_bytes % BLOCK_BYTES
        return member

    def finish(self) -> list[bytes]:
        """Append the two closing blocks, fill up the last record, and return the tar in pieces."""
        end = self.offset + 2 * BLOCK_BYTES
        return [*self._pieces, bytes(-(-end // RECORD_BYTES) * RECORD_BYTES - self.offset)]


def walk(data: bytes | memoryview, *, where: str) -> Iterator[Member]:
    """Yield the members of a tar that `TarWriter` wrote; IntegrityError for any other header."""
    view = memoryview(data)
    at, length = 0, len(view)
    while at + BLOCK_BYTES <= length:
        header = _FIELDS.unpack_from(view, at)
        name = header[0].rstrip(b"\0")
        if not name and header == _END:
            return
        num_bytes = _size_of(name, *header)
        if num_bytes is None:
            raise IntegrityError(
                f"{where} at byte {at}: not a header that mmcore wrote, or damaged (its checksum "
                "does not hold)."
            )
        start = at + BLOCK_BYTES
        if start + num_bytes > length:
            raise IntegrityError(f"{where} ends at byte {length} in the middle of {name!r}.")
        yield Member(name.decode("ascii"), at, start, num_bytes)
        at = start + num_bytes + -num_bytes % BLOCK_BYTES
    raise IntegrityError(f"{where} ends at byte {length} in the middle of a header.")


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
_FIELDS = struct.Struct("100s24s12s12s8s356s")
"""Of a header: name, owners, size, time, checksum, and the rest."""
_END = _FIELDS.unpack(_ZEROS)
_, _OWNERS, _, _TIME, _, _REST = _FIELDS.unpack(_TEMPLATE)


def _header(name: str, num_bytes: int) -> bytes:
    encoded = name.encode("ascii")
    assert 0 < len(encoded) <= MAX_NAME_BYTES, f"check with name_problem first: {name!r}"
    assert num_bytes <= MAX_MEMBER_BYTES, f"{name} has {num_bytes} bytes; USTAR ends at 8 GiB"
    size = b"%011o\0" % num_bytes
    checksum = b"%06o\0 " % (_TEMPLATE_SUM + sum(encoded) + sum(size))
    return b"".join((encoded.ljust(100, b"\0"), _OWNERS, size, _TIME, checksum, _REST))


def _size_of(
    name: bytes, field: bytes, owners: bytes, size: bytes, time: bytes, checksum: bytes, rest: bytes
) -> int | None:
    """Return the length that a header tells; None where `_header` would have written another."""
    digits = size[:-1]
    if (
        rest != _REST
        or owners != _OWNERS
        or time != _TIME
        or checksum != b"%06o\0 " % (_TEMPLATE_SUM + sum(name + size))
        or not (digits.isdigit() and size[-1] == 0)
        or not (name.isascii() and 0 < len(name) <= MAX_NAME_BYTES and 0 not in name)
    ):
        return None
    try:
        return int(digits, 8)
    except ValueError:  # an 8 or a 9
        return None
