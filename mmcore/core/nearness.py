"""Which samples are near which, in any modality: among newcomers, and to what is known already.

Samples with equal prints form a class, and classes are linked: a picture that is there a thousand
times costs a thousand entries, not half a million pairs. What is known is asked through an index,
so that it costs what the newcomers cost.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np

from mmcore.core.columns import DIGEST_BYTES, Bytes, Column, Corpus, Floats, Ints
from mmcore.core.linkage import META_PREFIX
from mmcore.core.near_index import VECTORS, near_known
from mmcore.core.near_limits import BY_DISTANCE, Limits, groups_of, prints_at, want_of
from mmcore.core.sorted_runs import SortedRuns
from mmcore.media.near.clusters import components
from mmcore.media.near.compare import COMPARISONS, near_vectors
from mmcore.media.near.digests import first_of_equal
from mmcore.media.near.prints import Prints


@dataclass(frozen=True)
class Tie:
    """Why two samples are near."""

    modality: str
    """`image`, `video`, `audio`, `text`, or `embedding`."""
    found: str
    """For people: `2 of 64 bits`, `similarity 0.91`."""

    def to(self, key: str) -> str:
        """Return it as a sentence that names the other sample.

        >>> Tie("image", "2 of 64 bits").to("birds__7")
        '2 of 64 bits from birds__7'
        """
        return f"{self.found} {'from' if 'bits' in self.found else 'to'} {key}"


@dataclass(frozen=True)
class _Neighbours:
    """Who is beside each of N, and the value: three flat arrays."""

    starts: Ints
    others: Ints
    values: Floats

    def of(self, one: int) -> Iterator[tuple[int, float]]:
        part = slice(int(self.starts[one]), int(self.starts[one + 1]))
        return zip(self.others[part].tolist(), self.values[part].tolist(), strict=True)


@dataclass
class _Links:
    """One modality: the class of each sample, which classes are near, and whom they know."""

    name: str
    class_of: Ints
    """-1 for a sample without a print."""
    left: Ints
    right: Ints
    near: _Neighbours
    known: _Neighbours

    @property
    def num_classes(self) -> int:
        return len(self.near.starts) - 1

    def tie(self, value: float | None) -> Tie:
        """Return what a value means; None for equal prints."""
        if self.name in BY_DISTANCE:
            return Tie(self.name, f"{value or 0:g} of 64 bits")
        modality = "embedding" if self.name.startswith(META_PREFIX) else self.name
        return Tie(modality, f"similarity {1 if value is None else value:.2f}")


@dataclass
class NearGraph:
    """The near samples of a corpus: nodes are its rows, and after them whom they know of old."""

    num_rows: int
    labels: list[str] = field(default_factory=list)
    """What the index calls those that are known; the first is node `num_rows`."""
    links: list[_Links] = field(default_factory=list)

    def clusters(self) -> Ints:
        """Return for each node the lowest one that it is connected to, in any modality."""
        one, other, num_nodes = self.edges(self.num_rows + len(self.labels))
        return components(num_nodes, one, other)[: self.num_rows + len(self.labels)]

    def edges(self, num_nodes: int) -> tuple[Ints, Ints, int]:
        """Return edges between the nodes and classes, which are numbered from `num_nodes` on."""
        one, other = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for links in self.links:
            rows = np.flatnonzero(links.class_of >= 0)
            counts = np.diff(links.known.starts)
            classes = np.repeat(np.arange(links.num_classes), counts)
            one += [rows, links.left + num_nodes, classes + num_nodes]
            other += [links.class_of[rows] + num_nodes, links.right + num_nodes, links.known.others]
            num_nodes += links.num_classes
        return np.concatenate(one), np.concatenate(other), num_nodes

    def tie(self, row: int, node: int) -> Tie | None:
        """Return why a row and a node are near, by the first modality that says so, or None."""
        for links in self.links:
            mine = int(links.class_of[row])
            if mine < 0:
                continue
            if node < self.num_rows:
                other = int(links.class_of[node])
                if mine == other:
                    return links.tie(None)
                beside = dict(links.near.of(mine))
            else:
                other, beside = node, dict(links.known.of(mine))
            if other in beside:
                return links.tie(beside[other])
        return None

    def ties(self, colour_of: Ints) -> Ints:
        """Return [N, 2]: near rows of two colours, and all rows that are near to a known node.

        Of each class one row of a colour stands for the others.
        """
        found = [np.empty((0, 2), np.int64)]
        for links in self.links:
            rows = np.flatnonzero(links.class_of >= 0)
            packed = links.class_of[rows] * (int(colour_of.max(initial=0)) + 1) + colour_of[rows]
            # sorted by class and colour
            rows = rows[np.unique(packed, return_index=True)[1]]
            ends = np.cumsum(np.bincount(links.class_of[rows], minlength=links.num_classes))
            starts = np.concatenate([np.zeros(1, np.int64), ends])
            same = np.flatnonzero(np.diff(links.class_of[rows]) == 0)
            left, right = _each_with_each(starts, links.left, starts, links.right)
            one = np.concatenate([rows[same], rows[left]])
            other = np.concatenate([rows[same + 1], rows[right]])
            crossing = colour_of[one] != colour_of[other]
            every = np.arange(links.num_classes)
            mine, known = _each_with_each(starts, every, links.known.starts, every)
            found += [
                np.stack([one[crossing], other[crossing]], axis=1),
                np.stack([rows[mine], links.known.others[known]], axis=1),
            ]
        return np.concatenate(found)

    def known_to(self, row: int) -> list[int]:
        """Return the nodes of old that a row is near to."""
        hits = (self.links[number].known.of(mine) for number, mine in self.classes(row))
        return sorted({node for found in hits for node, _ in found})

    def classes(self, row: int) -> list[tuple[int, int]]:
        """Return (modality, class) for each modality that a row has a print of."""
        found = ((number, int(links.class_of[row])) for number, links in enumerate(self.links))
        return [(number, mine) for number, mine in found if mine >= 0]

    def classes_near(self, row: int) -> list[tuple[int, int]]:
        """Return (modality, class) of a row's own classes, and then of those near them."""
        own = self.classes(row)
        near = [
            (number, other)
            for number, mine in own
            for other in sorted(one for one, _ in self.links[number].near.of(mine))
        ]
        return own + near


