"""What hangs together: components of linked samples, and the groups of old that they touch.

On the shelf lies, for each sample, the group of each value that may link others to it, and the
group of the sample itself, which stays its own when it changes. Where newcomers bridged two groups
of one split, and where a group got a member that sorts before it, that lies there as well: so what
is known of old is joined as if all of it were here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mmcore.core.columns import (
    DIGEST_BYTES,
    Bytes,
    Corpus,
    Flags,
    Ints,
    Key,
    Values,
    Words,
    digest_of,
    key_digest,
)
from mmcore.core.linkage import LINKS, MEMBERS
from mmcore.core.nearness import NearGraph
from mmcore.core.shelf import Shelf
from mmcore.core.sorted_run import SEPARATOR
from mmcore.core.sorted_runs import SortedRuns
from mmcore.media.near.clusters import components
from mmcore.media.near.digests import first_of_equal


class Group(NamedTuple):
    """A group of old: the split that it is in, and its name."""

    split: str
    name: str

    def label(self, key: str = "") -> str:
        """Return what an index calls it in a row that is of a sample, or of none."""
        return SEPARATOR.join((key, *self))


def group_of(label: str) -> Group:
    """Return the group that a label is about."""
    _, split, name, *_ = label.split(SEPARATOR, 3)
    return Group(split, name)


class Member(NamedTuple):
    """What is known of a sample of old."""

    key: str
    group: Group
    word: str
    """Its class."""


@dataclass(frozen=True)
class Place:
    """The groups of old that a component touches."""

    joins: Mapping[str, str]
    """By split the group to join: that of the lowest key there."""
    groups: tuple[Group, ...]
    """All of them, sorted."""


@dataclass(frozen=True)
class Joined:
    """The components of a corpus."""

    roots: Ints
    """The lowest row of each row's component."""
    place_of: Ints
    """Which of the places each row's component has, or -1."""
    places: Sequence[Place]
    members: Mapping[int, Member]
    """By row, what is known of those that are known of old: they have changed."""

    def again(self, kept: Flags) -> list[str]:
        """Return the keys of those that are known of old and were kept anew."""
        return [member.key for row, member in self.members.items() if kept[row]]


def join_groups(corpus: Corpus, together: Sequence[str], graph: NearGraph, shelf: Shelf) -> Joined:
    """Return what hangs together by equal values, by nearness, and by way of what is known."""
    index = SortedRuns(shelf, LINKS)
    one, other = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    touched: list[tuple[int, Group]] = [
        (corpus.num_rows + number, group_of(label)) for number, label in enumerate(graph.labels)
    ]
    keys = corpus[Key()]
    members = dict(_members(shelf, keys.digests(), keys.take()))  # a row has one key
    touched += [(row, member.group) for row, member in members.items()]
    for name in together:
        column = corpus[Values(name)]
        digests = column.digests()
        first = first_of_equal(digests)
        one.append(column.rows)
        other.append(column.rows[first])
        distinct = np.flatnonzero(first == np.arange(len(first)))
        # who has a value in common is of one group, or of groups that are known to be one
        answers = index.find(digests[distinct], column.take(distinct), one_is_enough=True)
        found = dict(answers)
        touched += [
            (int(column.rows[distinct[place]]), group_of(label)) for place, label in found.items()
        ]
    known, aliases, lowest = _closure(index, {group for _, group in touched})
    node_of = {
        group: number for number, group in enumerate(known, corpus.num_rows + len(graph.labels))
    }
    one.append(np.array([node for node, _ in touched], np.int64))
    other.append(np.array([node_of[group] for _, group in touched], np.int64))
    one.append(np.array([node_of[group] for group, _ in aliases], np.int64))
    other.append(np.array([node_of[group] for _, group in aliases], np.int64))
    num_nodes = corpus.num_rows + len(graph.labels) + len(known)
    near_one, near_other, num_all = graph.edges(num_nodes)
    roots = components(
        num_all, np.concatenate([*one, near_one]), np.concatenate([*other, near_other])
    )
    place_of_root, places = _places(node_of, roots, lowest)
    rows = roots[: corpus.num_rows]
    place_of = np.full(num_all, -1, np.int64)
    for root, place in place_of_root.items():
        place_of[root] = place
    return Joined(rows, place_of[rows], places, members)


