"""Sets of sample ids as blocks of 65,536: a bitmap where many are in, a list where few are.

A filter is such a set, so any combination of filters is an intersection of blocks: its cost does
not depend on how rare the combination is, and its exact size comes along.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

BLOCK_BITS = 16
BLOCK_SIZE = 1 << BLOCK_BITS
_BITMAP_BYTES = BLOCK_SIZE // 8

Offsets = np.ndarray[Any, np.dtype[np.uint16]]
_Bitmap = np.ndarray[Any, np.dtype[np.uint8]]


def encode(offsets: Offsets) -> bytes:
    """Return a block: two bytes per member, or a bitmap once that is shorter."""
    if offsets.size * 2 < _BITMAP_BYTES:
        return offsets.astype("<u2").tobytes()
    bitmap = np.zeros(BLOCK_SIZE, np.uint8)
    bitmap[offsets] = 1
    return np.packbits(bitmap, bitorder="little").tobytes()


def decode(data: bytes) -> Offsets:
    """Return the members of a block, ascending."""
    if len(data) < _BITMAP_BYTES:
        return np.frombuffer(data, "<u2")
    return _members(np.frombuffer(data, np.uint8))


def add(data: bytes | None, offsets: Offsets) -> bytes:
    """Return a block with more members."""
    return encode(offsets if data is None else np.union1d(decode(data), offsets))


def intersect(blocks: Sequence[bytes]) -> Offsets:
    """Return the members that are in every block, ascending."""
    lists = [block for block in blocks if len(block) < _BITMAP_BYTES]
    bitmaps = [np.frombuffer(block, np.uint8) for block in blocks if len(block) == _BITMAP_BYTES]
    if not lists:
        return _members(_all(bitmaps))
    found = decode(min(lists, key=len))
    for other in lists:
        found = found[np.isin(found, decode(other), assume_unique=True)]
    for bitmap in bitmaps:
        found = found[(bitmap[found >> 3] >> (found & 7).astype(np.uint8)) & 1 == 1]
    return found


def count(blocks: Sequence[bytes]) -> int:
    """Return how many members are in every block."""
    if all(len(block) == _BITMAP_BYTES for block in blocks):
        bitmap = _all([np.frombuffer(block, np.uint8) for block in blocks])
        return int(np.bitwise_count(bitmap.view(np.uint64)).sum())
    return int(intersect(blocks).size)


def _all(bitmaps: Sequence[_Bitmap]) -> _Bitmap:
    result = bitmaps[0]
    for bitmap in bitmaps[1:]:
        result = result & bitmap
    return result


def _members(bitmap: _Bitmap) -> Offsets:
    return np.flatnonzero(np.unpackbits(bitmap, bitorder="little")).astype(np.uint16)
