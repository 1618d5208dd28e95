"""The folds of a cross-validation: what would be learned from, in parts that do not leak.

A fold is held out under the split `fold`; of the rest, as large a share as the dataset gives to
`val` is for watching the training. Whatever the split step keeps on one side is never in two parts.
The test split is not in it at all.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from mmcore.core.linkage import META_PREFIX
from mmcore.errors import ConfigError, StepError
from mmcore.load.dataset import Entry
from mmcore.sample import modality_of

FOLD_SPLIT = "fold"
_GROUP = "split_group"
_LEARNED_FROM = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One of the trainings of a cross-validation; `mm crossvalidate` sets it."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    number: int
    """Which part is held out, from 0."""
    of: int
    """How many parts there are."""
    seed: int = 0
    together: tuple[str, ...] = ()
    """As in the split: any one equal value keeps two samples in one part."""
    stratify: str = ""
    """As in the split: `meta:label` holds the shares within each class."""

    def __post_init__(self) -> None:
        if self.of < 2:
            raise ConfigError(f"loader.fold.of={self.of}. Use 2 or more.")
        if not 0 <= self.number < self.of:
            raise ConfigError(
                f"loader.fold.number={self.number}: of {self.of} folds the last is {self.of - 1}."
            )

    def apply(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the samples that are learned from or held out, each with its split."""
        found = [entry for entry in entries if entry.info.split in _LEARNED_FROM]
        groups = [_Group(some, self.stratify) for some in _components(found, self.together)]
        if len(groups) < self.of:
            raise StepError(
                f"{len(found)} samples for training and validation hang together in {len(groups)} "
                f"groups, too few for {self.of} folds. Use fewer, or more data."
            )
        fold_of = _dealt(groups, [1 / self.of] * self.of, f"{self.seed}/folds")
        held = [one for one, fold in zip(groups, fold_of, strict=True) if fold == self.number]
        rest = [one for one, fold in zip(groups, fold_of, strict=True) if fold != self.number]
        share = sum(entry.info.split == "val" for entry in found) / len(found)
        side_of = _dealt(rest, [1 - share, share], f"{self.seed}/fold {self.number}")
        split_of = {entry.info.key: FOLD_SPLIT for one in held for entry in one.entries}
        for one, side in zip(rest, side_of, strict=True):
            split_of |= {entry.info.key: _LEARNED_FROM[side] for entry in one.entries}
        return [_moved(entry, split_of[entry.info.key]) for entry in found]


class _Group:
    """Samples that hang together."""

    def __init__(self, entries: Sequence[Entry], stratify: str) -> None:
        self.entries = entries
        self.name = min(entry.info.key for entry in entries)
        counts = Counter(word for entry in entries for word in _values(entry, stratify))
        self.word = min(counts, key=lambda word: (-counts[word], word), default="")


def _moved(entry: Entry, split: str) -> Entry:
    return replace(entry, info=replace(entry.info, split=split))


def _components(entries: Sequence[Entry], together: Sequence[str]) -> list[list[Entry]]:
    """Return the samples in parts that share no group and no value, by their lowest keys."""
    parent = list(range(len(entries)))

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    first: dict[tuple[str, str], int] = {}
    # groups of two increments may be one by a value that a newcomer shares with both
    for name in (META_PREFIX + _GROUP, *together):
        for number, entry in enumerate(entries):
            for value in _values(entry, name):
                parent[root(number)] = root(first.setdefault((name, value), number))
    found: dict[int, list[Entry]] = {}
    for number, entry in enumerate(entries):
        found.setdefault(root(number), []).append(entry)
    return sorted(found.values(), key=lambda some: min(entry.info.key for entry in some))


def _values(entry: Entry, name: str) -> Iterator[str]:
    if name.startswith(META_PREFIX):
        value = entry.info.meta.get(name.removeprefix(META_PREFIX))
        if value not in (None, ""):
            yield str(value)
    elif name:
        yield from (ref.sha256 for ext, ref in entry.parts.items() if modality_of(ext) == name)


def _dealt(groups: Sequence[_Group], shares: Sequence[float], seed: str) -> list[int]:
    """Return the part of each group: large ones first, each where the most of its class is missing.

    Where parts miss as much of the class, the one that misses the most of all has it.
    """
    missing: dict[str, list[float]] = {}
    total = [0.0] * len(shares)
    for one in groups:
        of_word = missing.setdefault(one.word, [0.0] * len(shares))
        for part, share in enumerate(shares):
            of_word[part] += share * len(one.entries)
            total[part] += share * len(one.entries)
    dealt = [0] * len(groups)
    order = sorted(range(len(groups)), key=lambda at: _turn(groups[at], seed))
    for at in order:
        size, of_word = len(groups[at].entries), missing[groups[at].word]
        part = max(range(len(shares)), key=lambda one: (of_word[one], total[one]))
        of_word[part] -= size
        total[part] -= size
        dealt[at] = part
    return dealt


def _turn(group: _Group, seed: str) -> tuple[int, bytes]:
    return -len(group.entries), hashlib.sha256(f"{seed}\0{group.name}".encode()).digest()
