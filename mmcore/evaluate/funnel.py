"""Where the samples went: found and kept at every step between the raw corpus and the shards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmcore.core.manifest import Counts, Manifest, load_manifest
from mmcore.errors import StepError


@dataclass(frozen=True)
class Level:
    """One step of the funnel."""

    step: str
    num_found: int
    num_kept: int
    losses: tuple[tuple[str, str, int], ...]
    """(`dropped` or `quarantined`, reason, how many), the greatest loss first."""


def funnel(counted: Sequence[tuple[str, Counts]]) -> list[Level]:
    """Return a level for each step that counted samples, in the order given."""
    return [
        Level(step, counts.found, counts.kept, _losses(counts))
        for step, counts in counted
        if counts.found
    ]


def upstream_manifests(bases: Mapping[str, str], last: str) -> list[tuple[str, Manifest]]:
    """Return the manifests of a step and of all it was made from, each after its inputs.

    `bases` is `Inputs.bases`: the artifact's URL by step name.
    """
    ordered: dict[str, Manifest] = {}

    def visit(step: str) -> None:
        if step in ordered:
            return
        manifest = load_manifest(bases[step])
        if manifest is None:
            raise StepError(
                f"the artifact of {step} at {bases[step]} has gone while it was in use. "
                "Run the same command again: it will be made anew."
            )
        inputs = manifest.identity.get("inputs")
        for name in sorted(inputs) if isinstance(inputs, dict) else ():
            if name in bases:
                visit(name)
        ordered[step] = manifest

    visit(last)
    return list(ordered.items())


def _losses(counts: Counts) -> tuple[tuple[str, str, int], ...]:
    kinds = (("dropped", counts.dropped), ("quarantined", counts.quarantined))
    losses = [(kind, reason, num) for kind, lost in kinds for reason, num in lost.items()]
    return tuple(sorted(losses, key=lambda loss: (-loss[2], loss[0], loss[1])))
