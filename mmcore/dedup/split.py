"""Splits that do not leak: whatever is linked stays on one side."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from mmcore.core.change import ended
from mmcore.core.columns import Corpus, Flags, Ints, Key, Values, Want, Word
from mmcore.core.linkage import check_names
from mmcore.core.near_index import remember
from mmcore.core.near_limits import Limits
from mmcore.core.nearness import near_graph
from mmcore.core.shelf import Shelf
from mmcore.core.sorted_runs import SortedRuns
from mmcore.core.stage import CorpusRule, Verdict
from mmcore.dedup.classes import SPLITS, add_counts, read_counts, take_counts
from mmcore.dedup.groups import Group, Joined, Member, join_groups, known_members, remember_links
from mmcore.dedup.held_out import HeldOut, read_held_out
from mmcore.errors import ConfigError
from mmcore.sample import Dropped, Json, Outcome, Sample

TRAIN = "train"


@dataclass(frozen=True, kw_only=True)
class GroupSplit(CorpusRule):
    """Give every sample a split and a group; samples with anything named in common share both.

    Links are transitive: a group is a connected component. Where a group goes depends on the seed
    and its lowest key and, when stratified, on the other groups of its class; never on order.

    What earlier increments were given stands, also for a sample that has changed since. A newcomer
    joins the group that it is linked to. One that is linked to groups of two splits joins neither:
    it is dropped as `twins_in_two_splits`.
    """

    together: tuple[str, ...]
    """Any one equal value links two samples: `image`, `audio`, `meta:caption`."""
    max_distance: Mapping[str, int] = field(default_factory=dict)
    """Near samples are linked as well: as in `near_duplicates`, for `image` and `video`."""
    min_similarity: Mapping[str, float] = field(default_factory=dict)
    """As in `near_duplicates`, for `text`, `audio` and `meta:<field>`."""
    fractions: Mapping[str, float] = field(
        default_factory=lambda: {"train": 0.7, "val": 0.1, "test": 0.2}
    )
    """Of the samples, by split: `train`, `val`, `test`. They sum to 1."""
    seed: int = 0
    stratify: str = ""
    """`meta:label` holds the fractions within each class; empty leaves it to chance."""
    held_out: str = ""
    """A file of keys and SHA-256, one per line, or a folder of files: neither they nor what is
    linked to them is trained on. They go to `test`, or to `val` where there is no `test`."""

    code_version = 2

    def __post_init__(self) -> None:
        check_names(self.together, field="group_split.together")
        self._limits.check("group_split")
        if self.stratify:
            check_names([self.stratify], field="group_split.stratify")
        _check_fractions(self.fractions)
        if self.held_out:
            if self.fractions.keys() <= {TRAIN}:
                raise ConfigError(
                    "group_split.held_out needs a split that is not trained on: give `test` or "
                    "`val` a fraction."
                )
            # read where the recipe is: tasks may run on a machine that has no such file
            self.__dict__["_listed"] = read_held_out(self.held_out)

    @property
    def _limits(self) -> Limits:
        return Limits(self.max_distance, self.min_similarity)

    @property
    def _held(self) -> HeldOut | None:
        held: HeldOut | None = self.__dict__.get("_listed")
        return held

    def identity(self) -> dict[str, Json]:
        listed = self._held.fingerprint if self._held else ""
        return {**super().identity(), "held_out": listed}

    def wants(self) -> tuple[Want, ...]:
        return (
            Key(),
            *map(Values, self.together),
            *self._limits.wants(),
            *([Word(self.stratify)] if self.stratify else []),
            *([self._held] if self._held else []),
        )

    def decide(self, corpus: Corpus, shelf: Shelf) -> Verdict:
        graph = near_graph(corpus, self._limits, partial(SortedRuns, shelf))
        joined = join_groups(corpus, self.together, graph, shelf)
        roots = joined.roots
        is_held = self._held_groups(corpus, roots)
        alone = np.flatnonzero((roots == np.arange(corpus.num_rows)) & (joined.place_of < 0))
        split_of = np.full(corpus.num_rows, -1, np.int8)
        split_of[alone] = self._split_of_groups(corpus, roots, alone, is_held, shelf)
        return _Verdict(corpus, joined, tuple(self._splits), split_of[roots], is_held[roots])

    def forget(self, gone: Mapping[str, str], shelf: Shelf) -> None:
        # what it was linked to before it changed still holds a sample where it is
        over = ended(gone)
        if self.stratify:
            _take(shelf, known_members(shelf, over))
        super().forget(over, shelf)

    def remember(self, corpus: Corpus, verdict: Verdict, kept: Flags, shelf: Shelf) -> None:
        assert isinstance(verdict, _Verdict), "decide made it"
        class_of, words = np.empty(0, np.int64), [""]
        if self.stratify:
            class_of, words = _classes(corpus, self.stratify)
            _take(shelf, known_members(shelf, verdict.joined.again(kept)))
            splits = verdict.splits_of(np.flatnonzero(kept))
            add_counts(shelf, class_of[kept], words, splits)
        remember_links(
            corpus,
            verdict.joined,
            self.together,
            verdict.group,
            lambda row: words[class_of[row]] if self.stratify else "",
            kept,
            shelf,
        )
        remember(
            corpus,
            self._limits,
            kept,
            lambda row: verdict.group(row).label(corpus.key(row)),
            partial(SortedRuns, shelf),
        )

    def _held_groups(self, corpus: Corpus, roots: Ints) -> Flags:
        """Return which groups have a member that is held out, by their root."""
        found = np.zeros(corpus.num_rows, bool)
        if self._held:
            found[roots[corpus[self._held].rows]] = True
        return found

    @property
    def _splits(self) -> list[str]:
        return [name for name in SPLITS if name in self.fractions]

    def _split_of_groups(
        self, corpus: Corpus, roots: Ints, alone: Ints, is_held: Flags, shelf: Shelf
    ) -> Ints:
        """Return the number of the split of each group that joins none of old."""
        splits = self._splits
        kept_from = splits.index("test" if "test" in splits else splits[-1])
        chosen = np.full(len(alone), kept_from, np.int64)
        free = np.flatnonzero(~is_held[alone])
        if not self.stratify:
            for at in free.tolist():
                chosen[at] = self._by_threshold(corpus.key(int(alone[at])))
            return chosen
        numbers, words = _classes(corpus, self.stratify)
        placed = read_counts(shelf)
        class_of, sizes = _commonest(numbers, roots, alone, len(words))
        order = np.argsort(class_of, kind="stable")
        first = np.flatnonzero(np.diff(class_of[order], prepend=-1))
        for members in np.split(order, first[1:]) if len(order) else ():
            counts = placed.get(words[int(class_of[members[0]])], {})
            self._by_deficit(corpus, alone, members, sizes, counts, is_held, chosen)
        return chosen

    def _by_threshold(self, group: str) -> int:
        point = int.from_bytes(self._hash(group)[:8]) / 2**64
        splits = self._splits
        reached = 0.0
        for number, split in enumerate(splits[:-1]):
            reached += self.fractions[split]
            if point < reached:
                return number
        return len(splits) - 1

    def _by_deficit(
        self,
        corpus: Corpus,
        groups: Ints,
        members: Ints,
        sizes: Ints,
        placed: Mapping[str, int],
        is_held: Flags,
        chosen: Ints,
    ) -> None:
        """Send each group where the most samples are missing, groups in the order of their hash."""
        total = int(sizes[members].sum()) + sum(placed.values())
        splits = self._splits
        missing = [self.fractions[split] * total - placed.get(split, 0) for split in splits]
        held = is_held[groups[members]]
        for at in members[held].tolist():
            missing[chosen[at]] -= int(sizes[at])
        free = members[~held]
        hashes = b"".join(self._hash(corpus.key(row))[:16] for row in groups[free].tolist())
        words = np.frombuffer(hashes, ">u8").reshape(-1, 2)
        numbers = range(len(splits))
        for at in free[np.lexsort((words[:, 1], words[:, 0]))].tolist():
            number = max(numbers, key=missing.__getitem__)
            missing[number] -= int(sizes[at])
            chosen[at] = number

    def _hash(self, group: str) -> bytes:
        return hashlib.sha256(f"{self.seed}\0{group}".encode()).digest()


@dataclass(frozen=True)
class _Verdict:
    corpus: Corpus
    joined: Joined
    splits: tuple[str, ...]
    split_of: np.ndarray[Any, np.dtype[np.int8]]
    """The number of the split of each row that joins no group of old, or -1."""
    is_held: Flags
    """Which rows are held out, or linked to one that is."""

    @cached_property
    def _problems(self) -> Mapping[int, str]:
        """The places of old that nobody can join."""
        found = {}
        for number, place in enumerate(self.joined.places):
            if len(place.joins) > 1:
                pairs = sorted(place.joins.items())
                said = ", ".join(f"{group} in {split}" for split, group in pairs)
                found[number] = f"linked to {said}"
        return found

    @cached_property
    def kept(self) -> Flags:
        place_of = self.joined.place_of
        two = np.zeros(len(self.joined.places) + 1, bool)
        two[list(self._problems)] = True
        in_train = np.array([TRAIN in place.joins for place in self.joined.places] + [False])
        # place -1 is the last: none
        return np.asarray(~two[place_of] & ~(in_train[place_of] & self.is_held))

    def group(self, row: int) -> Group:
        """Return the split and group of a row that is kept."""
        place = int(self.joined.place_of[row])
        if place < 0:
            key = self.corpus.key(int(self.joined.roots[row]))
            return Group(self.splits[int(self.split_of[row])], key)
        ((split, name),) = self.joined.places[place].joins.items()
        return Group(split, name)

    def splits_of(self, rows: Ints) -> Ints:
        """Return the number in `SPLITS` of the split of each of some rows that are kept."""
        own = np.array([SPLITS.index(name) for name in self.splits])
        joins = [SPLITS.index(min(place.joins)) for place in self.joined.places]
        places = self.joined.place_of[rows]
        return np.where(places < 0, own[self.split_of[rows]], np.array([*joins, 0])[places])

    def outcome(self, row: int, sample: Sample) -> Outcome:
        if self.kept[row]:
            split, group = self.group(row)
            return sample.with_meta(split=split, split_group=group)
        problem = self._problems.get(int(self.joined.place_of[row]))
        if problem is not None:
            return Dropped(sample, "twins_in_two_splits", problem)
        _, group = self.group(row)
        detail = f"held out, or linked to what is, and to {group} in {TRAIN}"
        return Dropped(sample, "held_out_twin_in_train", detail)


def _take(shelf: Shelf, gone: Iterable[Member]) -> None:
    take_counts(shelf, ((one.word, one.group.split) for one in gone))


def _classes(corpus: Corpus, name: str) -> tuple[Ints, list[str]]:
    """Return the number of each row's class, and the classes by name."""
    column = corpus[Word(name)]
    by_word = {word: digest for digest, word in column.words.items()}
    words = sorted(by_word)
    digests = np.frombuffer(b"".join(by_word[word] for word in words), ">u8").reshape(-1, 2)
    order = np.argsort(digests[:, 0])
    upper = digests[order, 0].astype(np.uint64)
    assert (upper[1:] != upper[:-1]).all(), "64 bits tell a few classes apart"
    return order[np.searchsorted(upper, column.digests()[:, 0])], words


def _commonest(class_of: Ints, roots: Ints, groups: Ints, num_classes: int) -> tuple[Ints, Ints]:
    """Return the commonest class of each group, the lowest name on a tie, and how many it has."""
    number = np.full(len(roots), -1, np.int64)
    number[groups] = np.arange(len(groups))
    of_row = number[roots]
    inside = of_row >= 0
    packed = of_row[inside] * max(1, num_classes) + class_of[inside]
    pairs, counts = np.unique(packed, return_counts=True)
    group, word = pairs // max(1, num_classes), pairs % max(1, num_classes)
    order = np.lexsort((word, -counts, group))
    first = order[np.flatnonzero(np.diff(group[order], prepend=-1))]
    return word[first], np.bincount(of_row[inside], minlength=len(groups))


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
