"""Equal digests in flat arrays: one sort of 64-bit words, whatever the corpus holds."""

import numpy as np

from mmcore.media.near.buckets import Ints, Words, members, runs_of, sorted_with_index


def first_of_equal(digests: Words) -> Ints:
    """Return for each 128-bit digest, uint64 [N, 2], the lowest index that has it.

    The upper word is sorted together with the index, in 64 bits. What shares the bits that fit is
    compared in full.
    """
    first = np.arange(len(digests), dtype=np.int64)
    if len(digests) < 2:
        return first
    words, index_bits = sorted_with_index(digests[:, 0], 64)
    starts, lengths = runs_of(words, index_bits)
    if len(starts) == 0:
        return first
    # the index is the low part of a word: the first of a run has the lowest
    begins = np.cumsum(lengths) - lengths
    places = np.arange(int(lengths.sum())) - np.repeat(begins - starts, lengths)
    mask = np.uint64((1 << index_bits) - 1)
    inside = (words[places] & mask).astype(np.int64)
    of_first = np.repeat(begins, lengths)
    # gathered once, and side by side from here on
    upper, lower = digests[inside].T
    equal = (upper == upper[of_first]) & (lower == lower[of_first])
    lowest = inside[of_first]
    first[inside[equal]] = lowest[equal]
    for run in np.flatnonzero(~np.logical_and.reduceat(equal, begins)).tolist():
        mixed = members(words, index_bits, int(starts[run]), int(lengths[run]))
        _, at, number = np.unique(digests[mixed], axis=0, return_index=True, return_inverse=True)
        first[mixed] = mixed[at[number.ravel()]]
    return first
