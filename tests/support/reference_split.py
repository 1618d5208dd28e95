"""How a split was decided before rules saw columns: every sample at once, in plain Python.

The reference that `GroupSplit` is held to, for samples and increments small enough.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mmcore.core.linkage import values_of
from mmcore.sample import Dropped, Outcome, Sample

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class ReferenceSplit:
    """Union-find over all samples there ever were."""

    together: tuple[str, ...]
    fractions: Mapping[str, float] = field(
        default_factory=lambda: {"train": 0.7, "val": 0.1, "test": 0.2}
    )
    seed: int = 0
    stratify: str = ""

    def decide(self, samples: Sequence[Sample], known: Sequence[Sample] = ()) -> Iterator[Outcome]:
        """Yield one outcome per sample; `known` are those that earlier increments kept."""
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
        for name in together:
            for value in values_of(sample, name):
                low, high = sorted((root(first_with.setdefault((name, value), index)), root(index)))
                parents[high] = low
    return [samples[root(index)].key for index in range(len(samples))]
