"""What a text says, in 256 bytes whose agreement estimates how many word sequences are shared.

One pass over the text's shingles fills most of the bins: one permutation hashing, Li, Owen and
Zhang (NIPS 2012). Bins that stay empty are filled by hashing again, which makes the estimate as
sharp for short texts as for long ones: fast similarity sketching, Dahlgaard, Knudsen and Thorup
(FOCS 2017). Of each bin 8 bits are kept: b-bit minwise hashing, Li and Koenig (WWW 2010).
"""

import re
import unicodedata
from typing import Any

import numpy as np

from mmcore.media.near.prints import NUM_BINS

Words = np.ndarray[Any, np.dtype[np.uint64]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]

# Scripts without spaces between words: each character stands for itself
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_TOKEN = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+")

_MASK = 2**64 - 1
_BASE = 0x9E3779B97F4A7C15 | 1
_BASE_INVERSE = pow(_BASE, -1, 2**64)
_ORDER_MASK = np.uint64(2**48 - 1)
_HASHES_AT_FIRST = 1024
_MAX_ROUNDS = 8_000


def text_tokens(text: str) -> list[str]:
    """Return the words of a text as they are compared: compatibility forms and case are one.

    >>> text_tokens("The CAT, on a mat!")
    ['the', 'cat', 'on', 'a', 'mat']
    """
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


def shingle_hashes(tokens: list[str], *, num_words: int) -> Words:
    """Return a 64-bit hash of each run of so many words; of all of them where there are fewer.

    Equal runs have equal hashes; hashes may repeat.
    """
    if not tokens:
        return np.empty(0, np.uint64)
    data = np.frombuffer(" ".join(tokens).encode(), np.uint8)
    sums = np.zeros(len(data) + 1, np.uint64)
    powers, inverses = _powers(len(data))
    np.cumsum(_BYTE_HASHES[data] * powers, out=sums[1:])
    spaces = np.flatnonzero(data == ord(" "))
    starts = np.concatenate([[0], spaces + 1])
    ends = np.concatenate([spaces, [len(data)]])
    num_words = min(num_words, len(starts))
    first, last = starts[: len(starts) - num_words + 1], ends[num_words - 1 :]
    # the polynomial of the bytes between two places, as if the text began at the first
    return _mixed((sums[last] - sums[first]) * inverses[first])


def minhash(shingles: Words) -> Bytes | None:
    """Return the signature of a set of hashes, uint8 [256], or None for the empty set.

    The share of equal bytes of two signatures is J + (1 - J) / 256 on average, where J is the
    share of all shingles that both have; see `similarity`.
    """
    if len(shingles) == 0:
        return None
    lowest = np.full(NUM_BINS, _MASK, np.uint64)
    order = (shingles >> np.uint64(8)) & _ORDER_MASK
    np.minimum.at(lowest, (shingles >> np.uint64(56)).view(np.int64), order)
    empty = lowest == _MASK
    first, num_rounds = 1, max(1, _HASHES_AT_FIRST // len(shingles))
    while empty.any() and first < _MAX_ROUNDS:
        _fill(lowest, empty, shingles, first, num_rounds)
        empty = lowest == _MASK
        first, num_rounds = first + num_rounds, 2 * num_rounds
    for one in np.flatnonzero(empty):
        lowest[one] = _mixed(shingles ^ _mixed(np.full(1, one + 2**32, np.uint64))).min()
    # what is smallest has its high bits in common with all that are: mixed, every bit tells
    return (_mixed(lowest) >> np.uint64(56)).astype(np.uint8)


def similarity(one: Bytes, other: Bytes) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the estimated share of common shingles, 0 to 1, of signatures [..., 256].

    Its standard error is sqrt(J (1 - J) / 256), at most 0.032.
    """
    agreeing = np.count_nonzero(one == other, axis=-1) / NUM_BINS
    return np.asarray(np.maximum(0.0, (agreeing - 1 / 256) / (1 - 1 / 256)))


def _fill(
    lowest: Words, empty: np.ndarray[Any, np.dtype[np.bool_]], shingles: Words, first: int, num: int
) -> None:
    """Give empty bins the lowest hash of the first of some rounds that reaches them.

    Earlier rounds come first: only then is a bin's choice the same in a similar set.
    """
    rounds = np.arange(first, first + num, dtype=np.uint64)
    again = shingles * (_mixed(rounds * np.uint64(_BASE)) | np.uint64(1))[:, None]
    bins = (again >> np.uint64(56)).view(np.int64)
    row, column = np.nonzero(empty[bins])
    order = (again[row, column] >> np.uint64(8)) & _ORDER_MASK
    order |= rounds[row] << np.uint64(48)
    np.minimum.at(lowest, bins[row, column], order)


def _mixed(values: Words) -> Words:
    """Return 64-bit values with every bit depending on every bit (the finalizer of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _power_table(base: int, length: int) -> Words:
    table = np.full(length, base, np.uint64)
    table[0] = 1
    return np.multiply.accumulate(table)


_tables: list[Words] = [_power_table(_BASE, 4096), _power_table(_BASE_INVERSE, 4096)]


def _powers(length: int) -> list[Words]:
    """Return powers of the base and of its inverse modulo 2**64, at least so many."""
    if len(_tables[0]) < length:
        size = 1 << (length - 1).bit_length()
        _tables[:] = [_power_table(_BASE, size), _power_table(_BASE_INVERSE, size)]
    return [_tables[0][:length], _tables[1]]


_BYTE_HASHES = _mixed(np.arange(1, 257, dtype=np.uint64) * np.uint64(_BASE))
