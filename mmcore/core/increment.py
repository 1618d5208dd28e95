"""What a run builds on: nothing, or the newest dataset version to which files were only added.

An increment takes the new samples alone through every step and publishes a dataset version whose
old shards are the old ones. What changed or vanished at the source, or a recipe that changed, makes
a dataset from the ground up. Decided from committed manifests alone: with the same increments in
the same order, another root comes to the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from mmcore.core.lineage import (
    DatasetVersion,
    dataset_versions,
    find_dataset,
    increment_versions,
    increments,
    made_increment,
)
from mmcore.core.source import SCAN_STEP
from mmcore.core.step import Artifact, Step, canonical_json

CountNew = Callable[[Artifact, Artifact], int | None]
"""How many samples one scan has more than an earlier one; None unless it only has more."""


@dataclass(frozen=True)
class Ground:
    """Where an increment stands."""

    scan: Artifact
    """The raw corpus, without files that came since and form no sample."""
    base: DatasetVersion | None = None
    """The dataset version that is built on; None for the first increment."""
    num_new: int | None = None
    """Samples to be added to the base; None where that is not what happens."""
    root: str = ""

    @property
    def fingerprint(self) -> str | None:
        """The base's identity."""
        return self.base.artifact.manifest.fingerprint if self.base else None

    @cached_property
    def first(self) -> Mapping[str, Artifact]:
        """What made the first increment, by step; empty while this is the first."""
        if self.base is None:
            return {}
        return made_increment(self.root, self.base.name, increment_versions(self.base)[0])

    @cached_property
    def history(self) -> tuple[Mapping[str, Artifact], ...]:
        """What made each increment up to the base, by step, the first one first."""
        return tuple(increments(self.root, self.base)) if self.base else ()


def stand(name: str, steps: tuple[Step, ...], root: str, scan: Artifact, count: CountNew) -> Ground:
    """Return what a run of these steps over a scanned corpus builds on.

    A version that was made of this very scan stands where it stood. Otherwise the newest version
    that may grow into it is built on.
    """
    able: list[tuple[DatasetVersion, Artifact]] = []
    for version in reversed(dataset_versions(root, name)):
        made = made_increment(root, name, version.version)
        if not made or not _is_made_by(made, steps):
            continue
        if made[SCAN_STEP].manifest.fingerprint == scan.manifest.fingerprint:
            return _as_it_stood(version, scan, root)
        able.append((version, made[SCAN_STEP]))
    for version, before in able:
        num_new = count(before, scan)
        if num_new == 0:
            return _as_it_stood(version, before, root)
        if num_new is not None and increments(root, version):
            return Ground(scan, version, num_new, root)
    return Ground(scan)


def _as_it_stood(version: DatasetVersion, scan: Artifact, root: str) -> Ground:
    *earlier, _ = increment_versions(version)
    base = find_dataset(root, f"{version.name}/{earlier[-1]}") if earlier else None
    return Ground(scan, base, root=root)


def _is_made_by(increment: Mapping[str, Artifact], steps: tuple[Step, ...]) -> bool:
    """Whether the steps that made an increment are configured as they are now."""
    now = {step.name: step for step in steps}
    made = {name: artifact for name, artifact in increment.items() if name != SCAN_STEP}
    return made.keys() <= now.keys() and all(
        canonical_json(artifact.manifest.identity["work"])
        == canonical_json(dict(now[name].work.identity()))
        and set(now[name].inputs) == set(_inputs(artifact))
        for name, artifact in made.items()
    )


def _inputs(artifact: Artifact) -> Mapping[str, object]:
    inputs = artifact.manifest.identity["inputs"]
    assert isinstance(inputs, dict), "a manifest names its inputs"
    return inputs
