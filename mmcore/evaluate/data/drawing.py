"""Histograms as rectangles in a space 100 wide and 100 high, for a page to draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmcore.evaluate.data.limits import Limit
from mmcore.evaluate.data.sketch import Axis, Floats, Ints, Sketch, axis_of, union

_LEAST = 1.5
"""The height of the lowest bar: one sample of a million is still seen."""


@dataclass(frozen=True)
class Bar:
    """A rectangle."""

    kind: str
    x: float
    width: float
    y: float
    height: float


@dataclass(frozen=True)
class Line:
    """A limit, and where it stands; None where that is not on the axis."""

    limit: Limit
    x: float | None


@dataclass(frozen=True)
class Histogram:
    """A score, drawn."""

    bars: tuple[Bar, ...]
    lines: tuple[Line, ...]
    axis: Axis
    most: int
    """Samples in the highest bar."""


def stacked(kinds: Mapping[str, Sketch], limits: Sequence[Limit]) -> Histogram:
    """Return a histogram of all kinds, those that come first at the bottom."""
    marks = [limit.value for limit in limits]
    if "refused" in kinds:
        # what a limit refuses may be less than what an axis leaves out
        marks += [float(kinds["refused"].values[end]) for end in (0, -1)]
    axis = axis_of(union(kinds.values()), marks)
    counts = {kind: sketch.within(axis.edges) for kind, sketch in kinds.items()}
    most = int(np.sum(list(counts.values()), axis=0).max())
    bars: list[Bar] = []
    floor = np.zeros(len(axis.edges) - 1)
    for kind, found in counts.items():
        heights = _heights(found, most)
        bars += _bars(kind, heights, floor)
        floor = floor + heights
    lines = tuple(Line(limit, _percent(axis.place(limit.value))) for limit in limits)
    return Histogram(tuple(bars), lines, axis, most)


def overlaid(before: Sketch, after: Sketch) -> Histogram:
    """Return two histograms in one place, each as shares of its own samples."""
    axis = axis_of(union([before, after]))
    shares = {
        kind: sketch.within(axis.edges) / sketch.num
        for kind, sketch in (("before", before), ("after", after))
    }
    most = max(float(share.max()) for share in shares.values())
    bars: list[Bar] = []
    for kind, share in shares.items():
        heights = np.where(share > 0, np.maximum(100 * share / most, _LEAST), 0.0)
        bars += _bars(kind, heights, np.zeros(len(share)))
    return Histogram(tuple(bars), (), axis, 0)


def _heights(counts: Ints, most: int) -> Floats:
    return np.where(counts > 0, np.maximum(100.0 * counts / most, _LEAST), 0.0)


def _bars(kind: str, heights: Floats, floor: Floats) -> list[Bar]:
    width = 100 / len(heights)
    return [
        Bar(
            kind,
            round(place * width + 0.06 * width, 3),
            round(0.88 * width, 3),
            round(max(0.0, 100 - bottom - height), 3),
            round(min(height, 100 - bottom), 3),
        )
        for place, (height, bottom) in enumerate(zip(heights.tolist(), floor.tolist(), strict=True))
        if height > 0 and bottom < 100
    ]


def _percent(place: float | None) -> float | None:
    return None if place is None else round(100 * place, 3)
