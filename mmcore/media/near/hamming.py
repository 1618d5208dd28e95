"""All pairs of 64-bit hashes that differ in few bits, by permuted sorts.

Divide the bits into d + k blocks. Two hashes that differ in at most d bits agree in at least k
blocks, so sorting once by each choice of k blocks puts every such pair side by side: Manku, Jain
and Das Sarma, "Detecting Near-Duplicates for Web Crawling" (WWW 2007). More blocks are more sorts
with longer keys and fewer chance meetings; as the corpus grows, the cheaper number is taken.
Nothing is missed, whichever it is, unless more than 8,192 different hashes share nearly all bits.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations, pairwise
from math import comb

import numpy as np

from mmcore.media.near.buckets import (
    NO_PAIRS,
    Ints,
    Pairs,
    Words,
    group_equal,
    members,
    pairs_within,
    runs_of,
    sorted_made_keys,
    stars,
)

MAX_DISTANCE = 12
HASH_BITS = 64

# A bucket with more is divided again, by the bits that are left
_MAX_BUCKET = 128
# So few are compared each with every other, without sorting
_MAX_COMPARED = 1024
# A bucket that is still larger after being divided so often is compared as a whole; one larger
# than can be, as a star: each with the first and the next
_MAX_DEPTH = 2
_MAX_COMPARED_AT_LAST = 8192
_PAIRS_AT_ONCE = 1 << 17
# Equal hashes in such numbers are one picture, or none: a star links them all
_MAX_EQUAL = 16
# looking at a meeting against sorting one item, measured
_MEETING_COST = 0.5


def hamming_pairs(hashes: Words, max_distance: int) -> Pairs:
    """Return all pairs (lower, higher index) of hashes that differ in at most so many bits, once.

    Of more than 16 equal hashes, only some pairs: each is linked to the first and to the next, and
    what is near one of them is linked to the first. Connected components are the same.
    """
    if len(hashes) < 2:
        return NO_PAIRS
    order, starts, lengths = group_equal(hashes)
    found = _equal(order, starts, lengths)
    left, right = distinct_pairs(hashes[order[starts]], max_distance)
    found += _between(order, starts, lengths, left, right)
    one, other = _joined(found)
    return np.minimum(one, other), np.maximum(one, other)


def distinct_pairs(hashes: Words, max_distance: int) -> Pairs:
    """Return all pairs of hashes, no two equal, that are near, each once."""
    if max_distance == 0 or len(hashes) < 2:
        return NO_PAIRS
    return _search(hashes, np.arange(len(hashes)), range(HASH_BITS), max_distance)


def distances(one: Words, other: Words) -> Ints:
    """Return in how many bits hashes differ."""
    return np.asarray(np.bitwise_count(one ^ other), np.int64)


def blocks_of(bits: Sequence[int], max_distance: int, num_in_key: int) -> list[tuple[int, ...]]:
    """Divide bits into max_distance + num_in_key blocks of nearly one length."""
    num_blocks = max_distance + num_in_key
    edges = [round(i * len(bits) / num_blocks) for i in range(num_blocks + 1)]
    return [tuple(bits[low:high]) for low, high in pairwise(edges)]


def keys_of(hashes: Words, bits: Sequence[int]) -> Words:
    """Return the chosen bits of each hash, side by side."""
    keys = np.zeros(len(hashes), np.uint64)
    for low, length in _stretches(sorted(bits)):
        piece = hashes >> np.uint64(low)
        piece &= np.uint64((1 << length) - 1)
        keys <<= np.uint64(length)
        keys |= piece
    return keys


def _keys_at(hashes: Words, bits: Sequence[int], part: slice) -> Words:
    return keys_of(hashes[part], bits)


def _search(
    hashes: Words, chosen: Ints, bits: Sequence[int], max_distance: int, depth: int = 0
) -> Pairs:
    """Return all near pairs among chosen hashes, which differ in no bit but these, each once."""
    is_last = depth == _MAX_DEPTH or len(bits) <= max_distance + 1
    if len(chosen) <= _MAX_COMPARED or (is_last and len(chosen) <= _MAX_COMPARED_AT_LAST):
        return _all_near(hashes, chosen, max_distance)
    if is_last:
        left = np.concatenate([np.repeat(chosen[0], len(chosen) - 1), chosen[1:-1]])
        return _near(hashes, left, np.concatenate([chosen[1:], chosen[2:]]), max_distance)
    values = hashes if len(chosen) == len(hashes) else hashes[chosen]
    blocks = blocks_of(bits, max_distance, _num_in_key(len(values), len(bits), max_distance))
    masks = np.array([sum(1 << bit for bit in block) for block in blocks], np.uint64)
    found: list[Pairs] = []
    for key_blocks in combinations(range(len(blocks)), len(blocks) - max_distance):
        key_bits = [bit for block in key_blocks for bit in blocks[block]]
        words, index_bits = sorted_made_keys(
            len(values), len(key_bits), partial(_keys_at, values, key_bits)
        )
        starts, lengths = runs_of(words, index_bits)
        is_hot = lengths > _MAX_BUCKET
        pairs = []
        for some, many in _portions(starts[~is_hot], lengths[~is_hot]):
            left, right = pairs_within(words, index_bits, some, many)
            pairs.append(_near(hashes, chosen[left], chosen[right], max_distance))
        rest = sorted(set(bits) - set(key_bits))
        for start, length in zip(starts[is_hot].tolist(), lengths[is_hot].tolist(), strict=True):
            inside = chosen[members(words, index_bits, start, length)]
            pairs.append(_search(hashes, inside, rest, max_distance, depth + 1))
        found += [_first_met(hashes, one, masks, key_blocks) for one in pairs]
    return _joined(found)


def _first_met(hashes: Words, pairs: Pairs, masks: Words, key_blocks: tuple[int, ...]) -> Pairs:
    """Return those pairs whose first equal blocks are the key's: others were met before."""
    differing = hashes[pairs[0]] ^ hashes[pairs[1]]
    num_equal = np.zeros(len(differing), np.int64)
    is_first = np.ones(len(differing), bool)
    for block, mask in enumerate(masks[: key_blocks[-1] + 1].tolist()):
        is_equal = (differing & np.uint64(mask)) == 0
        num_equal += is_equal
        if block not in key_blocks:
            is_first &= ~is_equal
    is_first &= num_equal == len(key_blocks)
    return pairs[0][is_first], pairs[1][is_first]


