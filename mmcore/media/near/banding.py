"""Pairs of minhash signatures that are likely to be similar: those that share a band.

A signature of 256 bytes is cut into bands. Two texts of similarity J share a given band of r bytes
with probability about J**r, and one of b bands with 1 - (1 - J**r)**b: with 32 bands of 8 bytes,
0.9999 at J = 0.85 and under 1e-4 at J = 0.2; with 64 bands of 4 bytes, 0.998 at J = 0.55. Broder,
"On the resemblance and containment of documents" (1997); Leskovec, Rajaraman and Ullman, "Mining
of Massive Datasets", section 3.4.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mmcore.media.minhash import similarity
from mmcore.media.near.buckets import (
    Pairs,
    Words,
    pairs_within,
    runs_of,
    sorted_with_index,
    stars,
    unique_pairs,
)
from mmcore.media.near.prints import NUM_BINS, Prints

Floats = np.ndarray[Any, np.dtype[np.float64]]

# Below it, bands of 8 bytes would miss one pair in a hundred: those of 4 are taken, which meet more
_LONG_BANDS_FROM = 0.78
# a band that so many texts share is a phrase of the corpus, or one text many times over
_MAX_BUCKET = 16
_PAIRS_AT_ONCE = 1 << 14


def num_bands(min_similarity: float) -> int:
    """Return how many bands serve a threshold."""
    return NUM_BINS // _band_bytes(min_similarity)


def bands_of(signatures: Prints, min_similarity: float) -> Iterator[Words]:
    """Yield the bands of N signatures that serve a threshold, each as N words."""
    size = _band_bytes(min_similarity)
    for start in range(0, NUM_BINS, size):
        yield signatures.cut(start, start + size).view(f"<u{size}")[:, 0].astype(np.uint64)


def similar_pairs(signatures: Prints, min_similarity: float) -> tuple[Pairs, Floats]:
    """Return pairs (lower, higher index) of at least a similarity, and what it is.

    Where more than 16 share a band, each is compared with the first and the next alone.
    """
    found: list[Pairs] = []
    if len(signatures) > 1:
        for keys in bands_of(signatures, min_similarity):
            words, index_bits = sorted_with_index(keys, 8 * _band_bytes(min_similarity))
            starts, lengths = runs_of(words, index_bits)
            is_hot = lengths > _MAX_BUCKET
            found.append(pairs_within(words, index_bits, starts[~is_hot], lengths[~is_hot]))
            found.append(stars(words, index_bits, starts[is_hot], lengths[is_hot]))
    left, right = unique_pairs(found, len(signatures))
    values = pair_similarities(signatures, left, right)
    near = values >= min_similarity
    return (left[near], right[near]), values[near]


def pair_similarities(signatures: Prints, left: Any, right: Any) -> Floats:
    """Return the estimated similarity of each pair."""
    pieces = [
        similarity(
            signatures.take(left[at : at + _PAIRS_AT_ONCE]),
            signatures.take(right[at : at + _PAIRS_AT_ONCE]),
        )
        for at in range(0, len(left), _PAIRS_AT_ONCE)
    ]
    return np.concatenate(pieces) if pieces else np.empty(0)


def _band_bytes(min_similarity: float) -> int:
    return 8 if min_similarity >= _LONG_BANDS_FROM else 4
