"""Brings the index of samples up to date with the files of a root, in a process of its own.

`python -m mmcore.dashboard.index.build --root ROOT --state DIRECTORY` ends when nothing is left to
do, or when its standard input is closed: the dashboard that started it is gone then.
"""

import argparse
import fcntl
import itertools
import os
import sqlite3
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from mmcore.core.lineage import SHARD_STEP
from mmcore.dashboard.index.bits import BLOCK_BITS, BLOCK_SIZE, add
from mmcore.dashboard.index.catalogue import chains_of, segment_version, update_catalogue
from mmcore.dashboard.index.entries import Chain, Entry, entries, part_files, survivors
from mmcore.dashboard.index.store import SampleDatabase, text_table
from mmcore.errors import MmError
from mmcore.recipe.contents import source_url

FACETS = ("status", "split", "reason", "label", "language", "duplicate")
MAX_VALUES = 4096
"""Of one facet in a segment: what has more is for the search, not for a menu."""
_BATCH = 8192
MAX_VALUE_CHARACTERS = 200
_LOCK_NAME = "dashboard-samples.lock"


def update(root: str, database: SampleDatabase) -> None:
    """Index everything that is not indexed yet; an interrupted index goes on where it was."""
    update_catalogue(root, database)
    unfinished = (
        database.read()
        .execute(
            "SELECT id, name, fingerprint FROM segment WHERE state <> 'ready' ORDER BY id DESC"
        )
        .fetchall()
    )
    for row in unfinished:
        try:
            _fill(root, database, row["id"], row["name"], row["fingerprint"])
        except (MmError, ValueError, OSError) as error:
            with database.write() as connection:
                connection.execute(
                    "UPDATE segment SET state='failed', error=? WHERE id=?", (str(error), row["id"])
                )


def _fill(root: str, database: SampleDatabase, segment: int, name: str, fingerprint: str) -> None:
    version = segment_version(root, name, fingerprint)
    if version is None:
        return
    *before, chain = chains_of(root, version)
    inherited = [file.path for file in before[-1][SHARD_STEP].manifest.files] if before else []
    bases = {step: artifact.url for step, artifact in chain.items()}
    source = source_url(root, name)
    if source:
        bases["source"] = source
    writer = _Writer(database, segment)
    writer.begin(source, chain, inherited)
    stream = entries(chain, bases, inherited=inherited, skip=writer.num_done)
    while batch := list(itertools.islice(stream, _BATCH)):
        writer.add(batch)
    writer.finish()


