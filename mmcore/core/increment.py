"""What a run builds on: nothing, or the newest dataset version that the same recipe made.

An increment takes what is new or changed alone through every step and publishes a dataset version
whose old shards are the old ones; what changed, vanished or is to be forgotten is tombstoned there.
A recipe that changed makes a dataset from the ground up. Decided from committed manifests and the
ledger of what is to be forgotten: with the same increments in the same order, another root comes to
the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from mmcore.core.change import INGEST_STEP, Change
from mmcore.core.forgotten import NOTHING, Forgotten, digest_of
from mmcore.core.lineage import (
    SHARD_STEP,
    DatasetVersion,
    dataset_versions,
    find_dataset,
    held,
    increment_versions,
    increments,
    made_increment,
)
from mmcore.core.source import SCAN_STEP
from mmcore.core.step import Artifact, Step, canonical_json

Compare = Callable[[Artifact, Artifact], Change]
"""How one scan differs from an earlier one."""


@dataclass(frozen=True)
class Ground:
    """Where an increment stands."""

    scan: Artifact
    """The raw corpus, without files that came since and form no sample."""
    base: DatasetVersion | None = None
    """The dataset version that is built on; None for the first increment."""
    change: Change | None = None
    """What is to be done to the base; None where that is not what happens."""
    root: str = ""
    name: str = ""
    """Of the dataset."""
    forgotten: Forgotten = NOTHING
    """What nobody may read."""
    obeyed: str | None = None
    """What stands for the samples that are not taken in: of a version that is there already, what
    was known when it was made."""
    settled: str | None = None
    """The fingerprint of the version whose splits are held on to, where it is not built on."""

    @property
    def num_new(self) -> int | None:
        """New and changed samples to be added to the base; None where nothing is."""
        return None if self.change is None else self.change.num_to_learn

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
    def hidden_in_first(self) -> str | None:
        """What stands for those samples of the first increment that nobody may read any more."""
        if SHARD_STEP not in self.first:
            return None
        hidden = held(self.first[SHARD_STEP], self.forgotten.keys)
        return digest_of(hidden) if hidden else None

    @cached_property
    def history(self) -> tuple[Mapping[str, Artifact], ...]:
        """What made each increment up to the base, by step, the first one first."""
        return tuple(increments(self.root, self.base)) if self.base else ()

    @cached_property
    def settled_made(self) -> Mapping[str, Artifact]:
        """What made the newest increment of the version whose splits are held on to, by step."""
        if self.settled is None:
            return {}
        return made_increment(self.root, self.name, self.settled[:16])


def stand(name: str, steps: tuple[Step, ...], ground: Ground, compare: Compare) -> Ground:
    """Return what a run of these steps over a scanned corpus builds on.

    A version that was made of this very scan stands where it stood, unless it holds something that
    is to be forgotten. Otherwise the newest version that the same steps made is built on, if
    anything of it stays.
    """
    root, scan = ground.root, ground.scan
    able: list[tuple[DatasetVersion, Artifact]] = []
    for version in reversed(dataset_versions(root, name)):
        made = made_increment(root, name, version.version)
        if not made or not _is_made_by(made, steps):
            continue
        is_of_this_scan = made[SCAN_STEP].manifest.fingerprint == scan.manifest.fingerprint
        if is_of_this_scan and not held(version.artifact, ground.forgotten.keys):
            return _as_it_stood(version, made, ground)
        able.append((version, made[SCAN_STEP]))
    for version, before in able:
        pending = sorted(held(version.artifact, ground.forgotten.keys))
        change = replace(compare(before, scan), forgotten=tuple(pending))
        if not change:
            made = made_increment(root, name, version.version)
            return _as_it_stood(version, made, replace(ground, scan=before))
        if change.num_left and increments(root, version):
            return replace(ground, base=version, change=change)
    return ground


def _as_it_stood(version: DatasetVersion, made: Mapping[str, Artifact], ground: Ground) -> Ground:
    *earlier, _ = increment_versions(version)
    base = find_dataset(ground.root, f"{version.name}/{earlier[-1]}") if earlier else None
    settled: Any = next(
        (one.manifest.identity["settled"] for one in made.values() if _has_settled(one)), None
    )
    obeyed: Any = made[INGEST_STEP].manifest.identity.get("forgotten")
    return replace(ground, base=base, obeyed=obeyed, settled=settled)


def _has_settled(artifact: Artifact) -> bool:
    return "settled" in artifact.manifest.identity


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
