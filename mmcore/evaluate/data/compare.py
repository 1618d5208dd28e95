"""What a dataset version has gained, lost and changed since another, and how its scores moved."""

from dataclasses import dataclass

import numpy as np

from mmcore.evaluate.data.contents import Contents
from mmcore.evaluate.data.sketch import Shift, Sketch, shift


@dataclass(frozen=True)
class ScoreDrift:
    """A score on both sides."""

    score: str
    before: Sketch
    after: Sketch
    shift: Shift


@dataclass(frozen=True)
class Drift:
    """How a version differs from the one before."""

    num_before: int
    num_after: int
    num_added: int
    num_removed: int
    num_changed: int
    """Samples of both versions of which a part or the metadata is another."""
    num_moved: int
    """Samples of both versions that are in another split."""
    scores: tuple[ScoreDrift, ...]
    """Those that both have, what moved most first."""
    only_before: tuple[str, ...]
    """Scores that nothing has any more."""
    only_after: tuple[str, ...]


def compare(before: Contents, after: Contents) -> Drift:
    """Return how a version differs from another; a sample is the same under its key."""
    _, old, new = np.intersect1d(before.keys, after.keys, assume_unique=True, return_indices=True)
    both = sorted(before.scores.keys() & after.scores.keys())
    moved = [
        ScoreDrift(name, one, other, shift(one, other))
        for name in both
        if (one := before.scores[name]).num and (other := after.scores[name]).num
    ]
    return Drift(
        num_before=before.num_samples,
        num_after=after.num_samples,
        num_added=after.num_samples - len(new),
        num_removed=before.num_samples - len(old),
        num_changed=int((before.digests[old] != after.digests[new]).sum()),
        num_moved=int((before.splits[old] != after.splits[new]).sum()),
        scores=tuple(sorted(moved, key=lambda one: (-one.shift.psi, one.score))),
        only_before=tuple(sorted(before.scores.keys() - after.scores.keys())),
        only_after=tuple(sorted(after.scores.keys() - before.scores.keys())),
    )
