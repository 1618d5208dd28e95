"""The order in which samples are read: a function of seed and epoch, the same on every rank.

Nothing is stored and nothing is drawn from a generator whose stream may change with a library: the
place of a sample in an epoch is computed. An epoch of a billion samples costs no memory, and
training can go on in the middle of one.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from mmcore.errors import ConfigError

_NUM_ROUNDS = 4  # of a Feistel network: enough to look random (Luby and Rackoff, 1988)

Indices = np.ndarray[Any, np.dtype[np.int64]]
_Words = np.ndarray[Any, np.dtype[np.uint64]]


def permuted(positions: Indices, *, size: int, seed: int, epoch: int) -> Indices:
    """Return which sample stands at each position of an epoch: a permutation of range(size).

    A balanced Feistel network over the smallest even number of bits, walked on until the value is
    in range (Black and Rogaway, CT-RSA 2002); fewer than four steps on average.
    """
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = _round_keys(seed, epoch)
    values = positions.astype(np.uint64)
    outside = np.ones(len(values), dtype=bool)
    while outside.any():
        values[outside] = _feistel(values[outside], keys, half_bits)
        outside = values >= size
    return values.astype(np.int64)


def rank_batches(
    num_samples: int,
    *,
    seed: int,
    epoch: int,
    global_batch_size: int,
    rank: int,
    num_ranks: int,
    first_step: int = 0,
) -> Iterator[Indices]:
    """Yield this rank's slice of each global batch of an epoch, from `first_step` on.

    The slices of a step, joined in the order of the ranks, are the same for any number of ranks.
    """
    if global_batch_size % num_ranks:
        raise ConfigError(
            f"global_batch_size={global_batch_size} is not divisible by {num_ranks} ranks. "
            f"Use a multiple, for example {num_ranks * -(-global_batch_size // num_ranks)}."
        )
    per_rank = global_batch_size // num_ranks
    for step in range(first_step, num_samples // global_batch_size):
        first = step * global_batch_size + rank * per_rank
        positions = np.arange(first, first + per_rank, dtype=np.int64)
        yield permuted(positions, size=num_samples, seed=seed, epoch=epoch)


def _round_keys(seed: int, epoch: int) -> _Words:
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    return np.frombuffer(digest, dtype="<u8")[:_NUM_ROUNDS].astype(np.uint64)


def _feistel(values: _Words, keys: _Words, half_bits: int) -> _Words:
    mask = np.uint64((1 << half_bits) - 1)
    shift = np.uint64(half_bits)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right + key) & mask)
    return (left << shift) | right


def _mixed(words: _Words) -> _Words:
    """Mix the bits of words: the finalizer of SplitMix64 (Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