def remember_links(
    corpus: Corpus,
    joined: Joined,
    together: Sequence[str],
    group: Callable[[int], Group],
    word: Callable[[int], str],
    kept: Flags,
    shelf: Shelf,
) -> None:
    """Put on the shelf the group of each sample and its values, and how groups of old changed."""
    _remember_members(corpus, joined, group, word, kept, shelf)
    labels: list[Iterable[str]] = []
    pieces: list[Iterator[Bytes]] = []
    tables: list[Words] = []
    for name in together:
        column = corpus[Values(name)]
        places = np.flatnonzero(kept[column.rows])
        rows = column.rows[places]
        labels.append(group(row).label(corpus.key(row)) for row in rows.tolist())
        pieces.append(column.pieces(places))
        tables.append(column.digests(places)[:, 0])
    changes = list(_changes(corpus, joined, kept))
    labels.append(label for _, label in changes)
    digests = _rows_of(_digest(about) for about, _ in changes)
    pieces.append(iter([digests]))
    tables.append(_upper(digests))
    SortedRuns(shelf, LINKS).add(
        (label for some in labels for label in some),
        (piece for some in pieces for piece in some),
        DIGEST_BYTES,
        [np.concatenate(tables)],
        1,
    )


def known_members(shelf: Shelf, keys: Iterable[str]) -> list[Member]:
    """Return what is known of those of some samples that are known."""
    digests = _rows_of(map(key_digest, keys))
    return [member for _, member in _members(shelf, _as_words(digests), digests)]


def _members(shelf: Shelf, digests: Words, values: Bytes) -> Iterator[tuple[int, Member]]:
    for question, label in SortedRuns(shelf, MEMBERS).find(digests, values):
        key, split, name, word = label.split(SEPARATOR, 3)
        yield question, Member(key, Group(split, name), word)


def _remember_members(
    corpus: Corpus,
    joined: Joined,
    group: Callable[[int], Group],
    word: Callable[[int], str],
    kept: Flags,
    shelf: Shelf,
) -> None:
    column = corpus[Key()]
    places = np.flatnonzero(kept[column.rows])
    rows = column.rows[places].tolist()
    index = SortedRuns(shelf, MEMBERS)
    again = joined.again(kept)
    if again:
        # what is known of them from now on takes the place of what was
        index.forget(again)
    labels = (SEPARATOR.join((group(row).label(corpus.key(row)), word(row))) for row in rows)
    tables = [column.digests(places)[:, 0]]
    index.add(labels, column.pieces(places), DIGEST_BYTES, tables, 1)


def _changes(corpus: Corpus, joined: Joined, kept: Flags) -> Iterator[tuple[Group, str]]:
    """Yield (group, label): groups that are one from now on, and new lowest keys."""
    rows = np.flatnonzero(kept & (joined.place_of >= 0))
    of_place = joined.place_of[rows]
    for number in np.unique(of_place).tolist():
        place = joined.places[number]
        ((split, name),) = place.joins.items()
        target = Group(split, name)
        for group in place.groups:
            if group != target:
                yield target, group.label()
                yield group, target.label()
        # rows rise with keys: the first is the lowest
        key = corpus.key(int(rows[of_place == number][0]))
        if key < name:
            yield target, target.label(key)


def _closure(
    index: SortedRuns, found: set[Group]
) -> tuple[list[Group], list[tuple[Group, Group]], dict[Group, str]]:
    """Return all groups that are one with those found, who with whom, and their lowest keys."""
    known, pending = set(found), sorted(found)
    aliases: list[tuple[Group, Group]] = []
    lowest = {group: group.name for group in found}
    while pending:
        digests = _rows_of(map(_digest, pending))
        following = set()
        for number, label in index.find(_as_words(digests), digests):
            group, other = pending[number], group_of(label)
            key = label.partition(SEPARATOR)[0]
            if key:
                lowest[group] = min(lowest[group], key)
            else:
                aliases.append((group, other))
                following.add(other)
        pending = sorted(following - known)
        known |= following
        lowest |= {group: group.name for group in pending}
    return sorted(known), aliases, lowest


def _places(
    node_of: Mapping[Group, int], roots: Ints, lowest: Mapping[Group, str]
) -> tuple[dict[int, int], list[Place]]:
    """Return the number of the place of each root that touches groups of old."""
    members: dict[int, list[Group]] = {}
    for group, node in sorted(node_of.items()):
        members.setdefault(int(roots[node]), []).append(group)
    places = []
    for groups in members.values():
        joins: dict[str, Group] = {}
        for group in groups:
            best = joins.get(group.split)
            if best is None or lowest[group] < lowest[best]:
                joins[group.split] = group
        places.append(Place({split: one.name for split, one in joins.items()}, tuple(groups)))
    return {root: number for number, root in enumerate(members)}, places


def _digest(group: Group) -> bytes:
    # three words: no digest of a value, which has a name and the value, is ever one of these
    return digest_of("", *group)


def _rows_of(digests: Iterable[bytes]) -> Bytes:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)


def _as_words(digests: Bytes) -> Words:
    return np.ascontiguousarray(digests).view(">u8").astype(np.uint64).reshape(-1, 2)


def _upper(digests: Bytes) -> Words:
    return _as_words(digests)[:, 0]
