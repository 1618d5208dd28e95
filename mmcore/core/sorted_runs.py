"""An index of what earlier increments kept, asked at the cost of the questions.

An increment adds one sorted run. When eight runs of about one size have gathered, they become one:
a corpus of N increments is held in at most 7 log8 N runs, and every row is moved log8 N times. A
question is a binary search in each run, on files that are mapped, not read. Runs are arrays of the
step's artifact (`core/shelf.py`): never changed, taken over by a link.

The label of a row begins with the key of the sample that it is of, up to a tab. Which samples count
no more is written down beside the runs: their rows are passed over, and left out when runs merge.

    NAME/000003/labels    uint8, what rows are called, end to end
    NAME/000003/ends      uint64 [rows], where each label ends
    NAME/000003/values    uint8 [rows, width], what rows are compared by
    NAME/000003/keys      uint64 [tables, rows], each sorted
    NAME/000003/places    uint32 [tables, rows], the row of each key
    gone/NAME/keys        bytes [gone], sorted, each once
    gone/NAME/before      uint32 [gone], runs with a lower number have no row of that key any more
"""

import re
import tempfile
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np

from mmcore.core.columns import Bytes, Ints, Words
from mmcore.core.shelf import Shelf
from mmcore.core.sorted_run import Rest, Run, one_each

FAN_OUT = 8
_GONE = "gone"
_LABELS = re.compile(r"(.+)/\d{6}/labels")
_ARRAYS = ("labels", "ends", "values", "keys", "places")
_BYTES_AT_ONCE = 1 << 22


class SortedRuns:
    """The runs of one name on a shelf."""

    def __init__(self, shelf: Shelf, name: str, *, gone: Collection[str] = ()) -> None:
        self._shelf = shelf
        self._name = name
        self._gone_now = [key.encode() for key in gone]
        """Counts no more either; for who only asks."""

    @property
    def runs(self) -> list[Run]:
        """The runs, the oldest first."""
        start = f"{self._name}/"
        names = {name.rsplit("/", 1)[0] for name in self._shelf.names if name.startswith(start)}
        keys, before = self._gone()
        found = []
        for name in sorted(names):
            gone = keys[before > int(name.rsplit("/", 1)[1])]
            if self._gone_now:
                gone = np.unique(np.array([*gone.tolist(), *self._gone_now], "S"))
            found.append(Run(self._shelf, name, gone))
        return found

    def find(
        self, digests: Words, values: Bytes, *, one_is_enough: bool = False
    ) -> Iterator[tuple[int, str]]:
        """Yield (question, label) for every row that has the value of a question and counts.

        For indexes with one table, whose keys are the first halves of digests. `one_is_enough`
        takes one row of each run for all that have a value in common.
        """
        if len(digests) == 0:
            return
        for run in self.runs:
            for asked, rows in run.meet(0, digests[:, 0]):
                equal = (values[asked] == run.values[rows]).all(axis=1)
                asked, rows = asked[equal], rows[equal]
                there: Any = one_each(run, asked, rows) if one_is_enough else run.counts(rows)
                for question, row in zip(asked[there].tolist(), rows[there].tolist(), strict=True):
                    yield question, run.label(row)

    def forget(self, keys: Iterable[str]) -> None:
        """Let no row that is there by now count, if its label begins with one of some keys."""
        known, before = self._gone()
        over = dict(zip(known.tolist(), before.tolist(), strict=True))
        number = int(self._next_name().rsplit("/", 1)[1])
        self._save_gone(over | {key.encode(): number for key in keys})

    def _gone(self) -> tuple[Any, Any]:
        name = f"{_GONE}/{self._name}"
        if f"{name}/keys" not in self._shelf.names:
            return np.empty(0, "S1"), np.empty(0, np.uint32)
        return self._shelf.load(f"{name}/keys"), self._shelf.load(f"{name}/before")

    def _save_gone(self, over: dict[bytes, int]) -> None:
        """Write down what counts no more, as far as there are runs to which it matters."""
        oldest = min((run.number for run in self.runs), default=None)
        some = sorted(key for key in over if oldest is not None and over[key] > oldest)
        name = f"{_GONE}/{self._name}"
        if some:
            self._shelf.save(f"{name}/keys", np.array(some, "S"))
            self._shelf.save(f"{name}/before", np.array([over[key] for key in some], np.uint32))
        elif f"{name}/keys" in self._shelf.names:
            self._shelf.remove(f"{name}/keys")
            self._shelf.remove(f"{name}/before")

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
        has_merged = False
        while gathered := self._gathered():
            self._merge(gathered)
            has_merged = True
        keys, before = self._gone()
        if has_merged and len(keys):
            self._save_gone(dict(zip(keys.tolist(), before.tolist(), strict=True)))

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
        last = max((run.number for run in self.runs), default=-1)
        return f"{self._name}/{last + 1:06d}"

    def _gathered(self) -> list[Run]:
        """Return eight runs of about one size, or nothing."""
        by_level: dict[int, list[Run]] = {}
        for run in self.runs:
            level = (run.num_rows.bit_length() - 1) // (FAN_OUT.bit_length() - 1)
            by_level.setdefault(level, []).append(run)
        return next((runs for _, runs in sorted(by_level.items()) if len(runs) >= FAN_OUT), [])

    def _merge(self, gathered: Sequence[Run]) -> None:
        """Make some runs one, without the rows that do not count."""
        name = self._next_name()
        rests = [rest for run in gathered if (rest := Rest(run)).num_rows]
        if rests:
            num_rows = sum(rest.num_rows for rest in rests)
            num_tables, width = len(gathered[0].keys), gathered[0].values.shape[1]
            num_bytes = sum(len(rest.labels) for rest in rests)
            self._save(name, "labels", np.uint8, (num_bytes,), (rest.labels for rest in rests))
            self._save(name, "ends", np.uint64, (num_rows,), _shifted_ends(rests))
            values = (piece for rest in rests for piece in rest.values())
            self._save(name, "values", np.uint8, (num_rows, width), values)
            tables = _joined_tables(rests, num_tables)
            self._save_tables(name, (num_tables, num_rows), tables)
        for run in gathered:
            for part in _ARRAYS:
                self._shelf.remove(f"{run.name}/{part}")


def indexes(shelf: Shelf) -> list[SortedRuns]:
    """Return all indexes that lie on a shelf."""
    found = (_LABELS.fullmatch(name) for name in shelf.names)
    return [SortedRuns(shelf, name) for name in sorted({match[1] for match in found if match})]


def _shifted_ends(rests: Sequence[Rest]) -> Iterator[Ints]:
    before = 0
    for rest in rests:
        yield rest.ends + before
        before += int(rest.ends[-1])


def _joined_tables(rests: Sequence[Rest], num_tables: int) -> Iterator[tuple[Words, Ints]]:
    firsts = np.cumsum([0, *(rest.num_rows for rest in rests)])
    for table in range(num_tables):
        pairs = [rest.table(table) for rest in rests]
        places = [rows + first for (_, rows), first in zip(pairs, firsts, strict=False)]
        yield np.concatenate([keys for keys, _ in pairs]), np.concatenate(places)


def _spooled(spool: IO[bytes], dtype: Any) -> Iterator[Any]:
    spool.seek(0)
    while data := spool.read(_BYTES_AT_ONCE):
        yield np.frombuffer(data, dtype)
