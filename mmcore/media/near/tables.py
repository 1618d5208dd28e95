"""Keys by which a print can be looked up among many that lie sorted.

Hashes are cut into three blocks (five for large distances). Two hashes that differ in d bits differ
in at most d / 3 bits of one of the blocks, so the near ones of a hash are found by asking for each
of its blocks and all values a few bits from it: Norouzi, Punjani and Fleet, "Fast Search in Hamming
Space with Multi-Index Hashing" (CVPR 2012). Texts lie under the bands of their signatures.
"""

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np

from mmcore.media.near.banding import bands_of, num_bands
from mmcore.media.near.buckets import Words
from mmcore.media.near.compare import Comparison
from mmcore.media.near.prints import HASH_BITS, Prints

_FEW_BLOCKS, _MANY_BLOCKS = 3, 5
_MOST_FOR_FEW_BLOCKS = 8
_NOTHING = np.uint64(2**64 - 1)
"""The key of what is to meet nothing; no block is so long."""


def keys_of(prints: Prints, comparison: Comparison, limit: float) -> Iterator[Words]:
    """Yield the keys under which prints lie, a table at a time, each as N words."""
    if comparison.num_words == 0:
        yield from bands_of(prints, limit)
        return
    for position in range(comparison.num_words):
        words = prints.cut(8 * position, 8 * position + 8).view(">u8")[:, 0].astype(np.uint64)
        for low, length in _blocks(comparison.word_distance(limit)):
            keys = (words >> np.uint64(low)) & np.uint64((1 << length) - 1)
            yield np.where(words == 0, _NOTHING, keys) if comparison.num_words > 1 else keys


def num_tables(comparison: Comparison, limit: float) -> int:
    """Return how many tables a modality has."""
    if comparison.num_words == 0:
        return num_bands(limit)
    return comparison.num_words * _num_blocks(comparison.word_distance(limit))


def masks_of(comparison: Comparison, limit: float) -> Iterator[Words]:
    """Yield what to XOR with the keys of each table to ask for all that could be near."""
    if comparison.num_words == 0:
        while True:
            yield np.zeros(1, np.uint64)
    distance = comparison.word_distance(limit)
    for _ in range(comparison.num_words):
        for _, length in _blocks(distance):
            yield _masks(length, distance // _num_blocks(distance))


def meets_nothing(keys: Words) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which keys stand for nothing to compare."""
    return np.asarray(keys == _NOTHING)


def _num_blocks(max_distance: int) -> int:
    return _FEW_BLOCKS if max_distance <= _MOST_FOR_FEW_BLOCKS else _MANY_BLOCKS


def _blocks(max_distance: int) -> list[tuple[int, int]]:
    """Return (lowest bit, length) of each block."""
    num = _num_blocks(max_distance)
    edges = [round(i * HASH_BITS / num) for i in range(num + 1)]
    return [(low, high - low) for low, high in pairwise(edges)]


def _masks(length: int, radius: int) -> Words:
    found = [
        sum(1 << bit for bit in bits)
        for num_bits in range(radius + 1)
        for bits in combinations(range(length), num_bits)
    ]
    return np.array(found, np.uint64)
