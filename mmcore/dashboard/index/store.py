"""The index of samples on disk: one SQLite file (WAL) that can be thrown away and rebuilt.

A segment holds the samples of one increment of a dataset; a dataset version is a list of segments,
so versions that share increments share their rows. The ids of a segment follow each other, in the
order of its shards and then of what was left out.
"""

import os
import sqlite3

from mmcore.dashboard.index.database import Database

# another version is another file: an old one is never read, and is deleted when it is seen
_FILE_NAME = "dashboard-samples-2.sqlite"

# AUTOINCREMENT: an id that was given is never another's, so that caches may go by it
_SCHEMA = """
CREATE TABLE IF NOT EXISTS dataset(
    id INTEGER PRIMARY KEY, name TEXT, version TEXT, fingerprint TEXT, committed_at REAL,
    num_samples INTEGER, num_bytes INTEGER, num_shards INTEGER, base TEXT,
    facts TEXT, funnel TEXT, lineage TEXT, UNIQUE (name, version)
);
CREATE TABLE IF NOT EXISTS segment(
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, fingerprint TEXT, state TEXT, error TEXT,
    total INTEGER, done INTEGER, first INTEGER, last INTEGER, UNIQUE (name, fingerprint)
);
CREATE TABLE IF NOT EXISTS dataset_segment(
    dataset INTEGER, position INTEGER, segment INTEGER, PRIMARY KEY (dataset, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shard(
    dataset INTEGER, path TEXT, num_samples INTEGER, num_bytes INTEGER, sha256 TEXT,
    PRIMARY KEY (dataset, path)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gone(
    segment INTEGER, key TEXT, reason TEXT, PRIMARY KEY (segment, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS base(
    segment INTEGER, name TEXT, url TEXT, PRIMARY KEY (segment, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS part_file(
    segment INTEGER, step TEXT, position INTEGER, path TEXT, first_key TEXT, last_key TEXT,
    PRIMARY KEY (segment, step, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS file(
    id INTEGER PRIMARY KEY AUTOINCREMENT, segment INTEGER, base TEXT, path TEXT
);
CREATE TABLE IF NOT EXISTS sample(
    id INTEGER PRIMARY KEY, segment INTEGER, key TEXT, status TEXT, split TEXT, step TEXT,
    rule TEXT, reason TEXT, detail TEXT, twin TEXT, label TEXT, language TEXT, source TEXT,
    caption TEXT, scores TEXT, parts TEXT
);
CREATE INDEX IF NOT EXISTS sample_key ON sample(segment, key);
CREATE INDEX IF NOT EXISTS sample_twin ON sample(segment, twin) WHERE twin <> '';
CREATE TABLE IF NOT EXISTS facet_value(
    id INTEGER PRIMARY KEY AUTOINCREMENT, segment INTEGER, facet TEXT, value TEXT, num INTEGER,
    UNIQUE (segment, facet, value)
);
CREATE TABLE IF NOT EXISTS member(
    value INTEGER, block INTEGER, data BLOB, PRIMARY KEY (value, block)
);
CREATE TABLE IF NOT EXISTS loss(
    segment INTEGER, step TEXT, status TEXT, rule TEXT, reason TEXT, num INTEGER,
    PRIMARY KEY (segment, step, status, rule, reason)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS training(
    id INTEGER PRIMARY KEY, name TEXT, fingerprint TEXT, dataset TEXT, committed_at REAL,
    facts TEXT, config TEXT, models TEXT, evaluation TEXT, UNIQUE (name, fingerprint)
);
"""

_TABLES = (
    "dataset", "segment", "dataset_segment", "shard", "gone", "base", "part_file", "file",
    "sample", "facet_value", "member", "loss", "training",
)  # fmt: skip


class SampleDatabase(Database):
    """The index file, beside that of the runs: it is larger and another process writes it.

    Whoever shows samples gives the root, so that nothing is shown that is to be forgotten.
    """

    def __init__(self, state_directory: str, root: str | None = None) -> None:
        self.root = root
        super().__init__(os.path.join(state_directory, _FILE_NAME))
        self._inode = _inode(self.path)
        self.add_part("samples", version=1, schema=_SCHEMA, tables=_TABLES)

    @property
    def is_there(self) -> bool:
        """Whether the file has not been thrown away since it was opened."""
        return _inode(self.path) == self._inode

    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        # pages of a large index are read through the page cache of the system, not copied
        connection.execute("PRAGMA mmap_size = 1073741824")
        connection.execute("PRAGMA cache_size = -32768")
        return connection


def text_table(segment: int) -> str:
    """Return the name of the table for full text search in a segment."""
    return f"text_{segment}"


def add_text_table(connection: sqlite3.Connection, segment: int) -> None:
    """Make the table for full text search; `facets` holds the ids of facet values as words."""
    connection.execute(
        f"CREATE VIRTUAL TABLE {text_table(segment)} USING fts5(body, facets, content='', "
        "columnsize=0, tokenize='unicode61 remove_diacritics 2')"
    )


def drop_segment(connection: sqlite3.Connection, segment: int) -> None:
    """Delete what is known of a segment."""
    bounds = connection.execute("SELECT first, last FROM segment WHERE id=?", (segment,)).fetchone()
    connection.execute(f"DROP TABLE IF EXISTS {text_table(segment)}")
    connection.execute(
        "DELETE FROM member WHERE value IN (SELECT id FROM facet_value WHERE segment=?)", (segment,)
    )
    if bounds is not None and bounds["first"] is not None:
        connection.execute(
            "DELETE FROM sample WHERE id BETWEEN ? AND ?", (bounds["first"], bounds["last"])
        )
    for table in ("facet_value", "gone", "base", "part_file", "file", "loss"):
        connection.execute(f"DELETE FROM {table} WHERE segment=?", (segment,))
    connection.execute("DELETE FROM segment WHERE id=?", (segment,))


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0
