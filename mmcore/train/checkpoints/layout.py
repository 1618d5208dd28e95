"""Which slice of which parameter lies where: what makes a checkpoint free of its world size."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import prod

from mmcore.errors import IntegrityError
from mmcore.sample import Json


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A run of elements of one parameter, or of what belongs to it, in a tensor of one rank."""

    name: str
    """Of the parameter, as the model's state names it."""
    kind: str
    """What it is of the parameter: `weight`, `exp_avg`, `exp_avg_sq`, `ema`, `buffer`."""
    shape: tuple[int, ...]
    """Of the whole parameter, which is counted through row by row."""
    start: int
    """The first element of the whole parameter that lies here."""
    stop: int
    """The element after the last."""
    tensor: str
    """The rank's tensor that holds it, itself counted through row by row."""
    offset: int
    """The element of that tensor at which `start` lies."""

    def to_json(self) -> dict[str, Json]:
        """Return the piece as JSON."""
        return {**asdict(self), "shape": list(self.shape)}

    @staticmethod
    def from_json(value: Mapping[str, Json]) -> "Piece":
        """Read a piece; TypeError or KeyError when it is none."""
        fields: dict[str, object] = dict(value)
        fields["shape"] = tuple(value["shape"])  # type: ignore[arg-type]
        return Piece(**fields)  # type: ignore[arg-type]


def covering(
    pieces: Iterable[tuple[int, Piece]], *, name: str, kind: str, start: int, stop: int
) -> list[tuple[int, Piece]]:
    """Return (rank, piece) that hold a slice between them, cut to it and in order.

    Where ranks hold the same elements, the first of them is asked.
    """
    found = sorted(
        ((rank, piece) for rank, piece in pieces if piece.stop > start and piece.start < stop),
        key=lambda one: (one[1].start, one[0]),
    )
    taken: list[tuple[int, Piece]] = []
    reached = start
    for rank, piece in found:
        if piece.stop <= reached:
            continue
        if piece.start > reached:
            break
        upto = min(piece.stop, stop)
        offset = piece.offset + reached - piece.start
        cut = {**asdict(piece), "start": reached, "stop": upto, "offset": offset}
        taken.append((rank, Piece(**cut)))
        reached = upto
    if reached < stop:
        raise IntegrityError(
            f"no rank of the checkpoint holds the elements {reached} to {stop} of {kind} of "
            f"{name}: it was written by another model. Train again without it."
        )
    return taken


def num_elements(piece: Piece) -> int:
    """Return the elements of the whole parameter."""
    return prod(piece.shape)
