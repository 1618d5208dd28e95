"""Which samples are wanted, and their ids in order, whatever is combined.

Filters are sets (`bits`); words go to full text search, which takes the filters along as words of
its own; a twin has an index. All of them begin in the middle as fast as at the start.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mmcore.dashboard.index.bits import BLOCK_BITS, Offsets, intersect
from mmcore.dashboard.index.datasets import Dataset, Segment
from mmcore.dashboard.index.store import SampleDatabase, text_table

_WORD = re.compile(r"[^\W_]+")
_PIECE = re.compile(r'"([^"]*)"|([^\s"]+)')
_MAX_WORDS = 12
_MIN_PREFIX_CHARACTERS = 3


@dataclass(frozen=True)
class Query:
    """Which samples are wanted."""

    filters: tuple[tuple[str, str], ...] = ()
    """(facet, value), of `FACETS`."""
    words: str = ""
    twin: str = ""
    """The key of a sample: only those that it outlived."""

    @property
    def is_empty(self) -> bool:
        """Whether all samples are wanted."""
        return not (self.filters or self.words.strip() or self.twin)


def wanted_ids(
    database: SampleDatabase, dataset: Dataset, query: Query, start: int, is_back: bool
) -> Iterator[int]:
    """Yield the ids of the samples wanted after `start`, or before it in falling order.

    Segments follow each other as the increments did, whatever their ids. What is hidden in this
    version is passed over.
    """
    found = _ids(database, dataset, query, start, is_back)
    return (number for number in found if number not in dataset.hidden)


def _ids(
    database: SampleDatabase, dataset: Dataset, query: Query, start: int, is_back: bool
) -> Iterator[int]:
    segments = [segment for segment in dataset.segments if segment.done]
    expression = _expression(database, segments, query.words)
    if query.words.strip() and not expression:
        return
    if is_back:
        segments = segments[::-1]
    if start:
        at = next((i for i, one in enumerate(segments) if one.first <= start <= one.last), None)
        segments = [] if at is None else segments[at:]
    for segment in segments:
        is_here = segment.first <= start <= segment.last
        first = start + 1 if is_here and not is_back else segment.first
        last = start - 1 if is_here and is_back else segment.last
        yield from _ids_of_segment(database, segment.id, query, expression, first, last, is_back)


def _ids_of_segment(
    database: SampleDatabase,
    segment: int,
    query: Query,
    expression: str,
    first: int,
    last: int,
    is_back: bool,
) -> Iterator[int]:
    order = "DESC" if is_back else "ASC"
    bounds = (first, last)
    connection = database.read()
    if query.is_empty:
        rows = connection.execute(
            f"SELECT id FROM sample WHERE id BETWEEN ? AND ? ORDER BY id {order}",
            bounds,
        )
        yield from (row[0] for row in rows)
        return
    values = value_ids(connection, segment, query.filters)
    if values is None:
        return
    if query.twin:
        rows = connection.execute(
            "SELECT id FROM sample WHERE segment=? AND twin=? AND twin <> ''"
            " AND id BETWEEN ? AND ? "
            f"ORDER BY id {order}",
            (segment, query.twin, *bounds),
        )
        yield from among(connection, (row[0] for row in rows), list(values))
    elif expression:
        facets = "".join(f" AND facets:v{value}" for value in values)
        table = text_table(segment)
        rows = connection.execute(
            f"SELECT rowid FROM {table} WHERE {table} MATCH ? AND rowid BETWEEN ? AND ? "
            f"ORDER BY rowid {order}",
            (f"(body:({expression})){facets}", *bounds),
        )
        yield from (row[0] for row in rows)
    elif values:
        yield from _intersection(connection, list(values), first, last, is_back)


def _expression(database: SampleDatabase, segments: Sequence[Segment], words: str) -> str:
    """Return what to look for: whole words, or where none fits, words that begin like the last.

    A word's beginning gathers the samples of many words, which takes longer.
    """
    whole = match_expression(words)
    if not whole or any(_is_found(database, segment.id, whole) for segment in segments):
        return whole
    return match_expression(words, is_beginning=True)


def _is_found(database: SampleDatabase, segment: int, expression: str) -> bool:
    table = text_table(segment)
    row = (
        database.read()
        .execute(
            f"SELECT rowid FROM {table} WHERE {table} MATCH ? LIMIT 1",
            (f"body:({expression})",),
        )
        .fetchone()
    )
    return row is not None


def match_expression(words: str, *, is_beginning: bool = False) -> str:
    """Return words as FTS5 reads them: all must be there, in any order.

    Words that are quoted, or joined as in a key or a path, must stand side by side.

    >>> match_expression('"red apple" tree birds/owl-7')
    '"red apple" AND "tree" AND "birds owl 7"'
    """
    pieces = [quoted or loose for quoted, loose in _PIECE.findall(words)][:_MAX_WORDS]
    phrases = [" ".join(found) for piece in pieces if (found := _WORD.findall(piece))]
    terms = [f'"{phrase}"' for phrase in phrases]
    if is_beginning and phrases and len(phrases[-1]) >= _MIN_PREFIX_CHARACTERS:
        terms[-1] += "*"
    return " AND ".join(terms)


def value_ids(
    connection: sqlite3.Connection, segment: int, filters: Sequence[tuple[str, str]]
) -> dict[int, str] | None:
    """Return facets by the ids of their values, the rarest first; None where one has no sample."""
    found = []
    for facet, value in filters:
        row = connection.execute(
            "SELECT id, num FROM facet_value WHERE segment=? AND facet=? AND value=?",
            (segment, facet, value),
        ).fetchone()
        if row is None:
            return None
        found.append((row["num"], row["id"], facet))
    return {value: facet for _, value, facet in sorted(found)}


def _intersection(
    connection: sqlite3.Connection, values: Sequence[int], first: int, last: int, is_back: bool
) -> Iterator[int]:
    for block, members in _blocks(connection, values, first, last, is_back):
        ids = members.astype(np.int64) + (block << BLOCK_BITS)
        ids = ids[(ids >= first) & (ids <= last)]
        if is_back:
            ids = ids[::-1]
        for at in range(0, ids.size, 256):  # most callers want one page
            yield from ids[at : at + 256].tolist()


def _blocks(
    connection: sqlite3.Connection, values: Sequence[int], first: int, last: int, is_back: bool
) -> Iterator[tuple[int, Offsets]]:
    for block, data in joined_blocks(connection, values, first, last, is_back):
        yield block, intersect(data)


def joined_blocks(
    connection: sqlite3.Connection, values: Sequence[int], first: int, last: int, is_back: bool
) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the blocks that all sets have."""
    rarest, *others = values
    order = "DESC" if is_back else "ASC"
    rows = connection.execute(
        "SELECT block, data FROM member WHERE value=? AND block BETWEEN ? AND ? "
        f"ORDER BY block {order}",
        (rarest, first >> BLOCK_BITS, last >> BLOCK_BITS),
    )
    for row in rows:
        data = [row["data"]]
        for value in others:
            other = connection.execute(
                "SELECT data FROM member WHERE value=? AND block=?", (value, row["block"])
            ).fetchone()
            if other is None:
                break
            data.append(other["data"])
        else:
            yield row["block"], data


def among(
    connection: sqlite3.Connection, ids: Iterator[int], values: Sequence[int]
) -> Iterator[int]:
    """Yield those ids that are in all sets."""
    cached: dict[int, frozenset[int]] = {}
    for number in ids:
        block = number >> BLOCK_BITS
        if values and block not in cached:
            found = dict(_blocks(connection, values, number, number, is_back=False))
            cached = {block: frozenset(found[block].tolist()) if block in found else frozenset()}
        if not values or number - (block << BLOCK_BITS) in cached[block]:
            yield number
