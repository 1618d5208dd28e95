"""One SQLite file for all pages: written by one thread at a time, read by many.

It holds nothing that is not in the files of the root. When it is missing, torn or of another
version, it is thrown away and built again.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PARTS = "CREATE TABLE IF NOT EXISTS part (name TEXT PRIMARY KEY, version INTEGER NOT NULL)"


class Database:
    """The index file. Each part of it (runs, samples) brings its own tables by `add_part`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._local = threading.local()
        self._writing = threading.RLock()
        self._connections: list[sqlite3.Connection] = []
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            self._prepare()
        except sqlite3.DatabaseError:
            # torn, or no database at all: there is nothing in it that the files do not say
            self.close()
            for suffix in ("", "-wal", "-shm"):
                if os.path.exists(path + suffix):
                    os.unlink(path + suffix)
            self._prepare()

    def add_part(self, name: str, *, version: int, schema: str, tables: tuple[str, ...]) -> None:
        """Create the tables of one part; those of another version are dropped and start empty.

        `schema` is a script of `CREATE ... IF NOT EXISTS`; `tables` are the names that it makes.
        """
        with self.write() as connection:
            row = connection.execute("SELECT version FROM part WHERE name = ?", (name,)).fetchone()
            if row is not None and row[0] != version:
                for table in tables:
                    connection.execute(f'DROP TABLE IF EXISTS "{table}"')
            for statement in _statements(schema):
                connection.execute(statement)
            connection.execute("INSERT OR REPLACE INTO part VALUES (?, ?)", (name, version))

    def read(self) -> sqlite3.Connection:
        """Return this thread's connection, for SELECT. Rows can be read by column name."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect()
            self._local.connection = connection
        return connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection inside a transaction: all of it is seen, or none. One at a time."""
        connection = self.read()
        with self._writing:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def close(self) -> None:
        """Close every thread's connection."""
        with self._writing:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
            self._local = threading.local()

    def _prepare(self) -> None:
        with self.write() as connection:
            connection.execute(_PARTS)
            connection.execute("SELECT name, version FROM part").fetchall()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=30, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        # an index that can be built again need not survive a power cut
        for pragma in ("journal_mode = WAL", "synchronous = OFF", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        with self._writing:
            self._connections.append(connection)
        return connection


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script; executescript() would commit the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
