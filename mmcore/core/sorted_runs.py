"""An index of what earlier increments kept, asked at the cost of the questions.

An increment adds one sorted run. When eight runs of about one size have gathered, they become one:
a corpus of N increments is held in at most 7 log8 N runs, and every row is moved log8 N times. A
question is a binary search in each run, on files that are mapped, not read. Runs are arrays of the
step's artifact (`core/shelf.py`): never changed, taken over by a link.

    NAME/000003/labels    uint8, what rows are called, end to end
    NAME/000003/ends      uint64 [rows], where each label ends
    NAME/000003/values    uint8 [rows, width], what rows are compared by
    NAME/000003/keys      uint64 [tables, rows], each sorted
    NAME/000003/places    uint32 [tables, rows], the row of each key
"""

import itertools
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any

import numpy as np

from mmcore.core.columns import Bytes, Ints, Words
from mmcore.core.shelf import Shelf

FAN_OUT = 8
_ARRAYS = ("labels", "ends", "values", "keys", "places")
_MEETINGS_AT_ONCE = 1 << 18
_ROWS_AT_ONCE = 1 << 14
_BYTES_AT_ONCE = 1 << 22

Meetings = tuple[Ints, Ints]


@dataclass(frozen=True)
class Run:
    """One sorted run."""

    shelf: Shelf
    name: str

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
        start = int(self.ends[row - 1]) if row else 0
        return bytes(self.labels[start : int(self.ends[row])]).decode()

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


class SortedRuns:
    """The runs of one name on a shelf."""

    def __init__(self, shelf: Shelf, name: str) -> None:
        self._shelf = shelf
        self._name = name

    @property
    def runs(self) -> list[Run]:
        """The runs, the oldest first."""
        start = f"{self._name}/"
        names = {name.rsplit("/", 1)[0] for name in self._shelf.names if name.startswith(start)}
        return [Run(self._shelf, name) for name in sorted(names)]

    def add(
        self,
        labels: Iterable[str],
        values: Iterable[Bytes],
        width: int,
        tables: Iterable[Words],
        num_tables: int,
    ) -> None:
        """Write a run of new rows, and merge what has gathered; without rows nothing is written.

        `values` come in pieces, and tables one at a time: none of it is held whole.
        """
        name = self._next_name()
        with tempfile.TemporaryFile() as spool:
            ends = array("Q")
            num_bytes = 0
            for label in labels:
                num_bytes += spool.write(label.encode())
                ends.append(num_bytes)
            if not ends:
                return
            self._save(name, "labels", np.uint8, (num_bytes,), _spooled(spool, np.uint8))
        self._shelf.save(f"{name}/ends", np.asarray(ends, np.uint64))
        self._save(name, "values", np.uint8, (len(ends), width), values)
        ordered = ((table, np.arange(len(table))) for table in tables)
        self._save_tables(name, (num_tables, len(ends)), ordered)
        while gathered := self._gathered():
            self._merge(gathered)

    def _save(
        self, name: str, part: str, dtype: Any, shape: tuple[int, ...], pieces: Iterable[Any]
    ) -> None:
        self._shelf.save_pieces(f"{name}/{part}", dtype, shape, pieces)

    def _save_tables(
        self, name: str, shape: tuple[int, int], tables: Iterable[tuple[Words, Ints]]
    ) -> None:
        """Sort each table by its keys, and write all keys and all places."""
        with tempfile.TemporaryFile() as spool:

            def sorted_keys() -> Iterator[Words]:
                for keys, places in tables:
                    # stable: of equal keys the older row comes first, here and in every merge;
                    # timsort: runs that are sorted merge in one pass
                    order = np.argsort(keys, kind="stable")
                    spool.write(places[order].astype(np.uint32).tobytes())
                    yield keys[order]

            self._save(name, "keys", np.uint64, shape, sorted_keys())
            self._save(name, "places", np.uint32, shape, _spooled(spool, np.uint32))

    def _next_name(self) -> str:
        last = max((int(run.name.rsplit("/", 1)[1]) for run in self.runs), default=-1)
        return f"{self._name}/{last + 1:06d}"

    def _gathered(self) -> list[Run]:
        """Return eight runs of about one size, or nothing."""
        by_level: dict[int, list[Run]] = {}
        for run in self.runs:
            level = (run.num_rows.bit_length() - 1) // (FAN_OUT.bit_length() - 1)
            by_level.setdefault(level, []).append(run)
        return next((runs for _, runs in sorted(by_level.items()) if len(runs) >= FAN_OUT), [])

    def _merge(self, gathered: Sequence[Run]) -> None:
        name = self._next_name()
        num_rows = sum(run.num_rows for run in gathered)
        num_tables, width = len(gathered[0].keys), gathered[0].values.shape[1]
        num_bytes = sum(len(run.labels) for run in gathered)
        self._save(name, "labels", np.uint8, (num_bytes,), (run.labels for run in gathered))
        self._save(name, "ends", np.uint64, (num_rows,), _shifted_ends(gathered))
        values = (
            run.values[start : start + _ROWS_AT_ONCE]
            for run in gathered
            for start in range(0, run.num_rows, _ROWS_AT_ONCE)
        )
        self._save(name, "values", np.uint8, (num_rows, width), values)
        self._save_tables(name, (num_tables, num_rows), _joined_tables(gathered))
        for run in gathered:
            for part in _ARRAYS:
                self._shelf.remove(f"{run.name}/{part}")


def _shifted_ends(gathered: Sequence[Run]) -> Iterator[Ints]:
    before = 0
    for run in gathered:
        yield run.ends + before
        before += int(run.ends[-1])


def _joined_tables(gathered: Sequence[Run]) -> Iterator[tuple[Words, Ints]]:
    firsts = np.cumsum([0, *(run.num_rows for run in gathered)])
    for table in range(len(gathered[0].keys)):
        keys = np.concatenate([run.keys[table] for run in gathered])
        places = [
            run.places[table].astype(np.int64) + first
            for run, first in zip(gathered, firsts, strict=False)
        ]
        yield keys, np.concatenate(places)


def _spooled(spool: IO[bytes], dtype: Any) -> Iterator[Any]:
    spool.seek(0)
    while data := spool.read(_BYTES_AT_ONCE):
        yield np.frombuffer(data, dtype)