def near_graph(
    corpus: Corpus, limits: Limits, known: Callable[[str], SortedRuns] | None = None
) -> NearGraph:
    """Return who is near whom; the same whatever the order in which samples came.

    `known` gives the index of a modality, as `remember` has written it.
    """
    graph = NearGraph(corpus.num_rows)
    node_of: dict[str, int] = {}
    for name, limit in limits.by_name.items():
        column, groups = corpus[want_of(name)], groups_of(corpus, limits)
        class_of = np.full(corpus.num_rows, -1, np.int64)
        first = first_of_equal(_digests(column, groups))
        places = np.flatnonzero(first == np.arange(len(first)))
        number = np.full(len(first), -1, np.int64)
        number[places] = np.arange(len(places))
        class_of[column.rows] = number[first]
        prints, group_of = prints_at(column, places), groups[column.rows[places]]
        left, right, values = _compared(name, prints, group_of, limit)
        hits: list[tuple[int, str, float]] = []
        if known is not None:
            comparison = COMPARISONS.get(name, VECTORS)
            hits += near_known(known(name), prints, group_of, comparison, limit, name)
        for _, label, _ in hits:
            node_of.setdefault(label, corpus.num_rows + len(node_of))
        both_ways = (
            np.concatenate([left, right]),
            np.concatenate([right, left]),
            np.concatenate([values, values]),
        )
        to_known = (
            np.array([one for one, _, _ in hits], np.int64),
            np.array([node_of[label] for _, label, _ in hits], np.int64),
            np.array([value for _, _, value in hits], np.float64),
        )
        near, of_old = (_beside(len(places), *flat) for flat in (both_ways, to_known))
        graph.links.append(_Links(name, class_of, left, right, near, of_old))
    graph.labels += node_of
    return graph


def _compared(
    name: str, prints: Prints, group_of: Bytes, limit: float
) -> tuple[Ints, Ints, Floats]:
    """Return the pairs of classes that are near and of one group, with the values."""
    compared = COMPARISONS[name].pairs if name in COMPARISONS else near_vectors
    (left, right), values = compared(prints, limit)
    together = (group_of[left] == group_of[right]).all(axis=1)
    return left[together], right[together], values[together]


def _digests(column: Column, groups: Bytes) -> Any:
    """Return a digest of each print with its group, [E, 2]."""
    found = np.empty((len(column), DIGEST_BYTES), np.uint8)
    number = 0
    for piece in Prints(column.store, column.at).pieces():
        for data in piece:
            both = groups[column.rows[number]].tobytes() + data.tobytes()
            digest = blake2b(both, digest_size=DIGEST_BYTES).digest()
            found[number] = np.frombuffer(digest, np.uint8)
            number += 1
    return found.view(np.uint64)


def _each_with_each(
    starts: Ints, lists: Ints, other_starts: Ints, other_lists: Ints
) -> tuple[Ints, Ints]:
    """Return the places of every member of a list with every member of the list beside it."""
    counts = starts[lists + 1] - starts[lists]
    others = other_starts[other_lists + 1] - other_starts[other_lists]
    total = counts * others
    pair = np.repeat(np.arange(len(lists)), total)
    number = np.arange(int(total.sum())) - np.repeat(np.cumsum(total) - total, total)
    one, other = number // others[pair], number % others[pair]
    return starts[lists[pair]] + one, other_starts[other_lists[pair]] + other


def _beside(num: int, one: Ints, other: Ints, values: Floats) -> _Neighbours:
    order = np.lexsort((other, one))
    starts = np.concatenate([[0], np.cumsum(np.bincount(one, minlength=num))]).astype(np.int64)
    return _Neighbours(starts, other[order], values[order])
