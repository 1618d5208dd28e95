"""Splits that do not leak: whatever is linked stays on one side."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mmcore.core.linkage import Leak, check_names, leaks, values_of
from mmcore.core.stage import CorpusRule
from mmcore.errors import ConfigError
from mmcore.sample import Dropped, Outcome, Sample

__all__ = ["SPLITS", "GroupSplit", "Leak", "leaks"]

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class GroupSplit(CorpusRule):
    """Give every sample a split and a group; samples with anything named in common share both.

    Links are transitive: a group is a connected component. Where a group goes depends on the seed
    and its lowest key and, when stratified, on the other groups of its class; never on order.

    What earlier increments were given stands, also for a sample that has changed since. A newcomer
    joins the group that it is linked to. One that is linked to groups of two splits joins neither:
    it is dropped as `twins_in_two_splits`.
    """

    remembers_what_changed = True
    together: tuple[str, ...]
    """Any one equal value links two samples: `image`, `audio`, `meta:caption`."""
    fractions: Mapping[str, float] = field(
        default_factory=lambda: {"train": 0.7, "val": 0.1, "test": 0.2}
    )
    """Of the samples, by split: `train`, `val`, `test`. They sum to 1."""
    seed: int = 0
    stratify: str = ""
    """`meta:label` holds the fractions within each class; empty leaves it to chance."""

    def __post_init__(self) -> None:
        check_names(self.together, field="group_split.together")
        if self.stratify:
            check_names([self.stratify], field="group_split.stratify")
        _check_fractions(self.fractions)

    def decide(self, samples: Sequence[Sample], known: Sequence[Sample] = ()) -> Iterator[Outcome]:
        ordered = sorted(samples, key=lambda sample: sample.key)
        settled = sorted(known, key=lambda sample: sample.key)
        groups = _group_ids([*settled, *ordered], self.together)
        joined: dict[str, dict[str, str]] = defaultdict(dict)
        for sample, group in zip(settled, groups, strict=False):
            joined[group].setdefault(str(sample.meta["split"]), str(sample.meta["split_group"]))
        newcomers = list(zip(ordered, groups[len(settled) :], strict=True))
        alone = [(sample, group) for sample, group in newcomers if group not in joined]
        splits = self._split_of_groups(alone, settled)
        for sample, group in newcomers:
            if group not in joined:
                yield sample.with_meta(split=splits[group], split_group=group)
            elif len(joined[group]) == 1:
                ((split, old),) = joined[group].items()
                yield sample.with_meta(split=split, split_group=old)
            else:
                found = ", ".join(
                    f"{old} in {split}" for split, old in sorted(joined[group].items())
                )
                yield Dropped(sample, "twins_in_two_splits", f"linked to {found}")

    def _split_of_groups(
        self, newcomers: Sequence[tuple[Sample, str]], settled: Sequence[Sample]
    ) -> dict[str, str]:
        if not self.stratify:
            return {group: self._by_threshold(group) for _, group in newcomers}
        classes: dict[str, Counter[str]] = defaultdict(Counter)
        for sample, group in newcomers:
            classes[group][self._class_of(sample)] += 1
        placed: dict[str, Counter[str]] = defaultdict(Counter)
        for sample in settled:
            placed[self._class_of(sample)][str(sample.meta["split"])] += 1
        groups_of: dict[str, list[str]] = defaultdict(list)
        for group, found in classes.items():
            # a group may span classes: it counts for its commonest one, the lowest name on a tie
            groups_of[min(found, key=lambda name: (-found[name], name))].append(group)
        sizes = {group: found.total() for group, found in classes.items()}
        splits: dict[str, str] = {}
        for name, members in groups_of.items():
            splits |= self._by_deficit({group: sizes[group] for group in members}, placed[name])
        return splits

    def _class_of(self, sample: Sample) -> str:
        return " ".join(values_of(sample, self.stratify))

    def _by_threshold(self, group: str) -> str:
        point = int.from_bytes(self._hash(group)[:8]) / 2**64
        splits = [name for name in SPLITS if name in self.fractions]
        reached = 0.0
        for split in splits[:-1]:
            reached += self.fractions[split]
            if point < reached:
                return split
        return splits[-1]

    def _by_deficit(self, sizes: Mapping[str, int], placed: Mapping[str, int]) -> dict[str, str]:
        """Send each group where the most samples are missing, groups in the order of their hash."""
        total = sum(sizes.values()) + sum(placed.values())
        splits = [name for name in SPLITS if name in self.fractions]
        missing = {split: self.fractions[split] * total - placed.get(split, 0) for split in splits}
        chosen = {}
        for group in sorted(sizes, key=self._hash):
            split = max(splits, key=lambda name: missing[name])
            missing[split] -= sizes[group]
            chosen[group] = split
        return chosen

    def _hash(self, group: str) -> bytes:
        return hashlib.sha256(f"{self.seed}\0{group}".encode()).digest()


def _check_fractions(fractions: Mapping[str, float]) -> None:
    unknown = sorted(fractions.keys() - set(SPLITS))
    if unknown:
        raise ConfigError(
            f"group_split.fractions names {', '.join(unknown)}. Splits are {', '.join(SPLITS)}."
        )
    wrong = {name: value for name, value in sorted(fractions.items()) if not 0 < value <= 1}
    if wrong:
        raise ConfigError(
            f"group_split.fractions: {wrong} is not above 0 and at most 1. Leave a split out when "
            "it is not wanted."
        )
    total = sum(fractions.values())
    if not math.isclose(total, 1, abs_tol=1e-9):
        raise ConfigError(
            f"group_split.fractions sum to {total:g}, not 1: {dict(fractions)}. "
            f"{1 - total:+g} on one of them would do."
        )


def _group_ids(samples: Sequence[Sample], together: Sequence[str]) -> list[str]:
    """Return the group of each sample: the lowest key of its connected component.

    Union-find with the lowest index as the root; the samples are sorted by key.
    """
    parents = list(range(len(samples)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    first_with: dict[tuple[str, str], int] = {}
    for index, sample in enumerate(samples):
        values = [(name, value) for name in together for value in values_of(sample, name)]
        # a sample and what it was before it changed are one
        for value in [("", sample.key), *values]:
            low, high = sorted((root(first_with.setdefault(value, index)), root(index)))
            parents[high] = low
    return [samples[root(index)].key for index in range(len(samples))]
