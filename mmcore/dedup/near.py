"""Duplicates that are not equal byte for byte: resized, recompressed, reworded, resampled."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from mmcore.core.columns import Corpus, Flags, Floats, Ints, Score, Want
from mmcore.core.linkage import check_names
from mmcore.core.near_index import remember
from mmcore.core.near_limits import Limits
from mmcore.core.nearness import NearGraph, near_graph
from mmcore.core.shelf import Shelf
from mmcore.core.sorted_run import SEPARATOR
from mmcore.core.sorted_runs import SortedRuns
from mmcore.core.stage import CorpusRule, Verdict
from mmcore.errors import ConfigError
from mmcore.sample import Dropped, Outcome, Sample


@dataclass(frozen=True, kw_only=True)
class NearDuplicates(CorpusRule):
    """Keep one of each cluster of samples that are near in a modality; all others name it.

    Near are two samples that any of the limits says so of. A twin of a twin is a twin. One that an
    earlier increment kept outlives every newcomer. What the stages `sign_image`, `sign_text`,
    `sign_audio` and `sign_video` stored is compared, so they belong at the end of `clean`.
    """

    max_distance: Mapping[str, int] = field(default_factory=lambda: {"image": 8})
    """By modality, `image` or `video`: bits of 64 in which perceptual hashes may differ, 0 to 12.
    Pictures must also agree in a thumbnail; of films it is the mean over eight frames."""
    min_similarity: Mapping[str, float] = field(default_factory=dict)
    """By modality: for `text` the share of common word runs, 0.8 for instance; for `audio` the
    share of common bits, 0.7; for `meta:<field>` the cosine of the embeddings there."""
    within: tuple[str, ...] = ()
    """Only samples that are equal in these are compared: `meta:language`."""
    prefer: str = ""
    """The score of which the highest survives, `image_pixels` for instance; then, and without it,
    the lowest key does."""
    chains: bool = True
    """Without it a sample is dropped only for one that is kept and near to itself."""

    def __post_init__(self) -> None:
        if not self.max_distance and not self.min_similarity:
            raise ConfigError(
                "near_duplicates compares nothing: give max_distance or min_similarity a modality."
            )
        self._limits.check("near_duplicates")
        if self.within:
            check_names(self.within, field="near_duplicates.within")

    @property
    def _limits(self) -> Limits:
        return Limits(self.max_distance, self.min_similarity, self.within)

    def wants(self) -> tuple[Want, ...]:
        return (*self._limits.wants(), *([Score(self.prefer)] if self.prefer else []))

    def decide(self, corpus: Corpus, shelf: Shelf) -> Verdict:
        graph = near_graph(corpus, self._limits, partial(SortedRuns, shelf))
        twin, via = (np.full(corpus.num_rows, -1, np.int64) for _ in range(2))
        scores = self._scores(corpus)
        for cluster in _clusters(graph.clusters()):
            _Cluster(graph, corpus, scores, cluster).settle(self.chains, twin, via)
        return _Verdict(corpus, graph, twin, via)

    def remember(self, corpus: Corpus, verdict: Verdict, kept: Flags, shelf: Shelf) -> None:
        scores = self._scores(corpus)

        def label(row: int) -> str:
            return f"{corpus.key(row)}{SEPARATOR}{float(scores[row])!r}"

        remember(corpus, self._limits, kept, label, partial(SortedRuns, shelf))

    def _scores(self, corpus: Corpus) -> Floats:
        """Return what rows are preferred by; a score that is no number is the lowest."""
        if not self.prefer:
            return np.full(corpus.num_rows, -math.inf)
        found = corpus[Score(self.prefer)].numbers(corpus.num_rows)
        return np.where(np.isnan(found), -math.inf, found)


@dataclass(frozen=True)
class _Verdict:
    corpus: Corpus
    graph: NearGraph
    twin: Ints
    """The node that outlives each row, or -1."""
    via: Ints
    """The node through which a row is tied to its twin, where it is not near itself; or -1."""

    @property
    def kept(self) -> Flags:
        return np.asarray(self.twin < 0)

    def outcome(self, row: int, sample: Sample) -> Outcome:
        twin, via = int(self.twin[row]), int(self.via[row])
        if twin < 0:
            return sample
        key = _key(self.graph, self.corpus, twin)
        tie = self.graph.tie(row, twin if via < 0 else via)
        assert tie is not None, "who shares a class or has a near one is near"
        detail = tie.to(key)
        if via >= 0:
            detail = f"{tie.to(_key(self.graph, self.corpus, via))}, which leads to {key}"
        return Dropped(sample, f"near_duplicate_{tie.modality}", detail, twin=key)


class _Cluster:
    """Nodes that are connected: who of them stays, and for whom the others go."""

    def __init__(
        self, graph: NearGraph, corpus: Corpus, scores: Floats, nodes: Sequence[int]
    ) -> None:
        self.graph = graph
        self.corpus = corpus
        self.scores = scores
        self.ranked = sorted(nodes, key=self._rank)

    def settle(self, chains: bool, twin: Ints, via: Ints) -> None:
        """Write down the twin of every row that goes, and through whom it is tied to it."""
        graph = self.graph
        old = [node for node in self.ranked if node >= graph.num_rows]
        new = [node for node in self.ranked if node < graph.num_rows]
        place = {node: at for at, node in enumerate([*old, *new])}
        kept_in: dict[tuple[int, int], int] = {}
        survivor = old[0] if old else None
        for row in new:
            near = [kept_in[one] for one in graph.classes_near(row) if one in kept_in]
            near += graph.known_to(row)
            if near:
                twin[row] = min(near, key=place.__getitem__)
            elif chains and survivor is not None:
                twin[row], via[row] = survivor, self._between(row)
            else:
                survivor = row if survivor is None else survivor
                for one in graph.classes(row):
                    kept_in.setdefault(one, row)

    @cached_property
    def _first_of(self) -> Mapping[tuple[int, int], Sequence[int]]:
        """The two rows of each class that are preferred most."""
        found: dict[tuple[int, int], list[int]] = {}
        for node in self.ranked:
            if node < self.graph.num_rows:
                for one in self.graph.classes(node):
                    members = found.setdefault(one, [])
                    if len(members) < 2:
                        members.append(node)
        return found

    @cached_property
    def _place(self) -> Mapping[int, int]:
        return {node: at for at, node in enumerate(self.ranked)}

    def _between(self, row: int) -> int:
        """Return the most preferred of those that a row is near to."""
        near = [
            node
            for one in self.graph.classes_near(row)
            for node in self._first_of.get(one, ())
            if node != row
        ]
        return min([*near, *self.graph.known_to(row)], key=self._place.__getitem__)

    def _rank(self, node: int) -> tuple[float, str]:
        if node < self.graph.num_rows:
            return -float(self.scores[node]), self.corpus.key(node)
        key, score = self.graph.labels[node - self.graph.num_rows].split(SEPARATOR)
        return -float(score), key


def _key(graph: NearGraph, corpus: Corpus, node: int) -> str:
    if node < graph.num_rows:
        return corpus.key(node)
    return graph.labels[node - graph.num_rows].split(SEPARATOR)[0]


def _clusters(roots: Ints) -> Iterator[list[int]]:
    """Yield the nodes of each cluster of more than one, rising."""
    order = np.argsort(roots, kind="stable")
    starts = np.flatnonzero(np.diff(roots[order], prepend=-1))
    lengths = np.diff(starts, append=len(order))
    several = lengths > 1
    for start, length in zip(starts[several].tolist(), lengths[several].tolist(), strict=True):
        yield order[start : start + length].tolist()
