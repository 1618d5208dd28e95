"""Which samples are near which, in any modality: among newcomers, and to what is known already.

Samples with equal prints form a class, and classes are linked: a picture that is there a thousand
times costs a thousand entries, not half a million pairs. What is known is asked through an index,
so that it costs what the newcomers cost.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np

from mmcore.core.columns import (
    DIGEST_BYTES,
    Bytes,
    Column,
    Corpus,
    Flags,
    Floats,
    Identity,
    Ints,
    Want,
)
from mmcore.core.linkage import META_PREFIX
from mmcore.core.sorted_runs import Run, SortedRuns
from mmcore.errors import ConfigError, StepError
from mmcore.media.near.clusters import components
from mmcore.media.near.compare import (
    COMPARISONS,
    Comparison,
    near_vectors,
    vectors_agree,
)
from mmcore.media.near.digests import first_of_equal
from mmcore.media.near.hamming import MAX_DISTANCE
from mmcore.media.near.prints import PRINT_BYTES, Prints, hash_words, print_of
from mmcore.media.near.tables import keys_of, masks_of, meets_nothing, num_tables
from mmcore.sample import Sample

BY_DISTANCE = ("image", "video")
BY_SIMILARITY = ("audio", "text")
_QUESTIONS_AT_ONCE = 1 << 18
_PAIRS_AT_ONCE = 1 << 14
_VECTORS = Comparison(0, vectors_agree)


@dataclass(frozen=True)
class PrintOf:
    """The print of a modality, which a stage `sign_*` has stored."""

    modality: str
    lies_in_file: bool = True

    @property
    def width(self) -> int:
        return PRINT_BYTES[self.modality]

    def of(self, sample: Sample) -> Sequence[bytes]:
        found = print_of(sample, self.modality)
        return [] if found is None else [found]


@dataclass(frozen=True)
class VectorOf:
    """The embedding in a metadata field."""

    field: str
    width: int = 0
    lies_in_file: bool = True

    def of(self, sample: Sample) -> Sequence[bytes]:
        value: Any = sample.meta.get(self.field)
        if not value:
            return []
        try:
            return [np.array(value, np.float32).reshape(-1).tobytes()]
        except (ValueError, TypeError) as error:
            raise StepError(
                f"{sample.key}: metadata field {self.field!r} is no vector: {error}. Give every "
                "sample a list of numbers, or none."
            ) from error


@dataclass(frozen=True)
class Limits:
    """From where on two samples are near, by modality, and who is compared with whom."""

    max_distance: Mapping[str, int]
    """Bits of 64, `image` and `video`."""
    min_similarity: Mapping[str, float]
    """0 to 1, `text`, `audio` and `meta:<field>`."""
    within: tuple[str, ...] = ()

    @property
    def by_name(self) -> Mapping[str, float]:
        """The limit of each modality, in the order in which reasons are given."""
        found = {**self.max_distance, **self.min_similarity}
        return {name: found[name] for name in sorted(found, key=_order)}

    def wants(self) -> tuple[Want, ...]:
        """Return the columns to compare."""
        groups = [Identity(self.within, True)] if self.within else []
        return (*map(want_of, self.by_name), *groups)

    def check(self, rule: str) -> None:
        """Raise ConfigError for a modality or a limit that means nothing."""
        for name, bits in self.max_distance.items():
            if name not in BY_DISTANCE:
                raise ConfigError(
                    f"{rule}.max_distance: {name!r} has no distance in bits. "
                    f"{', '.join(BY_DISTANCE)} have; the others belong in min_similarity."
                )
            if not 0 <= bits <= MAX_DISTANCE:
                raise ConfigError(
                    f"{rule}.max_distance.{name}={bits}: use 0 to {MAX_DISTANCE} of 64 bits."
                )
        for name, share in self.min_similarity.items():
            is_embedding = name.startswith(META_PREFIX) and len(name) > len(META_PREFIX)
            if name not in BY_SIMILARITY and not is_embedding:
                raise ConfigError(
                    f"{rule}.min_similarity: {name!r} cannot be compared so. Use "
                    f"{', '.join(BY_SIMILARITY)} or {META_PREFIX}<field>; image and video belong "
                    "in max_distance."
                )
            if not 0 < share <= 1:
                raise ConfigError(
                    f"{rule}.min_similarity.{name}={share:g} is not above 0 and at most 1."
                )


def want_of(name: str) -> Want:
    """Return the column that holds what is compared under a name."""
    is_embedding = name.startswith(META_PREFIX)
    return VectorOf(name.removeprefix(META_PREFIX)) if is_embedding else PrintOf(name)


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
        column, groups = corpus[want_of(name)], _groups(corpus, limits)
        class_of = np.full(corpus.num_rows, -1, np.int64)
        first = first_of_equal(_digests(column, groups))
        places = np.flatnonzero(first == np.arange(len(first)))
        number = np.full(len(first), -1, np.int64)
        number[places] = np.arange(len(places))
        class_of[column.rows] = number[first]
        prints, group_of = _prints(column, places), groups[column.rows[places]]
        comparison = COMPARISONS.get(name, _VECTORS)
        compared = comparison.pairs if name in COMPARISONS else near_vectors
        (left, right), value = compared(prints, limit)
        together = (group_of[left] == group_of[right]).all(axis=1)
        left, right, value = left[together], right[together], value[together]
        hits = list(_known(known(name), prints, group_of, comparison, limit, name)) if known else []
        for hit in hits:
            node_of.setdefault(hit[1], corpus.num_rows + len(node_of))
        graph.links.append(
            _Links(
                name,
                class_of,
                left,
                right,
                _beside(
                    len(places),
                    np.concatenate([left, right]),
                    np.concatenate([right, left]),
                    np.concatenate([value, value]),
                ),
                _beside(
                    len(places),
                    np.array([one for one, _, _ in hits], np.int64),
                    np.array([node_of[label] for _, label, _ in hits], np.int64),
                    np.array([value for _, _, value in hits], np.float64),
                ),
            )
        )
    graph.labels += node_of
    return graph


def remember(
    corpus: Corpus,
    limits: Limits,
    kept: Flags,
    label: Callable[[int], str],
    index: Callable[[str], SortedRuns],
) -> None:
    """Add the prints of rows that were kept to the index of each modality."""
    groups = _groups(corpus, limits)
    for name, limit in limits.by_name.items():
        column = corpus[want_of(name)]
        places = np.flatnonzero(kept[column.rows])
        rows = column.rows[places]
        prints = _prints(column, places)
        comparison = COMPARISONS.get(name, _VECTORS)
        values = _with_groups(prints.pieces(), groups, rows)
        is_vector = name not in COMPARISONS
        # embeddings are compared with all of them: one empty table keeps the form
        tables = (
            [np.zeros(len(rows), np.uint64)] if is_vector else keys_of(prints, comparison, limit)
        )
        index(name).add(
            (label(row) for row in rows.tolist()),
            values,
            prints.store.shape[1] + DIGEST_BYTES,
            tables,
            1 if is_vector else num_tables(comparison, limit),
        )


def _order(name: str) -> tuple[int, str]:
    names = list(COMPARISONS)
    return (names.index(name) if name in names else len(names), name)


def _groups(corpus: Corpus, limits: Limits) -> Bytes:
    """Return the digest of the group in which each row is compared, [N, 16]."""
    if not limits.within:
        return np.broadcast_to(np.zeros(DIGEST_BYTES, np.uint8), (corpus.num_rows, DIGEST_BYTES))
    return corpus[Identity(limits.within, True)].take()


def _prints(column: Column, places: Ints) -> Prints:
    return Prints(column.store, column.at[places])


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


def _with_groups(pieces: Iterable[Bytes], groups: Bytes, rows: Ints) -> Iterator[Bytes]:
    start = 0
    for piece in pieces:
        yield np.hstack([piece, groups[rows[start : start + len(piece)]]])
        start += len(piece)


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


def _known(
    index: SortedRuns,
    prints: Prints,
    groups: Bytes,
    comparison: Comparison,
    limit: float,
    name: str,
) -> Iterator[tuple[int, str, float]]:
    """Yield (class, label, value) for all that are known and near to a class."""
    tables = num_tables(comparison, limit) if name in COMPARISONS else 1
    # those of another limit cannot be asked: what is only held on to may have had one
    runs = [run for run in index.runs if len(run.keys) == tables]
    if not runs or len(prints) == 0:
        return
    if name in COMPARISONS:
        candidates = _meetings(runs, prints, comparison, limit)
    else:
        candidates = [_everyone(run, len(prints)) for run in runs]
    for run, pieces in zip(runs, candidates, strict=True):
        for one, rows in pieces:
            theirs = run.values[rows]
            near, values = comparison.agree(
                prints.take(one), np.ascontiguousarray(theirs[:, :-DIGEST_BYTES]), limit
            )
            near = near & (groups[one] == theirs[:, -DIGEST_BYTES:]).all(axis=1)
            near[near] = run.counts(rows[near])
            found = zip(one[near].tolist(), rows[near].tolist(), values[near].tolist(), strict=True)
            for number, row, value in found:
                yield number, run.label(row), value


def _meetings(
    runs: Sequence[Run], prints: Prints, comparison: Comparison, limit: float
) -> list[Iterator[tuple[Ints, Ints]]]:
    """Return for each run the (class, row) that could be near, each once, some at a time."""
    packed: list[list[Ints]] = [[] for _ in runs]
    words = prints.words(comparison.num_words) if comparison.num_words == 1 else None
    tables = zip(keys_of(prints, comparison, limit), masks_of(comparison, limit), strict=False)
    for table, (keys, masks) in enumerate(tables):
        asking = np.flatnonzero(~meets_nothing(keys))
        step = max(1, _QUESTIONS_AT_ONCE // len(masks))
        for start in range(0, len(asking), step):
            some = asking[start : start + step]
            questions = (keys[some, None] ^ masks).reshape(-1)
            for number, run in enumerate(runs):
                for question, rows in run.meet(table, questions):
                    one = some[question // len(masks)]
                    if words is not None:
                        theirs = hash_words(run.values[rows, :8], 1)[:, 0]
                        near = np.bitwise_count(words[one, 0] ^ theirs) <= limit
                        one, rows = one[near], rows[near]
                    packed[number].append(np.unique(one * run.num_rows + rows))
    return [
        _unpacked(np.unique(np.concatenate(many)), run.num_rows) if many else iter(())
        for many, run in zip(packed, runs, strict=True)
    ]


def _unpacked(packed: Ints, num_rows: int) -> Iterator[tuple[Ints, Ints]]:
    for start in range(0, len(packed), _PAIRS_AT_ONCE):
        some = packed[start : start + _PAIRS_AT_ONCE]
        yield some // num_rows, some % num_rows


def _everyone(run: Run, num_classes: int) -> Iterator[tuple[Ints, Ints]]:
    for start in range(0, num_classes * run.num_rows, _PAIRS_AT_ONCE):
        stop = min(start + _PAIRS_AT_ONCE, num_classes * run.num_rows)
        yield from _unpacked(np.arange(start, stop, dtype=np.int64), run.num_rows)
