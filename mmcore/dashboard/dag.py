"""Where the boxes and lines of a run's graph go; the template draws them as SVG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NODE_WIDTH, NODE_HEIGHT = 106, 64
_GAP_X, _GAP_Y, _MARGIN = 16, 12, 2


@dataclass(frozen=True)
class Box:
    """A step's place."""

    name: str
    x: int
    y: int


@dataclass(frozen=True)
class Drawing:
    """A laid out graph."""

    width: int
    height: int
    boxes: Sequence[Box]
    lines: Sequence[tuple[str, str, str]]
    """(from, to, the path of an SVG `d` attribute)."""


def draw(inputs: Mapping[str, Sequence[str]]) -> Drawing:
    """Lay out a graph from left to right: a step stands right of everything that it reads.

    `inputs` is in the order of the run. What a step reads through another step is not drawn.
    """
    column: dict[str, int] = {}
    for name, parents in inputs.items():
        column[name] = max(
            (column[parent] + 1 for parent in parents if parent in column), default=0
        )
    by_column: dict[int, list[str]] = {}
    for name in inputs:
        by_column.setdefault(column[name], []).append(name)
    tallest = max((len(names) for names in by_column.values()), default=1)
    height = 2 * _MARGIN + tallest * NODE_HEIGHT + (tallest - 1) * _GAP_Y
    boxes = {}
    for index, names in sorted(by_column.items()):
        used = len(names) * NODE_HEIGHT + (len(names) - 1) * _GAP_Y
        top = (height - used) // 2
        for row, name in enumerate(names):
            x = _MARGIN + index * (NODE_WIDTH + _GAP_X)
            boxes[name] = Box(name, x, top + row * (NODE_HEIGHT + _GAP_Y))
    lines = [
        (parent, name, _path(boxes[parent], boxes[name]))
        for name, parents in inputs.items()
        for parent in _direct(name, parents, inputs)
    ]
    width = 2 * _MARGIN + len(by_column) * NODE_WIDTH + max(0, len(by_column) - 1) * _GAP_X
    return Drawing(width, height, list(boxes.values()), lines)


def _direct(
    name: str, parents: Sequence[str], inputs: Mapping[str, Sequence[str]]
) -> Sequence[str]:
    known = [parent for parent in parents if parent in inputs]
    return [
        parent
        for parent in known
        if not any(other != parent and _reaches(parent, other, inputs) for other in known)
    ]


def _reaches(ancestor: str, name: str, inputs: Mapping[str, Sequence[str]]) -> bool:
    pending, seen = list(inputs.get(name, ())), set()
    while pending:
        current = pending.pop()
        if current == ancestor:
            return True
        if current not in seen:
            seen.add(current)
            pending.extend(inputs.get(current, ()))
    return False


def _path(start: Box, end: Box) -> str:
    x1, y1 = start.x + NODE_WIDTH, start.y + NODE_HEIGHT // 2
    x2, y2 = end.x, end.y + NODE_HEIGHT // 2
    bend = max(8, (x2 - x1) // 2)
    return f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
