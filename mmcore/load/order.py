"""Which samples each global batch of an epoch holds: one source or several, easy ones first or not.

A function of seed, epoch, step and the lengths of the sources alone. Where the order goes on is
computed, not walked to: the first step of an epoch costs what the last one does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mmcore.load.sampler import Indices, Shuffle, permuted, shuffled


@dataclass(frozen=True)
class Stream:
    """One source of samples, as far as their order goes."""

    num_samples: int
    num_drawn: int
    """In an epoch. More than there are: some come again. Fewer: the others come in later epochs."""
    name: str = ""
    """Sources shuffle independently."""
    easiest_first: Indices | None = None
    """The samples by their score, for a curriculum."""
    shares: Sequence[float] = ()
    """Of the easiest samples, of which an epoch is made: of the first epoch, the second and so on;
    all of them afterwards."""


@dataclass(frozen=True)
class Picks:
    """Samples in the order in which they are read."""

    sources: Indices
    indices: Indices
    """In the source."""
    visits: Indices
    """Tell the times that one sample is read from each other; augmentation is seeded by them."""

    def __getitem__(self, rows: slice | Indices) -> "Picks":
        return Picks(self.sources[rows], self.indices[rows], self.visits[rows])


@dataclass
class Order:
    """The global stream of samples."""

    streams: Sequence[Stream]
    seed: int
    global_batch_size: int
    shuffle: Shuffle = field(default_factory=Shuffle)
    lengths: Sequence[Indices] | None = None
    """Of the samples of each source: batches are then made of samples of like length."""
    num_sorted_batches: int = 0
    """So many batches in a row are sorted together by length."""
    _newest: tuple[tuple[int, int], Picks] | None = None

    @property
    def num_steps(self) -> int:
        """How many steps every epoch has, without the incomplete batch."""
        return sum(stream.num_drawn for stream in self.streams) // self.global_batch_size

    def batch(self, epoch: int, step: int, rows: slice = slice(None)) -> Picks:
        """Return some rows of a global batch."""
        size = self.global_batch_size
        if self.lengths is None or self.num_sorted_batches <= 1:
            return self._at(epoch, np.arange(step * size, (step + 1) * size, dtype=np.int64)[rows])
        first = step - step % self.num_sorted_batches
        num = min(self.num_sorted_batches, self.num_steps - first)
        by_length = self._sorted(epoch, first, num)
        # short batches and long ones in no order: training would see it
        places = np.array([step - first])
        drawn = permuted(places, size=num, seed=self.seed, epoch=(epoch << 32) + first)
        which = int(drawn[0])
        return by_length[slice(which * size, (which + 1) * size)][rows]

    def _sorted(self, epoch: int, first: int, num: int) -> Picks:
        """Return some batches as one, by length; the next step asks for the same."""
        if self._newest is not None and self._newest[0] == (epoch, first):
            return self._newest[1]
        size = self.global_batch_size
        assert self.lengths is not None, "batches are sorted by known lengths"
        together = self._at(epoch, np.arange(first * size, (first + num) * size, dtype=np.int64))
        lengths = np.zeros(num * size, np.int64)
        for source, known in enumerate(self.lengths):
            here = together.sources == source
            lengths[here] = known[together.indices[here]]
        found = together[np.argsort(lengths, kind="stable")]
        self._newest = (epoch, first), found
        return found

    def _at(self, epoch: int, positions: Indices) -> Picks:
        sources, places = _interleaved(positions, [stream.num_drawn for stream in self.streams])
        indices, visits = np.empty_like(positions), np.empty_like(positions)
        for number, stream in enumerate(self.streams):
            here = sources == number
            if here.any():
                indices[here], visits[here] = self._drawn(stream, epoch, places[here])
        return Picks(sources, indices, visits)

    def _drawn(self, stream: Stream, epoch: int, places: Indices) -> tuple[Indices, Indices]:
        """Return the samples of a source at some places of its part of an epoch, and the visits."""
        if stream.easiest_first is not None and epoch < len(stream.shares):
            size = max(1, round(stream.shares[epoch] * stream.num_samples))
            pool = np.sort(stream.easiest_first[:size])
            passes = (epoch + 1 << 32) + places // size
        else:
            # of a source that gives less than it has, the next epoch takes what comes after
            drawn = epoch * stream.num_drawn + places
            size, pool, passes = stream.num_samples, None, drawn // stream.num_samples
            places = drawn
        found = np.empty_like(places)
        for number in np.unique(passes):
            here = passes == number
            found[here] = shuffled(
                places[here] % size,
                size=size,
                seed=_seed_of(self.seed, stream.name),
                epoch=int(number),
                shuffle=self.shuffle,
            )
        return (found if pool is None else pool[found]), passes


def _seed_of(seed: int, name: str) -> int:
    return seed if not name else int.from_bytes(f"{seed}/{name}".encode(), "little")


def _interleaved(positions: Indices, quotas: Sequence[int]) -> tuple[Indices, Indices]:
    """Return from which source each position is drawn, and which draw of that source it is.

    Sources come as evenly as their quotas let them: before any position a source has had its share
    of the positions, rounded.
    """
    sources = np.full(len(positions), len(quotas) - 1, np.int64)
    places = positions.copy()
    rest = np.ones(len(positions), bool)
    left = sum(quotas)
    for number, quota in enumerate(quotas[:-1]):
        at = places[rest]
        # Python's integers: a product of two large numbers of samples is beyond 64 bits
        exact = at.astype(object)
        before = (exact * quota // left).astype(np.int64)
        mine = ((exact + 1) * quota // left).astype(np.int64) > before
        chosen = np.flatnonzero(rest)
        sources[chosen[mine]] = number
        places[chosen] = np.where(mine, before, at - before)
        rest[chosen[mine]] = False
        left -= quota
    return sources, places
