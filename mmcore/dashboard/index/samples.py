"""Questions to the index of samples: pages by any filters and words, counts, one sample.

Pages are keyset pages over ids, so a deep one costs what the first one costs.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from mmcore.dashboard.index.bits import count
from mmcore.dashboard.index.datasets import Dataset
from mmcore.dashboard.index.query import Query, among, joined_blocks, value_ids, wanted_ids
from mmcore.dashboard.index.store import SampleDatabase

MAX_COUNTED = 1000
"""Matches of words are counted so far and no further."""


@dataclass(frozen=True)
class Page:
    """Samples in their order, and whether there are more on either side."""

    rows: Sequence[sqlite3.Row]
    has_before: bool
    has_after: bool


def find_page(
    database: SampleDatabase,
    dataset: Dataset,
    query: Query,
    *,
    after: int = 0,
    before: int = 0,
    limit: int = 48,
) -> Page:
    """Return the samples after an id, or those just before one."""
    is_back = bool(before)
    ids = list(islice(wanted_ids(database, dataset, query, before or after, is_back), limit + 1))
    has_more = len(ids) > limit
    ids = ids[:limit]
    marks = ",".join("?" * len(ids))
    rows = (
        database.read()
        .execute(f"SELECT * FROM sample WHERE id IN ({marks}) ORDER BY id", ids)
        .fetchall()
    )
    return Page(rows, has_more if is_back else bool(after), True if is_back else has_more)


def neighbours(
    database: SampleDatabase, dataset: Dataset, query: Query, sample: int
) -> tuple[str | None, str | None]:
    """Return the keys of the samples before and after one, among those wanted."""
    keys: list[str | None] = []
    for is_back in (True, False):
        found = next(wanted_ids(database, dataset, query, sample, is_back), None)
        row = (
            database.read().execute("SELECT key FROM sample WHERE id=?", (found,)).fetchone()
            if found is not None
            else None
        )
        keys.append(row["key"] if row else None)
    return keys[0], keys[1]


@lru_cache(maxsize=1024)
def count_samples(database: SampleDatabase, dataset: Dataset, query: Query) -> tuple[int, bool]:
    """Return how many samples are wanted, and whether there may be more than that.

    A dataset that is being indexed is another one after each step: what is kept is never old.
    """
    if query.is_empty:
        return dataset.done - len(dataset.hidden), False
    if not query.words.strip() and not query.twin:
        return _count_filtered(database, dataset, query.filters), False
    found = sum(
        1 for _ in islice(wanted_ids(database, dataset, query, 0, is_back=False), MAX_COUNTED + 1)
    )
    return min(found, MAX_COUNTED), found > MAX_COUNTED


def find_sample(database: SampleDatabase, dataset: Dataset, key: str) -> sqlite3.Row | None:
    """Return a sample of a dataset version by its key, or None."""
    for segment in dataset.segments:
        row: sqlite3.Row | None = (
            database.read()
            .execute("SELECT * FROM sample WHERE segment=? AND key=?", (segment.id, key))
            .fetchone()
        )
        if row is not None and row["id"] not in dataset.hidden:
            return row
    return None


def find_samples(
    database: SampleDatabase, dataset: Dataset, keys: Sequence[str]
) -> dict[str, sqlite3.Row]:
    """Return samples by their keys, those that are there."""
    found: dict[str, sqlite3.Row] = {}
    marks = ",".join("?" * len(keys))
    for segment in dataset.segments if keys else ():
        for row in database.read().execute(
            f"SELECT * FROM sample WHERE segment=? AND key IN ({marks})",
            [segment.id, *keys],
        ):
            if row["id"] not in dataset.hidden:
                found.setdefault(row["key"], row)
    return found


def count_outlived(database: SampleDatabase, dataset: Dataset, key: str) -> int:
    """Return how many samples were dropped because this one is there; counts to a thousand."""
    ids = wanted_ids(database, dataset, Query(twin=key), 0, is_back=False)
    return sum(1 for _ in islice(ids, MAX_COUNTED))


def _count_filtered(
    database: SampleDatabase, dataset: Dataset, filters: tuple[tuple[str, str], ...]
) -> int:
    """Count what is in all sets."""
    connection = database.read()
    total = 0
    for segment in dataset.segments:
        values = value_ids(connection, segment.id, filters)
        if values is None:
            continue
        if len(values) == 1:
            (value,) = values
            (num,) = connection.execute(
                "SELECT num FROM facet_value WHERE id=?", (value,)
            ).fetchone()
            total += num
        else:
            blocks = joined_blocks(connection, list(values), 0, 1 << 62, is_back=False)
            total += sum(count(data) for _, data in blocks)
        here = sorted(one for one in dataset.hidden if segment.first <= one <= segment.last)
        total -= sum(1 for _ in among(connection, iter(here), list(values)))
    return total
