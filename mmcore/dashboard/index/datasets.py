"""What the index knows of dataset versions: their increments, and what their samples add up to."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mmcore.core.forgotten import load_forgotten
from mmcore.dashboard.index.build import FACETS, MAX_VALUE_CHARACTERS
from mmcore.dashboard.index.store import SampleDatabase

_PLAIN = (
    "id", "name", "version", "fingerprint", "committed_at", "num_samples", "num_bytes",
    "num_shards", "base",
)  # fmt: skip


@dataclass(frozen=True)
class Segment:
    """The samples of one increment, as far as they are indexed."""

    id: int
    state: str
    """`waiting`, `indexing`, `ready` or `failed`."""
    error: str
    total: int
    done: int
    first: int
    last: int


@dataclass(frozen=True)
class Dataset:
    """A dataset version."""

    id: int
    name: str
    version: str
    fingerprint: str
    committed_at: float
    num_samples: int
    num_bytes: int
    num_shards: int
    base: str | None
    # told by the manifests that the fingerprint stands for
    facts: Mapping[str, Any] = field(compare=False)
    funnel: Sequence[Mapping[str, Any]] = field(compare=False)
    lineage: Sequence[Mapping[str, Any]] = field(compare=False)
    segments: tuple[Segment, ...]
    hidden: frozenset[int] = frozenset()
    """The ids of samples of its increments that do not count in this version any more, or that are
    to be forgotten: nobody is shown them."""

    def __hash__(self) -> int:
        # caches look it up for each part of each sample
        return hash((self.id, self.version))

    @property
    def total(self) -> int:
        """Samples, kept or not."""
        return sum(segment.total for segment in self.segments)

    @property
    def done(self) -> int:
        """Samples that are indexed."""
        return sum(segment.done for segment in self.segments)

    @property
    def is_ready(self) -> bool:
        """Whether all samples are indexed."""
        return all(segment.state == "ready" for segment in self.segments)

    @property
    def error(self) -> str:
        """Why samples cannot be indexed, or nothing."""
        return next((one.error for one in self.segments if one.state == "failed"), "")


def find_dataset(database: SampleDatabase, name: str, version: str) -> Dataset | None:
    """Return a dataset version, or None."""
    row = (
        database.read()
        .execute("SELECT * FROM dataset WHERE name=? AND version=?", (name, version))
        .fetchone()
    )
    return None if row is None else _dataset(database, row)


def list_datasets(database: SampleDatabase, name: str | None = None) -> list[Dataset]:
    """Return dataset versions, the newest commit first."""
    where, values = ("WHERE name=? ", (name,)) if name else ("", ())
    rows = database.read().execute(
        f"SELECT * FROM dataset {where}ORDER BY committed_at DESC, id DESC",
        values,
    )
    return [_dataset(database, row) for row in rows.fetchall()]


def facet_counts(database: SampleDatabase, dataset: Dataset) -> dict[str, dict[str, int]]:
    """Return how many samples have each value of each facet, the most frequent value first."""
    totals: dict[str, dict[str, int]] = {facet: {} for facet in FACETS}
    for segment in dataset.segments:
        for row in database.read().execute(
            "SELECT facet, value, num FROM facet_value WHERE segment=?", (segment.id,)
        ):
            of_facet = totals[row["facet"]]
            of_facet[row["value"]] = of_facet.get(row["value"], 0) + row["num"]
    for facet, value in _values_of(database, dataset.hidden):
        if value in totals[facet]:
            totals[facet][value] -= 1
    return {
        facet: dict(sorted(values.items(), key=lambda item: (-item[1], item[0])))
        for facet, values in totals.items()
    }


def _values_of(database: SampleDatabase, ids: Iterable[int]) -> Iterator[tuple[str, str]]:
    """Yield the facets of samples, but for whether they are duplicates."""
    for number in ids:
        row = database.read().execute("SELECT * FROM sample WHERE id=?", (number,)).fetchone()
        for facet in FACETS:
            if facet != "duplicate":
                yield facet, str(row[facet])[:MAX_VALUE_CHARACTERS]


def losses(database: SampleDatabase, dataset: Dataset) -> list[sqlite3.Row]:
    """Return what was lost by step, status, rule and reason, the greatest loss first."""
    marks = ",".join("?" * len(dataset.segments))
    return (
        database.read()
        .execute(
            "SELECT step, status, rule, reason, sum(num) AS num FROM loss "
            f"WHERE segment IN ({marks}) GROUP BY 1, 2, 3, 4 ORDER BY num DESC",
            [segment.id for segment in dataset.segments],
        )
        .fetchall()
    )


def _dataset(database: SampleDatabase, row: sqlite3.Row) -> Dataset:
    segments = (
        database.read()
        .execute(
            "SELECT segment.* FROM dataset_segment JOIN segment ON segment.id = segment "
            "WHERE dataset=? ORDER BY position",
            (row["id"],),
        )
        .fetchall()
    )
    forgotten = load_forgotten(database.root, row["name"]).keys if database.root else frozenset()
    progress = tuple((one["id"], one["done"]) for one in segments)
    return Dataset(
        hidden=_hidden(database, progress, forgotten),
        **{name: row[name] for name in _PLAIN},
        facts=json.loads(row["facts"]),
        funnel=json.loads(row["funnel"]),
        lineage=json.loads(row["lineage"]),
        segments=tuple(
            Segment(
                id=one["id"],
                state=one["state"],
                error=one["error"] or "",
                total=one["total"],
                done=one["done"],
                first=one["first"] or 0,
                last=one["last"] or -1,
            )
            for one in segments
        ),
    )


@lru_cache(maxsize=256)
def _hidden(
    database: SampleDatabase, progress: tuple[tuple[int, int], ...], forgotten: frozenset[str]
) -> frozenset[int]:
    """Return the ids of what is forgotten, and of what a later increment put an end to.

    `progress` is each segment with how much of it is indexed: the answer holds until that changes.
    """
    connection = database.read()
    found: set[int] = set()
    over = set(forgotten)
    for segment, _ in reversed(progress):
        for key in over:
            rows = connection.execute(
                "SELECT id FROM sample WHERE segment=? AND key=?", (segment, key)
            )
            found.update(row["id"] for row in rows)
        rows = connection.execute("SELECT key FROM gone WHERE segment=?", (segment,))
        over.update(row["key"] for row in rows)
    return frozenset(found)
