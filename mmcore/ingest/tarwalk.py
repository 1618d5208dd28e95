"""Walks a tar that a stranger made: nothing is extracted, no name becomes a path, no link is
followed.

Read are USTAR, GNU (long names, base-256 sizes) and PAX (path, size). Every field is checked; what
cannot be understood ends the walk, because where the next member begins is then not known.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from mmcore.core import in_hand

BLOCK_BYTES = 512
_MAX_EXTRA_BYTES = 1 << 20  # of a long name or a PAX header
_PIECE_BYTES = 1 << 20
_REGULAR = b"0\0007"
_EXTRA = b"xgLK"
_KINDS = {
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "device",
    b"4": "device",
    b"6": "pipe",
    b"S": "sparse file",
}


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in a tar."""

    name: str
    offset: int
    """Of its first byte, in the tar."""
    num_bytes: int
    sha256: str
    data: bytes | None = None
    """What was asked for."""
    refused: str = ""
    """Why it cannot be a part of a sample."""
    problem: tuple[str, str] | None = None
    """Reason and detail, where it was not looked at."""


class TarBroken(Exception):
    """From here on a tar cannot be read."""

    def __init__(self, reason: str, detail: str, offset: int, name: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.name = name
        """Of the member that is cut, where that is known."""
        self.detail = f"{detail}, at byte {offset}"
        self.offset = offset


@dataclass(slots=True)
class _Header:
    name: bytes
    num_bytes: int
    kind: bytes


def walk(path: str, stream: BinaryIO, *, is_wanted: Callable[[str, int], bool]) -> Iterator[Member]:
    """Yield the files of a tar in their order; TarBroken when it ends before its end.

    The bytes of those that `is_wanted(name, num_bytes)` come with them. Directories are passed
    over.
    """
    at = 0
    extra: dict[str, bytes] = {}
    while True:
        refusal = in_hand.begin(path, at)
        if refusal is not None and refusal.is_last:
            raise TarBroken(refusal.reason, refusal.detail, at)
        block = _exactly(stream, BLOCK_BYTES, at, "the end marker is missing")
        if block == bytes(BLOCK_BYTES):
            return
        header = _parse(block, at)
        at += BLOCK_BYTES
        padded = -header.num_bytes % BLOCK_BYTES
        if header.kind in _EXTRA:
            if header.num_bytes > _MAX_EXTRA_BYTES:
                detail = f"a header of {header.num_bytes} bytes"
                raise TarBroken("tar_unreadable", detail, at)
            data = _exactly(stream, header.num_bytes + padded, at, "a header is cut")
            extra |= _extra(header.kind, data[: header.num_bytes], at)
            at += len(data)
            continue
        num_bytes = _size(extra.get("size"), header.num_bytes, at)
        padded = -num_bytes % BLOCK_BYTES
        raw_name = extra.get("path", header.name)
        extra = {}
        if header.kind == b"5" or (header.kind in _REGULAR and raw_name.endswith(b"/")):
            _skip(stream, num_bytes + padded, at)
        elif refusal is not None:
            _skip(stream, num_bytes + padded, at)
            name, _ = _name(raw_name)
            problem = (refusal.reason, refusal.detail)
            yield Member(name, at, num_bytes, "", problem=problem)
        else:
            yield _member(stream, raw_name, header.kind, at, num_bytes, is_wanted)
            _exactly(stream, padded, at + num_bytes, "the last member is cut")
        at += num_bytes + padded


def _member(
    stream: BinaryIO,
    raw_name: bytes,
    kind: bytes,
    at: int,
    num_bytes: int,
    is_wanted: Callable[[str, int], bool],
) -> Member:
    name, refused = _name(raw_name)
    if kind not in _REGULAR:
        refused = f"it is a {_KINDS.get(kind, 'member of an unknown kind')}"
        if kind in b"12346":
            num_bytes = 0  # they have no data, whatever they say
    keeps = not refused and is_wanted(name, num_bytes)
    kept = []
    digest = hashlib.sha256()
    left = num_bytes
    while left:
        data = stream.read(min(left, _PIECE_BYTES))
        if not data:
            raise TarBroken("tar_truncated", f"{name!a:.80} lacks {left} bytes", at, name)
        digest.update(data)
        left -= len(data)
        if keeps:
            kept.append(data)
    return Member(
        name, at, num_bytes, digest.hexdigest(), b"".join(kept) if keeps else None, refused
    )


def _parse(block: bytes, at: int) -> _Header:
    """Return a header block; TarBroken when its checksum or a number is wrong."""
    said = _number(block[148:156], at)
    unsigned = sum(block) - sum(block[148:156]) + 8 * 0x20
    negative = 256 * sum(byte > 127 for byte in (*block[:148], *block[156:]))
    if said not in (unsigned, unsigned - negative):
        raise TarBroken("tar_unreadable", f"no header: {block[:16]!r}", at)
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    kind = block[156:157]
    num_bytes = _number(block[124:136], at)
    if kind in b"123456" and kind not in b"5":
        num_bytes = 0
    return _Header(prefix + b"/" + name if prefix else name, num_bytes, kind)


def _number(field: bytes, at: int) -> int:
    """Return an octal number, or a base-256 one as GNU writes beyond 8 GiB."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip()
    if not re.fullmatch(b"[0-7]*", digits):
        raise TarBroken("tar_unreadable", f"no number: {field!r}", at)
    return int(digits or b"0", 8)


def _size(said: bytes | None, in_header: int, at: int) -> int:
    if said is None:
        return in_header
    if not re.fullmatch(b"[0-9]{1,19}", said):
        raise TarBroken("tar_unreadable", f"no size: {said[:40]!r}", at)
    return int(said)


def _extra(kind: bytes, data: bytes, at: int) -> dict[str, bytes]:
    """Return what a header says of the member behind it: its path, its size."""
    if kind == b"L":
        return {"path": data.rstrip(b"\0")}
    if kind != b"x":
        return {}
    found = {}
    while data:
        length, space, _ = data[:20].partition(b" ")
        if not space or not length.isdigit() or not len(length) + 3 <= int(length) <= len(data):
            raise TarBroken("tar_unreadable", f"no PAX record: {data[:16]!r}", at)
        record, data = data[len(length) + 1 : int(length) - 1], data[int(length) :]
        name, _, value = record.partition(b"=")
        if name in (b"path", b"size"):
            found[name.decode()] = value
        elif name.startswith(b"GNU.sparse"):
            raise TarBroken("tar_unreadable", "a sparse file", at)
    return found


def _name(raw: bytes) -> tuple[str, str]:
    """Return a member's name, and why it is refused, if it is."""
    name = raw.decode("utf-8", "backslashreplace").removeprefix("./")
    if name.startswith("/") or ".." in name.split("/"):
        return name, "its name leads out of the folder"
    if not name or any(ord(letter) < 32 for letter in name):
        return name, "its name is no file name"
    return name, ""


def _exactly(stream: BinaryIO, num_bytes: int, at: int, otherwise: str) -> bytes:
    data = stream.read(num_bytes)
    if len(data) < num_bytes:
        raise TarBroken("tar_truncated", otherwise, at)
    return data


def _skip(stream: BinaryIO, num_bytes: int, at: int) -> None:
    while num_bytes:
        data = stream.read(min(num_bytes, _PIECE_BYTES))
        if not data:
            raise TarBroken("tar_truncated", "a member is cut", at)
        num_bytes -= len(data)
