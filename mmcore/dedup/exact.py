"""Duplicates byte for byte."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mmcore.core.columns import DIGEST_BYTES, Column, Corpus, Flags, Identity, Ints, Want
from mmcore.core.linkage import check_names
from mmcore.core.shelf import Shelf
from mmcore.core.sorted_run import Run
from mmcore.core.sorted_runs import SortedRuns
from mmcore.core.stage import CorpusRule, Verdict
from mmcore.media.near.digests import first_of_equal
from mmcore.sample import Dropped, Outcome, Sample

_INDEX = "identities"


@dataclass(frozen=True, kw_only=True)
class ExactDuplicates(CorpusRule):
    """Keep one of all samples that are equal in everything named: the one with the lowest key.

    One that an earlier increment kept outlives every newcomer. A sample that lacks one of the names
    is nobody's duplicate.
    """

    code_version: ClassVar[int] = 2

    same: tuple[str, ...]
    """What must be equal, all of it: `image`, `text`, `audio`, `video`, `meta:<field>`."""

    def __post_init__(self) -> None:
        check_names(self.same, field="exact_duplicates.same")

    @property
    def _identity(self) -> Identity:
        return Identity(self.same)

    def wants(self) -> tuple[Want, ...]:
        return (self._identity,)

    def decide(self, corpus: Corpus, shelf: Shelf) -> Verdict:
        column = corpus[self._identity]
        twin = np.full(corpus.num_rows, -1, np.int64)
        first = first_of_equal(column.digests())
        is_later = first != np.arange(len(first))
        twin[column.rows[is_later]] = column.rows[first[is_later]]
        return _Verdict(self, corpus, twin, *_known(corpus, column, SortedRuns(shelf, _INDEX)))

    def remember(self, corpus: Corpus, verdict: Verdict, kept: Flags, shelf: Shelf) -> None:
        column = corpus[self._identity]
        places = np.flatnonzero(kept[column.rows])
        keys = corpus.keys(column.rows[places].tolist())
        tables = [column.digests(places)[:, 0]]
        index = SortedRuns(shelf, _INDEX)
        index.add(keys, column.pieces(places), DIGEST_BYTES, tables, 1)


@dataclass(frozen=True)
class _Verdict:
    rule: ExactDuplicates
    corpus: Corpus
    twin: Ints
    """The row that outlives each, or -1."""
    runs: Sequence[Run]
    known_run: Ints
    """Which run has who outlives a row of old, or -1."""
    known_row: Ints

    @property
    def kept(self) -> Flags:
        return np.asarray((self.twin < 0) & (self.known_run < 0))

    def outcome(self, row: int, sample: Sample) -> Outcome:
        run, twin = int(self.known_run[row]), int(self.twin[row])
        if run < 0 and twin < 0:
            return sample
        is_old = run >= 0
        key = self.runs[run].label(int(self.known_row[row])) if is_old else self.corpus.key(twin)
        detail = f"same {', '.join(self.rule.same)} as {key}"
        return Dropped(sample, "exact_duplicate", detail, twin=key)


def _known(corpus: Corpus, column: Column, index: SortedRuns) -> tuple[list[Run], Ints, Ints]:
    """Return where the identity of each row is known, if it is."""
    known_run, known_row = (np.full(corpus.num_rows, -1, np.int64) for _ in range(2))
    runs = index.runs
    questions = column.digests()[:, 0]
    for number, run in enumerate(runs):
        for places, rows in run.meet(0, questions):
            equal = (column.take(places) == run.values[rows]).all(axis=1)
            equal[equal] = run.counts(rows[equal])
            known_run[column.rows[places[equal]]] = number
            known_row[column.rows[places[equal]]] = rows[equal]
    return runs, known_run, known_row
