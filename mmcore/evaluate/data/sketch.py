"""How the values of a score are distributed, in memory that does not grow with the corpus.

While values are few, each is counted by itself; then all are taken to a thousandth of themselves.
Which of the two it is follows from the set of values, and counts are added: so the outcome is the
same for any order, and for any division of the samples.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

MAX_EXACT = 2048
"""Distinct values up to which each is counted by itself."""
_STEPS = 1024.0
"""Of a factor of two: whole numbers up to here stay what they are."""
_NUM_DECILES = 10
_COMMON = 0.05


class Sketch:
    """The values of one score: counts by value."""

    def __init__(self) -> None:
        self._counts: dict[float, int] = {}
        self.is_exact = True

    def add(self, values: Floats) -> None:
        """Count values; what is no finite number is left out."""
        distinct, counts = np.unique(values[np.isfinite(values)], return_counts=True)
        self._put(distinct, counts)

    def merge(self, other: "Sketch") -> None:
        """Count what another one has counted."""
        if not other.is_exact:
            self._round()
        self._put(other.values, other.counts)

    @property
    def num(self) -> int:
        """How many values there are."""
        return sum(self._counts.values())

    @property
    def values(self) -> Floats:
        """The distinct values, rising."""
        return np.array(sorted(self._counts), np.float64)

    @property
    def counts(self) -> Ints:
        """How often each of the distinct values is there."""
        return np.array([self._counts[value] for value in sorted(self._counts)], np.int64)

    @property
    def total(self) -> float:
        """The sum of all values."""
        return fsum(value * num for value, num in sorted(self._counts.items()))

    @property
    def mean(self) -> float:
        """The mean; there must be a value."""
        return self.total / self.num

    def quantile(self, share: float) -> float:
        """Return the lowest value with at least this share of all up to it; there must be one."""
        below = np.cumsum(self.counts)
        place = int(np.searchsorted(below, share * below[-1], side="left"))
        return float(self.values[min(place, len(below) - 1)])

    def within(self, edges: Floats) -> Ints:
        """Return how many values lie between each two edges; what is outside is in the end bins."""
        place = np.searchsorted(edges, self.values, side="right") - 1
        found = np.zeros(len(edges) - 1, np.int64)
        np.add.at(found, np.clip(place, 0, len(found) - 1), self.counts)
        return found

    def _put(self, distinct: Floats, counts: Ints) -> None:
        if not self.is_exact:
            distinct = _rounded(distinct)
        for value, num in zip(distinct.tolist(), counts.tolist(), strict=True):
            self._counts[value] = self._counts.get(value, 0) + num
        if self.is_exact and len(self._counts) > MAX_EXACT:
            self._round()

    def _round(self) -> None:
        if self.is_exact:
            values, counts = self.values, self.counts
            self.is_exact = False
            self._counts = {}
            self._put(values, counts)


def union(sketches: Iterable[Sketch]) -> Sketch:
    """Return what counts all that some others have counted."""
    found = Sketch()
    for one in sketches:
        found.merge(one)
    return found


@dataclass(frozen=True)
class Shift:
    """How far two distributions of a score are apart."""

    ks: float
    """The Kolmogorov-Smirnov distance, from 0 (the same) to 1."""
    psi: float
    """The population stability index over the deciles of the first; above 0.25 is a lot."""


def shift(before: Sketch, after: Sketch) -> Shift:
    """Return how far apart two distributions are; both must have a value."""
    if before.is_exact != after.is_exact:
        before, after = (_like(one) for one in (before, after))
    values = np.union1d(before.values, after.values)
    edges = np.append(values, np.inf)
    shares = [np.cumsum(one.within(edges)) / one.num for one in (before, after)]
    ks = float(np.abs(shares[0] - shares[1]).max())
    deciles = [before.quantile(place / _NUM_DECILES) for place in range(1, _NUM_DECILES)]
    # a value that many samples have is a bin of its own: what comes to lie below it is seen
    common = before.values[before.counts >= _COMMON * before.num]
    bins = np.unique([-np.inf, *np.nextafter(deciles, np.inf), *common, np.inf])
    parts = [
        (one.within(bins) + 0.5) / (one.num + 0.5 * (len(bins) - 1)) for one in (before, after)
    ]
    psi = float(np.sum((parts[1] - parts[0]) * np.log(parts[1] / parts[0])))
    return Shift(ks, psi)


def _like(one: Sketch) -> Sketch:
    found = union([one])
    found._round()
    return found


def _rounded(values: Floats) -> Floats:
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.round(mantissa * _STEPS) / _STEPS, exponent))


NUM_BINS = 40
_TAIL = 0.005
_LOG_FROM = 200.0
"""Of the highest shown to the lowest: from here on the axis is logarithmic."""
_REACH = 0.35
"""The share of the axis that a limit may add to it, where it left nothing out."""


@dataclass(frozen=True)
class Axis:
    """What a histogram is drawn over."""

    edges: Floats
    is_log: bool
    low: float
    high: float

    def place(self, value: float) -> float | None:
        """Return where a value stands, from 0 to 1; None outside."""
        low, high = float(self.edges[0]), float(self.edges[-1])
        if not low <= value <= high or high <= low:
            return None
        if self.is_log:
            return float(np.log(value / low) / np.log(high / low))
        return (value - low) / (high - low)


def axis_of(sketch: Sketch, marks: Sequence[float] = ()) -> Axis:
    """Return an axis for all but the outermost values of a score, and for marks near to them."""
    values = sketch.values
    low, high = sketch.quantile(_TAIL), sketch.quantile(1 - _TAIL)
    for mark in marks:
        room = _REACH * max(high - low, abs(high), 1e-9)
        if low - room <= mark <= high + room:
            low, high = min(low, mark), max(high, mark)
    if low > 0 and high / low > _LOG_FROM:
        edges = np.geomspace(low, high * (1 + 1e-9), NUM_BINS + 1)
        return Axis(edges, True, low, high)
    is_whole = bool((values == np.round(values)).all())
    if is_whole:
        width = max(1.0, float(np.ceil((high - low + 1) / NUM_BINS)))
        first = np.floor(low) - 0.5
        num_bins = max(1, int(np.ceil((high + 0.5 - first) / width)))
        return Axis(first + width * np.arange(num_bins + 1), False, low, high)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return Axis(np.linspace(low, high, NUM_BINS + 1), False, low, high)
