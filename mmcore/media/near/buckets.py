"""Pairs of equal keys by one sort: key and index share a 64-bit word, so nothing else moves."""

from collections.abc import Callable
from typing import Any

import numpy as np

Words = np.ndarray[Any, np.dtype[np.uint64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]
Pairs = tuple[Ints, Ints]

_ODD = np.uint64(0x9E3779B97F4A7C15)
# portions of this size stay in a core's cache
_AT_ONCE = 1 << 13
_COUNT = np.arange(_AT_ONCE, dtype=np.uint64)

NO_PAIRS: Pairs = (np.empty(0, np.int64), np.empty(0, np.int64))


def sorted_with_index(keys: Words, key_bits: int) -> tuple[Words, int]:
    """Return sorted words of (key, index), and how many low bits the index takes.

    Keys of which not all bits fit lose their lowest: what shares a bucket is then only likely to
    share a key, and must be verified.
    """
    return sorted_made_keys(len(keys), key_bits, keys.__getitem__)


def sorted_made_keys(
    num_keys: int, key_bits: int, keys_at: Callable[[slice], Words]
) -> tuple[Words, int]:
    """Return the same for keys that are made when they are needed, a portion at a time."""
    index_bits = max(1, max(0, num_keys - 1).bit_length())
    lost, shift = np.uint64(max(0, key_bits + index_bits - 64)), np.uint64(index_bits)
    words = np.empty(num_keys, np.uint64)
    for start in range(0, num_keys, _AT_ONCE):
        part = words[start : start + _AT_ONCE]
        np.right_shift(keys_at(slice(start, start + _AT_ONCE)), lost, out=part)
        part <<= shift
        part |= _COUNT[: len(part)] + np.uint64(start)
    words.sort()
    return words, index_bits


def runs_of(words: Words, index_bits: int) -> tuple[Ints, Ints]:
    """Return (start, length) of each run of at least two equal keys in sorted words."""
    at = _neighbours(words, index_bits)
    if len(at) == 0:
        return NO_PAIRS
    first = np.flatnonzero(np.concatenate([[True], np.diff(at) > 1]))
    starts = at[first]
    lengths = np.diff(np.append(first, len(at))) + 1
    return starts, lengths


def group_equal(values: Words) -> tuple[Ints, Ints, Ints]:
    """Return (order, starts, lengths): equal values side by side in `order`, rising in each run."""
    # multiplied, so that the bits that fit beside the index depend on all bits
    words, index_bits = sorted_with_index(values * _ODD, 64)
    order = _index_of(words, index_bits)
    ranked = values[order]
    is_first = np.empty(len(values), bool)
    is_first[:1] = True
    np.not_equal(ranked[1:], ranked[:-1], out=is_first[1:])
    met = _neighbours(words, index_bits)
    if is_first[met + 1].any():
        _part(order, is_first, values, runs_of(words, index_bits))
    starts = np.flatnonzero(is_first)
    return order, starts, np.diff(np.append(starts, len(values)))


def _part(order: Ints, is_first: Flags, values: Words, runs: Pairs) -> None:
    """Put equal values side by side in the few runs in which others lie between them."""
    starts, lengths = runs
    num_first = np.add.reduceat(is_first.astype(np.int64), starts)
    # up to the next run there may be single values, each the first of itself
    gaps = np.diff(np.append(starts, len(values))) - lengths
    for run in np.flatnonzero(num_first - gaps > 1).tolist():
        part = slice(int(starts[run]), int(starts[run] + lengths[run]))
        inside = order[part]
        order[part] = inside[np.lexsort((inside, values[inside]))]
        ranked = values[order[part]]
        is_first[part][1:] = ranked[1:] != ranked[:-1]


def _neighbours(words: Words, index_bits: int) -> Ints:
    """Return the places whose key is the next one's, a portion at a time: caches are small."""
    found = []
    one = np.uint64(1 << index_bits)
    for start in range(0, len(words) - 1, _AT_ONCE):
        part = words[start : start + _AT_ONCE + 1]
        found.append(np.flatnonzero((part[1:] ^ part[:-1]) < one) + start)
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _index_of(words: Words, index_bits: int) -> Ints:
    return (words & np.uint64((1 << index_bits) - 1)).astype(np.int64)


def members(words: Words, index_bits: int, start: int, length: int) -> Ints:
    """Return the indices in a run, rising."""
    return _index_of(words[start : start + length], index_bits)


def pairs_within(words: Words, index_bits: int, starts: Ints, lengths: Ints) -> Pairs:
    """Return every pair of indices (lower, higher) that share a run."""
    if len(starts) == 0:
        return NO_PAIRS
    left, right = [], []
    places, ends = _each(starts, lengths)
    step = 1
    while True:
        fits = places + step < ends
        places, ends = places[fits], ends[fits]
        if len(places) == 0:
            break
        left.append(_index_of(words[places], index_bits))
        right.append(_index_of(words[places + step], index_bits))
        step += 1
    return np.concatenate(left), np.concatenate(right)


def stars(words: Words, index_bits: int, starts: Ints, lengths: Ints) -> Pairs:
    """Return pairs of each run's lowest index with all others, and of each with the next one."""
    if len(starts) == 0:
        return NO_PAIRS
    places, _ = _each(starts, lengths)
    centres = np.repeat(starts, lengths)
    others = places > centres
    follows = places > centres + 1
    left = np.concatenate([centres[others], places[follows] - 1])
    right = np.concatenate([places[others], places[follows]])
    return _index_of(words[left], index_bits), _index_of(words[right], index_bits)


def _each(starts: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """Return every place in the runs, and the end of the run that it is in."""
    ends = np.repeat(starts + lengths, lengths)
    firsts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = np.arange(len(ends), dtype=np.int64) - firsts + np.repeat(starts, lengths)
    return places, ends


def unique_pairs(pairs: list[Pairs], num_items: int) -> Pairs:
    """Return pairs (lower, higher), sorted, each once."""
    if not pairs:
        return NO_PAIRS
    one = np.concatenate([left for left, _ in pairs])
    other = np.concatenate([right for _, right in pairs])
    packed = np.minimum(one, other) * num_items + np.maximum(one, other)
    packed.sort()
    is_first = np.ones(len(packed), bool)
    np.not_equal(packed[1:], packed[:-1], out=is_first[1:])
    packed = packed[is_first]
    low = packed // max(1, num_items)
    return low, packed - low * num_items