def _portions(starts: Ints, lengths: Ints) -> Iterator[Pairs]:
    """Divide runs so that those of a portion hold a bounded number of pairs."""
    portion = np.cumsum(lengths * (lengths - 1) // 2) // _PAIRS_AT_ONCE
    edges = [0, *(np.flatnonzero(np.diff(portion)) + 1).tolist(), len(starts)]
    for low, high in pairwise(edges):
        yield starts[low:high], lengths[low:high]


def _all_near(hashes: Words, inside: Ints, max_distance: int) -> Pairs:
    """Compare each with every other, some rows at a time."""
    values = hashes[inside]
    rows = max(1, _PAIRS_AT_ONCE // max(1, len(inside)))
    found = []
    for start in range(0, len(inside), rows):
        bits = np.bitwise_count(values[start : start + rows, None] ^ values[None, start:])
        left, right = np.nonzero(bits <= max_distance)
        is_later = right > left
        found.append((inside[left[is_later] + start], inside[right[is_later] + start]))
    return _joined(found)


def _near(hashes: Words, left: Ints, right: Ints, max_distance: int) -> Pairs:
    near = np.bitwise_count(hashes[left] ^ hashes[right]) <= max_distance
    return left[near], right[near]


def _joined(found: Sequence[Pairs]) -> Pairs:
    if not found:
        return NO_PAIRS
    return np.concatenate([one for one, _ in found]), np.concatenate([other for _, other in found])


def _num_in_key(num_items: int, num_bits: int, max_distance: int) -> int:
    """Return how many blocks a key is made of, at the least cost for evenly spread hashes."""

    def cost(num_in_key: int) -> float:
        key_bits = num_bits * num_in_key / (max_distance + num_in_key)
        meetings = num_items / 2 ** (key_bits + 1)
        return comb(max_distance + num_in_key, num_in_key) * (1 + _MEETING_COST * meetings)

    # hashes of pictures are not evenly spread: beyond a small corpus one block is too short a key
    fewest = 1 if num_items < 1 << 14 else 2
    most = max(1, min(6, num_bits - max_distance))
    return min(range(min(fewest, most), most + 1), key=cost)


def _stretches(bits: Sequence[int]) -> list[tuple[int, int]]:
    """Return (lowest, length) of each stretch of neighbouring bits."""
    found: list[tuple[int, int]] = []
    for bit in bits:
        if found and sum(found[-1]) == bit:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((bit, 1))
    return found


def _equal(order: Ints, starts: Ints, lengths: Ints) -> list[Pairs]:
    """Return the links among equal hashes; `order` is theirs, run by run, each rising."""
    index = np.arange(len(order), dtype=np.uint64)
    is_hot = lengths > _MAX_EQUAL
    some = lengths > 1
    within = pairs_within(index, 63, starts[some & ~is_hot], lengths[some & ~is_hot])
    star = stars(index, 63, starts[is_hot], lengths[is_hot])
    return [(order[left], order[right]) for left, right in (within, star)]


def _between(order: Ints, starts: Ints, lengths: Ints, left: Ints, right: Ints) -> list[Pairs]:
    """Return the links between runs of equal hashes that are near.

    The first of each is linked to all of the other, but for those that a star links already.
    """
    found: list[Pairs] = []
    taken = np.where(lengths > _MAX_EQUAL, 1, lengths)
    for skipped, one, other in ((0, left, right), (1, right, left)):
        # the two firsts are linked once
        counts = taken[other] - skipped
        repeated = np.repeat(one, counts)
        firsts = np.cumsum(counts) - counts
        offsets = np.arange(len(repeated)) - np.repeat(firsts, counts) + skipped
        members_of_other = np.repeat(starts[other], counts) + offsets
        found.append((order[starts[repeated]], order[members_of_other]))
    return found
