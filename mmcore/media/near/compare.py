"""Which prints of one modality are near: candidates by their hashes, verified on the whole print.

Every comparison returns pairs with a value for people: a distance in bits, or a similarity from 0
to 1. `Comparison.agree` has the last word, whether two prints met in one corpus or in an index.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmcore.media.minhash import similarity
from mmcore.media.near.banding import similar_pairs
from mmcore.media.near.buckets import NO_PAIRS, Flags, Pairs, unique_pairs
from mmcore.media.near.hamming import hamming_pairs
from mmcore.media.near.prints import (
    NUM_FRAMES,
    SOUND_BYTES,
    Bytes,
    Floats,
    Prints,
    Words,
    chroma_of,
    floats_of,
    hash_words,
    luma_of,
)

# Of the variance of the thumbnail, 1 - r: resized, recompressed and brighter copies of drawings
# stay below 0.01 in nine of ten, with 2 % cut off below 0.038; drawings that differ in one letter
# begin at 0.003, other drawings that share a hash at 0.02
MAX_LUMA_ERROR = 0.03
# Of 255, in the worst of 16 places: the same drawing in another colour is another picture
MAX_CHROMA_ERROR = 20
# The same sound or film keeps its length; a codec adds some milliseconds
MAX_LENGTH_RATIO = 1.06
# A semitone is 0.06; a codec moves no peak, but may prefer another one in one of the halves
MAX_PITCH_ERROR = 0.004
_PEAK_HZ = 0.5
# Bits of 64 in which one word of two prints of a sound may differ to be looked at
SOUND_WORD_DISTANCE = 3
# a pair of thumbnails takes 4 KiB as numbers, in several arrays
_PAIRS_AT_ONCE = 1 << 10
_ROWS_AT_ONCE = 1024

Verdict = tuple[Flags, Floats]
"""For each pair whether it is near, and the value for people."""
Found = tuple[Pairs, Floats]


@dataclass(frozen=True)
class Comparison:
    """How prints of one modality are compared."""

    num_words: int
    """Hashes that a print begins with; 0 where candidates are found by bands instead."""
    agree: Callable[[Bytes, Bytes, float], Verdict]
    """Says of pairs of prints whether they are near at a limit."""
    max_word_distance: int | None = None
    """In how many bits a hash may differ to be looked at; None: the limit itself."""

    def word_distance(self, limit: float) -> int:
        """Return in how many bits one hash of a candidate may differ."""
        return int(limit) if self.max_word_distance is None else self.max_word_distance

    def pairs(self, prints: Prints, limit: float) -> Found:
        """Return all near pairs (lower, higher number) of distinct prints, each once."""
        if self.num_words == 0:
            return similar_pairs(prints, limit)
        words = prints.words(self.num_words)
        candidates = _by_position(words, self.word_distance(limit))
        return self.verified(prints, candidates, limit)

    def verified(self, prints: Prints, pairs: Pairs, limit: float) -> Found:
        """Return those pairs that agree, with their values."""
        near, values = [np.empty(0, bool)], [np.empty(0)]
        for at in range(0, len(pairs[0]), _PAIRS_AT_ONCE):
            one, other = (prints.take(side[at : at + _PAIRS_AT_ONCE]) for side in pairs)
            is_near, value = self.agree(one, other, limit)
            near.append(is_near)
            values.append(value[is_near])
        chosen = np.concatenate(near)
        return (pairs[0][chosen], pairs[1][chosen]), np.concatenate(values)


def pictures_agree(one: Bytes, other: Bytes, max_distance: float) -> Verdict:
    """Near are pictures whose hashes differ in few bits and whose thumbnails show the same."""
    bits = np.bitwise_count(hash_words(one, 1) ^ hash_words(other, 1))[:, 0].astype(np.float64)
    near = bits <= max_distance
    near[near] = _thumbnails_agree(one[near], other[near])
    return near, bits


def films_agree(one: Bytes, other: Bytes, max_distance: float) -> Verdict:
    """Near are films of one length whose frames differ in few bits on average."""
    left, right = hash_words(one, NUM_FRAMES), hash_words(other, NUM_FRAMES)
    is_seen = (left != 0) & (right != 0)
    bits = np.where(is_seen, np.bitwise_count(left ^ right), 0).sum(axis=1)
    mean = bits / np.maximum(1, is_seen.sum(axis=1))
    # a frame that is blank in one film alone is no witness, and half of them must be
    near = (mean <= max_distance) & (is_seen.sum(axis=1) * 2 >= NUM_FRAMES)
    return near & _lengths_agree(one, other), mean


def sounds_agree(one: Bytes, other: Bytes, min_similarity: float) -> Verdict:
    """Near are sounds of one length and pitch that share most of the bits that either has."""
    left, right = hash_words(one, SOUND_BYTES // 8), hash_words(other, SOUND_BYTES // 8)
    both = np.bitwise_count(left & right).sum(axis=1, dtype=np.int64)
    either = np.bitwise_count(left | right).sum(axis=1, dtype=np.int64)
    shared = both / np.maximum(1, either)
    return (shared >= min_similarity) & _pitches_agree(one, other), shared


def texts_agree(one: Bytes, other: Bytes, min_similarity: float) -> Verdict:
    """Near are texts that share so many of their runs of words."""
    shared = similarity(one, other)
    return shared >= min_similarity, shared


COMPARISONS: Mapping[str, Comparison] = {
    "image": Comparison(1, pictures_agree),
    "video": Comparison(NUM_FRAMES, films_agree),
    "audio": Comparison(SOUND_BYTES // 8, sounds_agree, SOUND_WORD_DISTANCE),
    "text": Comparison(0, texts_agree),
}
"""By modality, in the order in which reasons are given."""


def vectors_agree(one: Bytes, other: Bytes, min_similarity: float) -> Verdict:
    """Near are embeddings by their cosine; zero vectors are near nothing."""
    # rounded: the last digits of a product differ between processors
    cosine = np.round((_unit(one) * _unit(other)).sum(axis=1), 5).astype(np.float64)
    return cosine >= min_similarity, cosine


def near_vectors(prints: Prints, min_similarity: float) -> Found:
    """Return pairs of embeddings that are near: each with every other, in blocks."""
    left, right = [NO_PAIRS[0]], [NO_PAIRS[0]]
    pieces = list(prints.pieces())
    unit = _unit(np.concatenate(pieces)) if pieces else np.empty((0, 1), np.float32)
    for start in range(0, len(unit), _ROWS_AT_ONCE):
        cosine = np.round(unit[start : start + _ROWS_AT_ONCE] @ unit[start:].T, 5)
        # a matrix product may round otherwise than the sum that has the last word
        one, other = np.nonzero(cosine >= min_similarity - 1e-4)
        is_later = other > one
        left.append(one[is_later] + start)
        right.append(other[is_later] + start)
    pairs = (np.concatenate(left), np.concatenate(right))
    return Comparison(0, vectors_agree).verified(prints, pairs, min_similarity)


def _unit(vectors: Bytes) -> Any:
    values = np.ascontiguousarray(vectors).view(np.float32)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)


def _by_position(words: Words, max_distance: int) -> Pairs:
    """Return pairs of rows that are near in some column.

    Of several columns 0 stands for nothing to be seen or heard, and meets nothing.
    """
    if words.shape[1] == 1:
        return hamming_pairs(words[:, 0], max_distance)
    found = []
    for position in range(words.shape[1]):
        rows = np.flatnonzero(words[:, position])
        left, right = hamming_pairs(words[rows, position], max_distance)
        found.append((rows[left], rows[right]))
    return unique_pairs(found, len(words))


def _thumbnails_agree(one: Bytes, other: Bytes) -> Flags:
    left, right = (
        luma - luma.mean(axis=1, keepdims=True) for luma in (luma_of(one), luma_of(other))
    )
    shared = (left * right).sum(axis=1)
    power = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    differing = np.abs(chroma_of(one) - chroma_of(other)).max(axis=1, initial=0)
    return np.asarray((shared >= (1 - MAX_LUMA_ERROR) * power) & (differing <= MAX_CHROMA_ERROR))


def _lengths_agree(one: Bytes, other: Bytes) -> Flags:
    left, right = floats_of(one, 1)[:, 0], floats_of(other, 1)[:, 0]
    return np.asarray(np.maximum(left, right) <= MAX_LENGTH_RATIO * np.minimum(left, right))


def _pitches_agree(one: Bytes, other: Bytes) -> Flags:
    """Return whether sounds are of one length, and one half's highest peak is the other's.

    Bands are three semitones wide: without it, two notes nearby would be one.
    """
    left, right = floats_of(one, 3)[:, :2], floats_of(other, 3)[:, :2]
    agree = np.abs(left - right) <= MAX_PITCH_ERROR * np.minimum(left, right) + _PEAK_HZ
    return np.asarray(agree.any(axis=1) & _lengths_agree(one, other))
