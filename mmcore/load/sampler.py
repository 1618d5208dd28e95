"""The order in which samples are read: a function of seed and epoch, the same on every rank.

Nothing is stored and nothing is drawn from a generator whose stream may change with a library: the
place of a sample in an epoch is computed. An epoch of a billion samples costs no memory, and
training can go on in the middle of one.

Samples that lie side by side in the shards are read at about the same time: blocks of them change
places, and a window of some blocks is shuffled sample by sample.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mmcore.errors import ConfigError

_NUM_ROUNDS = 4  # of a Feistel network: enough to look random (Luby and Rackoff, 1988)

Indices = np.ndarray[Any, np.dtype[np.int64]]
_Words = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True, kw_only=True)
class Shuffle:
    """How far samples are mixed, and so how scattered the reads are."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    block_samples: int = 256
    """That lie side by side and are read at about the same time."""
    window_blocks: int = 16
    """Whose samples are shuffled with each other."""

    def __post_init__(self) -> None:
        for name in ("block_samples", "window_blocks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"loader.shuffle.{name}={getattr(self, name)}. Use 1 or more.")


def permuted(positions: Indices, *, size: int, seed: int, epoch: int) -> Indices:
    """Return which sample stands at each position of an epoch: a permutation of range(size)."""
    return _permuted(positions, size, f"{seed}/{epoch}")


def shuffled(positions: Indices, *, size: int, seed: int, epoch: int, shuffle: Shuffle) -> Indices:
    """Return which sample stands at each position of an epoch, blocks of neighbours kept together.

    A permutation of range(size). Where blocks begin is another place in every epoch, so that no two
    samples are neighbours for ever; what no whole block is left of comes last.
    """
    block, window = shuffle.block_samples, shuffle.block_samples * shuffle.window_blocks
    num_blocks = size // block
    found = np.empty(len(positions), dtype=np.int64)
    for number in np.unique(positions // window):
        first = int(number) * window
        inside = positions // window == number
        # in the window, then which block that is and where in it
        places = first + _permuted(
            positions[inside] - first, min(window, size - first), f"{seed}/{epoch}/{number}"
        )
        blocks, offsets = places // block, places % block
        whole = blocks < num_blocks
        blocks[whole] = _permuted(blocks[whole], num_blocks, f"{seed}/{epoch}/blocks")
        found[inside] = blocks * block + offsets
    turn = int.from_bytes(_digest(f"{seed}/{epoch}/turn")[:8], "little") % max(1, size)
    return (found + turn) % max(1, size)


def num_per_rank(global_batch_size: int, num_ranks: int) -> int:
    """Return how many samples of a batch are a rank's; ConfigError where ranks cannot share it."""
    if global_batch_size % num_ranks:
        raise ConfigError(
            f"global_batch_size={global_batch_size} is not divisible by {num_ranks} ranks. "
            f"Use a multiple, for example {num_ranks * -(-global_batch_size // num_ranks)}."
        )
    return global_batch_size // num_ranks


def _permuted(positions: Indices, size: int, key: str) -> Indices:
    """Return a permutation of range(size) at some of its positions.

    A balanced Feistel network over the smallest even number of bits, walked on until the value is
    in range (Black and Rogaway, CT-RSA 2002); fewer than four steps on average.
    """
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = np.frombuffer(_digest(key), dtype="<u8")[:_NUM_ROUNDS].astype(np.uint64)
    values = positions.astype(np.uint64)
    outside = np.ones(len(values), dtype=bool)
    while outside.any():
        values[outside] = _feistel(values[outside], keys, half_bits)
        outside = values >= size
    return values.astype(np.int64)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


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
