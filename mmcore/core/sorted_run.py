"""One run of an index: rows that are asked for by their keys, and never changed.

How it lies in files, and how runs become an index: `core/sorted_runs.py`.
"""

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mmcore.core.columns import Bytes, Flags, Ints, Words
from mmcore.core.shelf import Shelf

SEPARATOR = "\t"
_MEETINGS_AT_ONCE = 1 << 18
_ROWS_AT_ONCE = 1 << 14

Meetings = tuple[Ints, Ints]


@dataclass(frozen=True)
class Run:
    """One sorted run."""

    shelf: Shelf
    name: str
    gone: Any
    """The keys whose rows do not count, sorted, as bytes."""

    @property
    def number(self) -> int:
        """Its place in the order in which runs were written."""
        return int(self.name.rsplit("/", 1)[1])

    @property
    def num_rows(self) -> int:
        """How many rows it has."""
        return len(self.ends)

    @cached_property
    def values(self) -> Bytes:
        """What rows are compared by, [rows, width]."""
        values: Bytes = self.shelf.load(f"{self.name}/values")
        return values

    @cached_property
    def keys(self) -> Words:
        """The sorted keys, [tables, rows]."""
        keys: Words = self.shelf.load(f"{self.name}/keys")
        return keys

    @cached_property
    def places(self) -> Any:
        """The row of each key, [tables, rows]."""
        return self.shelf.load(f"{self.name}/places")

    @cached_property
    def ends(self) -> Ints:
        """Where each label ends."""
        return np.asarray(self.shelf.load(f"{self.name}/ends").astype(np.int64))

    @cached_property
    def labels(self) -> Bytes:
        """What rows are called, end to end."""
        labels: Bytes = self.shelf.load(f"{self.name}/labels")
        return labels

    def label(self, row: int) -> str:
        """Return what a row is called."""
        return self._label(row).decode()

    def _label(self, row: int) -> bytes:
        start = int(self.ends[row - 1]) if row else 0
        return bytes(self.labels[start : int(self.ends[row])])

    def names_one(self, keys: Collection[str]) -> bool:
        """Return whether a row is of one of some samples, whether it counts or not."""
        wanted = {key.encode() for key in keys}
        data = self.labels.tobytes()
        if not any(key in data for key in wanted):
            return False
        separator = SEPARATOR.encode()
        return any(
            self._label(row).partition(separator)[0] in wanted for row in range(self.num_rows)
        )

    def counts(self, rows: Ints) -> Flags:
        """Return which of some rows are of samples that count."""
        if len(self.gone) == 0 or len(rows) == 0:
            return np.ones(len(rows), bool)
        separator = SEPARATOR.encode()
        keys = np.array([self._label(row).partition(separator)[0] for row in rows.tolist()], "S")
        at = np.minimum(np.searchsorted(self.gone, keys), len(self.gone) - 1)
        return np.asarray(self.gone[at] != keys)

    def meet(self, table: int, questions: Words) -> Iterator[Meetings]:
        """Yield (question, row) for all rows with the key of a question, some at a time."""
        keys = self.keys[table]
        # in order, so that neighbouring searches read neighbouring pages
        order = np.argsort(questions, kind="stable")
        low = np.searchsorted(keys, questions[order], side="left")
        # most meet nothing, and need no second search
        meets = keys[np.minimum(low, len(keys) - 1)] == questions[order]
        order, low = order[meets], low[meets]
        counts = np.searchsorted(keys, questions[order], side="right") - low
        done = np.cumsum(counts)
        portion = done // _MEETINGS_AT_ONCE
        edges = [0, *(np.flatnonzero(np.diff(portion)) + 1).tolist(), len(order)]
        for first, last in itertools.pairwise(edges):
            some = counts[first:last]
            begins = np.cumsum(some) - some
            at = np.arange(int(some.sum())) - np.repeat(begins - low[first:last], some)
            yield np.repeat(order[first:last], some), self.places[table][at].astype(np.int64)


class Rest:
    """What of a run goes on."""

    def __init__(self, run: Run) -> None:
        self._run = run
        kept = run.counts(np.arange(run.num_rows if len(run.gone) else 0))
        self._kept: Flags | None = None if kept.all() else kept
        self.num_rows = run.num_rows if self._kept is None else int(kept.sum())

    @cached_property
    def ends(self) -> Ints:
        """Where each label ends."""
        if self._kept is None:
            return self._run.ends
        return np.asarray(np.cumsum(np.diff(self._run.ends, prepend=0)[self._kept]))

    @cached_property
    def labels(self) -> Bytes:
        """What rows are called, end to end."""
        if self._kept is None:
            return self._run.labels
        return self._run.labels[np.repeat(self._kept, np.diff(self._run.ends, prepend=0))]

    def values(self) -> Iterator[Bytes]:
        """Yield what rows are compared by, some at a time."""
        for start in range(0, self._run.num_rows, _ROWS_AT_ONCE):
            some = slice(start, start + _ROWS_AT_ONCE)
            values = self._run.values[some]
            yield values if self._kept is None else values[self._kept[some]]

    def table(self, table: int) -> tuple[Words, Ints]:
        """Return the sorted keys of a table and the row of each."""
        keys, places = self._run.keys[table], self._run.places[table].astype(np.int64)
        if self._kept is None:
            return keys, places
        there = self._kept[places]
        return keys[there], (np.cumsum(self._kept) - 1)[places[there]]


def one_each(run: Run, asked: Ints, rows: Ints) -> Ints:
    """Return for each question where the first of its rows is that counts, if one does."""
    _, first = np.unique(asked, return_index=True)
    there = run.counts(rows[first])
    rest = np.flatnonzero(np.isin(asked, asked[first[~there]]))
    rest = rest[run.counts(rows[rest])]
    _, again = np.unique(asked[rest], return_index=True)
    return np.concatenate([first[there], rest[again]])
