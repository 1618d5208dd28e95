"""How many frames a picture file holds, by its container: nothing is decoded for it."""

import struct

MAX_FRAMES = 100_000
"""Counting ends here; a hostile file may hold millions of empty ones."""

_TIFF_TYPES = {b"II*\x00": "<", b"MM\x00*": ">"}


def count_frames(data: bytes) -> int:
    """Return the number of frames or pages of GIF, PNG, WebP and TIFF; 1 for any other file.

    A file that is cut off counts as far as it goes, at least 1: whether it decodes is another
    question.

    >>> count_frames(b"BM")
    1
    """
    if data[:6] in (b"GIF87a", b"GIF89a"):
        found = _gif_frames(data)
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        found = _png_frames(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        found = _webp_frames(data)
    elif data[:4] in _TIFF_TYPES:
        found = _tiff_pages(data)
    else:
        found = 1
    return max(1, min(found, MAX_FRAMES))


def _gif_frames(data: bytes) -> int:
    """Walk the blocks (GIF89a, section 12): every image descriptor is a frame."""
    at = 13 + _color_table_bytes(data[10:11])
    frames = 0
    while frames < MAX_FRAMES and at < len(data):
        kind = data[at]
        if kind == 0x2C:
            frames += 1
            # ten bytes of descriptor, a palette, the code size
            at = _after_sub_blocks(data, at + 11 + _color_table_bytes(data[at + 9 : at + 10]))
        elif kind == 0x21:
            at = _after_sub_blocks(data, at + 2)
        else:
            break
    return frames


def _color_table_bytes(packed: bytes) -> int:
    return 3 << ((packed[0] & 7) + 1) if packed and packed[0] & 0x80 else 0


def _after_sub_blocks(data: bytes, at: int) -> int:
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def _png_frames(data: bytes) -> int:
    """Read `acTL`, which stands before the pixels (PNG 3, section 11.3.6.1)."""
    at = 8
    while at + 12 <= len(data):
        num_bytes, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"acTL":
            (frames,) = struct.unpack_from(">I", data, at + 8)
            return int(frames)
        if kind == b"IDAT":
            break
        at += 12 + num_bytes
    return 1


def _webp_frames(data: bytes) -> int:
    """Count the `ANMF` chunks (RFC 9649, section 2.7)."""
    frames = 0
    at = 12
    while frames < MAX_FRAMES and at + 8 <= len(data):
        kind, num_bytes = struct.unpack_from("<4sI", data, at)
        frames += kind == b"ANMF"
        at += 8 + num_bytes + num_bytes % 2
    return frames


def _tiff_pages(data: bytes) -> int:
    """Follow the chain of directories (TIFF 6.0, section 2), which may bite its own tail."""
    order = _TIFF_TYPES[data[:4]]
    seen: set[int] = set()
    at = 4
    while len(seen) < MAX_FRAMES and at + 4 <= len(data):
        (directory,) = struct.unpack_from(order + "I", data, at)
        if directory in seen or not 8 <= directory <= len(data) - 2:
            break
        seen.add(directory)
        (num_entries,) = struct.unpack_from(order + "H", data, directory)
        at = directory + 2 + 12 * num_entries
    return len(seen)