class _Writer:
    """Adds samples to a segment: rows, text, sets and counts of a batch in one transaction."""

    def __init__(self, database: SampleDatabase, segment: int) -> None:
        self._database = database
        self._segment = segment
        connection = database.read()
        row = connection.execute(
            "SELECT done, first, last FROM segment WHERE id=?", (segment,)
        ).fetchone()
        self.num_done: int = row["done"]
        self._values: dict[tuple[str, str], int] = {
            (found["facet"], found["value"]): found["id"]
            for found in connection.execute(
                "SELECT id, facet, value FROM facet_value WHERE segment=?", (segment,)
            )
        }
        self._num_values = Counter(facet for facet, _ in self._values)
        self._files: dict[tuple[str, str], int] = {
            (found["base"], found["path"]): found["id"]
            for found in connection.execute(
                "SELECT id, base, path FROM file WHERE segment=?", (segment,)
            )
        }
        self._survivors: frozenset[str] = frozenset()
        self._next: int = row["last"] + 1 if row["last"] is not None else self._first_free()

    def begin(self, source: str | None, chain: Chain, inherited: Sequence[str]) -> None:
        """Note where the files of rows are, and that work has begun."""
        self._survivors = survivors(chain, inherited=inherited)
        rows = [
            (self._segment, file.step, position, file.path, file.first_key, file.last_key)
            for position, file in enumerate(part_files(chain, inherited=inherited))
        ]
        with self._database.write() as connection:
            connection.executemany("INSERT OR REPLACE INTO part_file VALUES (?,?,?,?,?,?)", rows)
            connection.execute(
                "UPDATE segment SET state='indexing', error=NULL, first=coalesce(first, ?) "
                "WHERE id=?",
                (self._next, self._segment),
            )
            if source:
                connection.execute(
                    "INSERT OR REPLACE INTO base VALUES (?,?,?)", (self._segment, "source", source)
                )

    def add(self, batch: Sequence[Entry]) -> None:
        """Add samples after those that are there."""
        first = self._next
        members: dict[int, list[int]] = defaultdict(list)
        with self._database.write() as connection:
            rows, texts = [], []
            for number, entry in enumerate(batch, start=first):
                values = self._values_of(connection, entry)
                for value in values:
                    members[value].append(number)
                texts.append((number, entry.words, " ".join(f"v{value}" for value in values)))
                rows.append(
                    (number, self._segment, *_columns(entry), self._parts(connection, entry))
                )
            connection.executemany(
                "INSERT INTO sample VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", rows
            )
            connection.executemany(
                f"INSERT INTO {text_table(self._segment)}(rowid, body, facets) VALUES (?,?,?)",
                texts,
            )
            _add_members(connection, members)
            _add_losses(connection, self._segment, batch)
            self._next = first + len(batch)
            self.num_done += len(batch)
            connection.execute(
                "UPDATE segment SET done=?, last=? WHERE id=?",
                (self.num_done, self._next - 1, self._segment),
            )

    def finish(self) -> None:
        """Let the text be searched fast, and say that all is there."""
        with self._database.write() as connection:
            table = text_table(self._segment)
            connection.execute(f"INSERT INTO {table}({table}) VALUES ('optimize')")
            connection.execute("UPDATE segment SET state='ready' WHERE id=?", (self._segment,))

    def _values_of(self, connection: sqlite3.Connection, entry: Entry) -> list[int]:
        facets = {
            "status": entry.status,
            "split": entry.split,
            "reason": entry.reason,
            "label": entry.label,
            "language": entry.language,
            "duplicate": "lost" if entry.twin else self._fate(entry.key),
        }
        found = [self._value(connection, name, value) for name, value in facets.items() if value]
        return [value for value in found if value is not None]

    def _fate(self, key: str) -> str:
        return "survivor" if key in self._survivors else ""

    def _value(self, connection: sqlite3.Connection, facet: str, value: str) -> int | None:
        value = value[:MAX_VALUE_CHARACTERS]
        known = self._values.get((facet, value))
        if known is not None:
            return known
        if self._num_values[facet] >= MAX_VALUES:
            return None
        cursor = connection.execute(
            "INSERT INTO facet_value(segment, facet, value, num) VALUES (?,?,?,0)",
            (self._segment, facet, value),
        )
        made = cursor.lastrowid
        assert made is not None, "a row was inserted"
        self._values[facet, value] = made
        self._num_values[facet] += 1
        return made

    def _parts(self, connection: sqlite3.Connection, entry: Entry) -> str:
        """Return the parts as `extension:file:offset:num_bytes:sha256`, separated by spaces."""
        spelled = []
        for part in entry.parts:
            file = self._files.get((part.base, part.path))
            if file is None:
                cursor = connection.execute(
                    "INSERT INTO file(segment, base, path) VALUES (?,?,?)",
                    (self._segment, part.base, part.path),
                )
                assert cursor.lastrowid is not None, "a row was inserted"
                file = self._files[part.base, part.path] = cursor.lastrowid
            spelled.append(f"{part.extension}:{file}:{part.offset}:{part.num_bytes}:{part.sha256}")
        return " ".join(spelled)

    def _first_free(self) -> int:
        (last,) = self._database.read().execute("SELECT max(last) FROM segment").fetchone()
        # a segment begins with a block of its own: the sets of two segments never share one
        return 1 if last is None else ((last >> BLOCK_BITS) + 1) << BLOCK_BITS


def _columns(entry: Entry) -> tuple[str, ...]:
    return (
        entry.key,
        entry.status,
        entry.split,
        entry.step,
        entry.rule,
        entry.reason,
        entry.detail[:1000],
        entry.twin,
        entry.label,
        entry.language,
        entry.source,
        entry.caption,
        entry.scores,
    )


def _add_members(connection: sqlite3.Connection, members: Mapping[int, Sequence[int]]) -> None:
    """Add ascending ids to the sets of facet values, and count them."""
    for value, ids in members.items():
        numbers = np.asarray(ids, np.int64)
        blocks = numbers >> BLOCK_BITS
        for block in np.unique(blocks).tolist():
            offsets = (numbers[blocks == block] & (BLOCK_SIZE - 1)).astype(np.uint16)
            at = (value, block)
            row = connection.execute(
                "SELECT data FROM member WHERE value=? AND block=?", at
            ).fetchone()
            data = add(None if row is None else row["data"], offsets)
            connection.execute("INSERT OR REPLACE INTO member VALUES (?,?,?)", (*at, data))
    connection.executemany(
        "UPDATE facet_value SET num = num + ? WHERE id=?",
        [(len(ids), value) for value, ids in members.items()],
    )


def _add_losses(connection: sqlite3.Connection, segment: int, batch: Sequence[Entry]) -> None:
    losses = Counter(
        (entry.step, entry.status, entry.rule, entry.reason)
        for entry in batch
        if entry.status != "kept"
    )
    connection.executemany(
        "INSERT INTO loss VALUES (?,?,?,?,?,?) ON CONFLICT DO UPDATE SET num = num + excluded.num",
        [(segment, *loss, num) for loss, num in losses.items()],
    )


def _end_with_parent() -> None:
    """End this process as soon as whoever holds our standard input has let go of it."""

    def wait() -> None:
        # not through sys.stdin: its lock would be held when the interpreter ends
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring the index up to date, unless another process is at it."""
    parser = argparse.ArgumentParser(prog="mmcore.dashboard.index.build")
    parser.add_argument("--root", required=True)
    parser.add_argument("--state", required=True)
    chosen = parser.parse_args(arguments)
    _end_with_parent()
    os.nice(10)  # pages come first
    os.makedirs(chosen.state, exist_ok=True)
    with open(os.path.join(chosen.state, _LOCK_NAME), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        update(chosen.root, SampleDatabase(chosen.state))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
