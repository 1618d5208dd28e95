"""The samples of a step while it is decided where each goes: a few numbers of each in memory.

The samples themselves lie in a file, a line each, until the task that writes their shard is made.
"""

import hashlib
import json
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mmcore.core.columns import Flags, Ints
from mmcore.errors import AccountingError, StepError
from mmcore.sample import Json, Sample
from mmcore.shard.document import EXTENSION, Schema, SchemaTally, document
from mmcore.shard.plan import (
    NAME_RULE,
    PARTS_RULE,
    SPLITS,
    from_payload,
    renamed,
    required_parts,
    shard_bounds,
    to_payload,
    wanted_parts,
    whole_first,
)
from mmcore.shard.tar import BLOCK_BYTES, name_problem, padded

_POSITION_BYTES = 16


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """The samples of one shard, in order."""

    split: str
    number: int
    samples: Ints
    """Their numbers in the roster."""

    @property
    def name(self) -> str:
        """Return its name as a task and as a file, without the extension: `train-000000`."""
        return f"{self.split}-{self.number:06d}"


class LeftOut(NamedTuple):
    """A sample that goes into no shard."""

    rule: str
    key: str
    number: int
    """In the roster."""
    is_broken: bool
    reason: str
    detail: str


class Roster:
    """What is known of every sample, in the order in which they came."""

    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed
        self._lines = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the roster
        weakref.finalize(self, self._lines.close)
        self._ends = array("Q")
        self._positions = bytearray()
        self._splits = array("b")
        self._part_sets: dict[tuple[str, ...], int] = {}
        self._part_set_of = array("i")
        self._tallies: list[SchemaTally] = []
        self._part_bytes = array("Q")
        self._left_out: dict[int, LeftOut] = {}
        self.fits: Flags = np.zeros(0, bool)
        """Which samples go into a shard; known once they are sifted."""

    def add(self, sample: Sample) -> None:
        """Take note of a sample; StepError when no split was given to it."""
        sample = renamed(sample)
        split = sample.meta.get("split")
        if split not in SPLITS:
            raise StepError(
                f"{sample.key}: meta has split {split!r}, not one of {', '.join(SPLITS)}. Put a "
                "split step before this one."
            )
        number = len(self._ends)
        line = json.dumps(to_payload(sample)).encode()
        self._lines.write(line)
        self._ends.append((self._ends[-1] if number else 0) + len(line))
        self._positions += self._position(sample.key)
        self._splits.append(SPLITS.index(split))
        names = tuple(sorted(sample.parts))
        part_set = self._part_sets.setdefault(names, len(self._part_sets))
        if part_set == len(self._tallies):
            self._tallies.append(SchemaTally())
        self._part_set_of.append(part_set)
        sizes = [part.ref.num_bytes for part in sample.parts.values() if part.ref is not None]
        self._part_bytes.append(sum(BLOCK_BYTES + padded(size) for size in sizes))
        problems = (name_problem(sample.key, name) for name in [*names, EXTENSION])
        problem = next((problem for problem in problems if problem is not None), None)
        if problem is None:
            self._tallies[part_set].add(sample)
        else:
            self._left_out[number] = LeftOut(
                NAME_RULE, sample.key, number, True, "member_name_unfit", problem
            )

    def sift(
        self,
        *,
        declared: Sequence[str] = (),
        optional: Sequence[str] = (),
        may_be_empty: bool = False,
    ) -> list[LeftOut]:
        """Decide which samples fit into one dataset; return the others with the reason.

        Readers take the parts of the first samples for the parts of all, so all have the same:
        those declared, or the most common set (of equals the largest, then the first by name).
        Parts of the modalities in `optional` may lack.
        """
        self._check_unique()
        part_set_of = np.asarray(self._part_set_of, np.int64)
        fits = np.ones(len(part_set_of), bool)
        fits[list(self._left_out)] = False
        counted = np.bincount(part_set_of[fits], minlength=len(self._part_sets))
        wanted = tuple(sorted(declared)) or wanted_parts(
            {names: int(counted[number]) for names, number in self._part_sets.items()}, optional
        )
        needed = set(required_parts(wanted, optional))
        left_out = sorted(self._left_out.values(), key=lambda one: one.key)
        differ: list[LeftOut] = []
        for names, part_set in self._part_sets.items():
            if needed <= set(names) <= set(wanted):
                continue
            detail = f"has {', '.join(names) or 'no part'}; the dataset has {', '.join(wanted)}"
            for number in np.flatnonzero(fits & (part_set_of == part_set)).tolist():
                key = self.sample(number).key
                differ.append(LeftOut(PARTS_RULE, key, number, False, "parts_differ", detail))
        fits[[one.number for one in differ]] = False
        self.fits = fits
        left_out += sorted(differ, key=lambda one: one.key)
        if not fits.any() and not may_be_empty:
            raise StepError(
                f"no sample is left to shard: {len(fits)} came in and {len(left_out)} do not fit. "
                f"The dataset's parts are {', '.join(wanted) or 'unknown'}; declare others, or "
                "look at why the steps before dropped so much."
            )
        return left_out

    def schema(self) -> Schema:
        """Return the fields that cover every sample that fits."""
        whole = SchemaTally()
        for part_set in self._fitting_sets().values():
            whole.update(self._tallies[part_set])
        return whole.schema()

    def cut(
        self,
        schema: Schema,
        *,
        samples_per_shard: int,
        max_shard_bytes: int,
        num_before: dict[str, int] | None = None,
        check: Callable[[Sample], None] | None = None,
    ) -> list[ShardPlan]:
        """Return the shards of every split that has samples, equal in number of samples to one.

        `num_before` counts the shards that a split has already: numbers go on from there. `check`
        is given every sample. Where some samples lack parts that others have, a shard begins with
        a few that have them all.

        Where a few large samples would not let equal shards keep to the byte limit, the shards
        that hold them are halved until they do, or hold one sample.
        """
        sizes = np.asarray(self._part_bytes, np.int64)
        for number in np.flatnonzero(self.fits).tolist():
            sample = self.sample(number)
            if check is not None:
                check(sample)
            sizes[number] += BLOCK_BYTES + padded(len(document(sample, schema)))
        fitting = self._fitting_sets()
        every = {name for names in fitting for name in names}
        whole = np.array([len(names) == len(every) for names in self._part_sets], bool)
        lacks_nothing = whole[np.asarray(self._part_set_of, np.int64)] if len(whole) else self.fits
        splits, order = np.asarray(self._splits), self._in_order()
        plans = []
        for split_number, split in enumerate(SPLITS):
            members = order[(self.fits & (splits == split_number))[order]]
            members = whole_first(members, lacks_nothing)
            bounds = shard_bounds(sizes[members].tolist(), samples_per_shard, max_shard_bytes)
            first_number = (num_before or {}).get(split, 0)
            for number, (first, last) in enumerate(bounds, first_number):
                in_order = whole_first(members[first:last], lacks_nothing)
                plans.append(ShardPlan(split, number, in_order))
        return plans

    def line(self, number: int) -> str:
        """Return a sample as JSON."""
        start = self._ends[number - 1] if number else 0
        self._lines.seek(start)
        return self._lines.read(self._ends[number] - start).decode()

    def sample(self, number: int) -> Sample:
        """Return a sample, its parts by reference and without prints."""
        return read_line(self.line(number))

    def find(self, key: str) -> int | None:
        """Return the number of a sample; None when it did not come."""
        wanted = np.frombuffer(self._position(key), ">u8")
        words = np.frombuffer(bytes(self._positions), ">u8").reshape(-1, 2)
        return next(iter(np.flatnonzero((words == wanted).all(axis=1)).tolist()), None)

    def fitting(self) -> Iterator[Sample]:
        """Yield the samples that fit, as they came."""
        return map(self.sample, np.flatnonzero(self.fits).tolist())

    def _position(self, key: str) -> bytes:
        return hashlib.sha256(f"{self._seed}\0{key}".encode()).digest()[:_POSITION_BYTES]

    def _fitting_sets(self) -> dict[tuple[str, ...], int]:
        numbers = set(np.unique(np.asarray(self._part_set_of, np.int64)[self.fits]).tolist())
        return {names: number for names, number in self._part_sets.items() if number in numbers}

    def _in_order(self) -> Ints:
        """Return the numbers of the samples in the order of their hashes."""
        words = np.frombuffer(bytes(self._positions), ">u8").reshape(-1, 2)
        return np.lexsort((words[:, 1], words[:, 0]))

    def _check_unique(self) -> None:
        order = self._in_order()
        words = np.frombuffer(bytes(self._positions), ">u8").reshape(-1, 2)[order]
        twice = np.flatnonzero((words[1:] == words[:-1]).all(axis=1))
        if len(twice):
            key = min(self.sample(int(order[at])).key for at in twice.tolist())
            raise AccountingError(
                f"two samples have the key {key!r}; keys are unique in a dataset, across all "
                "splits. Nothing was written. Make keys distinct where the data comes in."
            )


def read_line(line: str) -> Sample:
    """Return the sample that a line of the roster describes."""
    return from_payload(json.loads(line))


def described(roster: Roster, left_out: Iterable[LeftOut]) -> list[Json]:
    """Return samples that go into no shard as a task is told of them."""
    return [{**one._asdict(), "sample": roster.line(one.number)} for one in left_out]
