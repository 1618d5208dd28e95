"""Runs by time, status, recipe and words: ten thousand are as quick to page through as ten.

Only runs that are new or have not ended are read again. The page key is the run's id, which sorts
by time; counts are kept by triggers as rows change.
"""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmcore import storage
from mmcore.core.runs import ENDED, effective_status
from mmcore.dashboard.index.database import Database
from mmcore.errors import StorageError

PAGE_SIZE = 50
_VERSION = 2
_TABLES = ("run_text", "run", "run_count")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (
  run_id TEXT PRIMARY KEY, name TEXT NOT NULL, recipe TEXT NOT NULL, executor TEXT NOT NULL,
  status TEXT NOT NULL, started_at TEXT, ended_at TEXT, seconds REAL, error TEXT, deployment TEXT,
  words TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS run_by_status ON run (status, run_id);
CREATE INDEX IF NOT EXISTS run_by_name ON run (name, run_id);
CREATE INDEX IF NOT EXISTS run_by_name_status ON run (name, status, run_id);
CREATE TABLE IF NOT EXISTS run_count (
  name TEXT NOT NULL, status TEXT NOT NULL, num INTEGER NOT NULL, PRIMARY KEY (name, status)
) WITHOUT ROWID;
CREATE VIRTUAL TABLE IF NOT EXISTS run_text
  USING fts5(words, content='run', columnsize=0, tokenize='trigram case_sensitive 1');
CREATE TRIGGER IF NOT EXISTS run_added AFTER INSERT ON run BEGIN
  INSERT INTO run_text (rowid, words) VALUES (new.rowid, new.words);
  INSERT INTO run_count VALUES (new.name, new.status, 1)
    ON CONFLICT (name, status) DO UPDATE SET num = num + 1;
END;
CREATE TRIGGER IF NOT EXISTS run_removed AFTER DELETE ON run BEGIN
  INSERT INTO run_text (run_text, rowid, words) VALUES ('delete', old.rowid, old.words);
  UPDATE run_count SET num = num - 1 WHERE name = old.name AND status = old.status;
END;
CREATE TRIGGER IF NOT EXISTS run_changed AFTER UPDATE OF status, name ON run BEGIN
  UPDATE run_count SET num = num - 1 WHERE name = old.name AND status = old.status;
  INSERT INTO run_count VALUES (new.name, new.status, 1)
    ON CONFLICT (name, status) DO UPDATE SET num = num + 1;
END;
CREATE TRIGGER IF NOT EXISTS run_words_changed AFTER UPDATE OF words ON run
WHEN old.words <> new.words BEGIN
  INSERT INTO run_text (run_text, rowid, words) VALUES ('delete', old.rowid, old.words);
  INSERT INTO run_text (rowid, words) VALUES (new.rowid, new.words);
END;
"""
_ROW = (
    "run_id", "name", "recipe", "executor", "status", "started_at", "ended_at", "seconds", "error",
    "deployment", "words",
)  # fmt: skip
_UPSERT = (
    f"INSERT INTO run ({', '.join(_ROW)}) VALUES ({', '.join('?' * len(_ROW))}) "  # noqa: S608
    "ON CONFLICT (run_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _ROW[1:])
)
_MAX_ERROR_CHARACTERS = 2000
_LOCAL_SECONDS, _REMOTE_SECONDS = 0.5, 10.0
_DEAD_SECONDS = 10.0  # between two looks at runs that died: their record may yet be closed
_BATCH = 500
_MIN_INDEXED_CHARACTERS = 3  # the index is of trigrams
_MAX_RARE = 200
_NUM_LOOKED_UP = 8  # last characters of a word: ids begin alike, and each trigram costs


@dataclass(frozen=True)
class RunPage:
    """A page of runs, the newest first."""

    runs: Sequence[sqlite3.Row]
    newer: str
    """The id that `after` takes for the page before; empty when this is the first."""
    older: str
    """The id that `before` takes for the page after; empty when this is the last."""


class RunIndex:
    """What is known of the runs below a root."""

    def __init__(self, database: Database, root: str) -> None:
        self._database = database
        self._root = root
        self._directory = storage.join(root, "runs")
        self._is_local = storage.is_local(root)
        database.add_part("runs", version=_VERSION, schema=_SCHEMA, tables=_TABLES)
        rows = database.read().execute("SELECT run_id, status FROM run").fetchall()
        self._known = {row["run_id"] for row in rows}
        self._open = {row["run_id"] for row in rows if row["status"] not in (*ENDED, "died")}
        self._dead = {row["run_id"] for row in rows if row["status"] == "died"}
        self._lock = threading.Lock()
        self._looked_at = self._dead_looked_at = 0.0
        self._listed_at: int | None = None
        self.num_unread = 0
        """Runs that were found and not read yet; more than 0 while a large root is indexed."""

    def refresh(self) -> None:
        """Take in what changed, unless it was looked at a moment ago or another thread does."""
        interval = _LOCAL_SECONDS if self._is_local else _REMOTE_SECONDS
        if time.monotonic() - self._looked_at < interval or not self._lock.acquire(blocking=False):
            return
        try:
            self._sync()
            self._looked_at = time.monotonic()
        finally:
            self._lock.release()

    def sync(self) -> None:
        """Take in everything that changed, now."""
        with self._lock:
            self._sync()
            self._looked_at = time.monotonic()

    def page(
        self, *, status: str = "", name: str = "", text: str = "", before: str = "", after: str = ""
    ) -> RunPage:
        """Return a page of the runs that fit, older than `before` or newer than `after`."""
        wheres: list[str] = ["1"]
        values: list[str | int] = []
        for column, value in (("status", status), ("name", name)):
            if value:
                wheres.append(f"{column} = ?")
                values.append(value)
        searched = text.lower().split()
        for word in searched:
            # five times as quick as LIKE, and takes % and _ as they are
            wheres.append("instr(words, ?)")
            values.append(word)
        rare = self._rare(searched)
        if rare is not None:
            wheres.append(f"rowid IN ({','.join('?' * len(rare))})")
            values += rare
        if before:
            wheres.append("run_id < ?")
            values.append(before)
        elif after:
            wheres.append("run_id > ?")
            values.append(after)
        order = "ASC" if after else "DESC"
        query = (
            f"SELECT * FROM run WHERE {' AND '.join(wheres)} "  # noqa: S608 - columns are ours
            f"ORDER BY run_id {order} LIMIT {PAGE_SIZE + 1}"
        )
        rows = self._database.read().execute(query, values).fetchall()
        has_more = len(rows) > PAGE_SIZE
        rows = rows[:PAGE_SIZE]
        if after:
            rows.reverse()
        if not rows:
            return RunPage([], "", "")
        is_not_first = bool(before) or (bool(after) and has_more)
        is_not_last = has_more if not after else True
        return RunPage(
            rows,
            newer=rows[0]["run_id"] if is_not_first else "",
            older=rows[-1]["run_id"] if is_not_last else "",
        )

    def _rare(self, searched: Sequence[str]) -> Sequence[int] | None:
        """Return which rows can hold these words, where they are few.

        None where they are many: those of a page are soon come across in the order of the list.
        """
        indexed = [
            word for word in searched if len(word) >= _MIN_INDEXED_CHARACTERS and "\0" not in word
        ]
        if not indexed:
            return None
        ends = [word[-_NUM_LOOKED_UP:].replace('"', '""') for word in indexed]
        phrases = " AND ".join(f'"{end}"' for end in ends)
        query = "SELECT rowid FROM run_text WHERE run_text MATCH ? LIMIT ?"
        rows = self._database.read().execute(query, (phrases, _MAX_RARE + 1))
        found = [row[0] for row in rows]
        return found if len(found) <= _MAX_RARE else None

    def latest(self, statuses: Sequence[str], limit: int) -> list[sqlite3.Row]:
        """Return the newest runs that have one of these statuses."""
        rows: list[sqlite3.Row] = []
        for status in statuses:
            rows += self._database.read().execute(
                "SELECT * FROM run WHERE status = ? ORDER BY run_id DESC LIMIT ?", (status, limit)
            )
        return sorted(rows, key=lambda row: str(row["run_id"]), reverse=True)[:limit]

    def newest_of(self, name: str) -> sqlite3.Row | None:
        """Return the newest run of a recipe's name."""
        row: sqlite3.Row | None = (
            self._database.read()
            .execute("SELECT * FROM run WHERE name = ? ORDER BY run_id DESC LIMIT 1", (name,))
            .fetchone()
        )
        return row

    def counts(self, name: str = "") -> dict[str, int]:
        """Return how many runs there are by status."""
        query = (
            "SELECT status, sum(num) AS num FROM run_count WHERE ? IN ('', name) GROUP BY status"
        )
        rows = self._database.read().execute(query, (name,))
        return {row["status"]: row["num"] for row in rows if row["num"]}

    def names(self) -> list[str]:
        """Return the names of recipes that have runs, sorted."""
        query = "SELECT name FROM run_count GROUP BY name HAVING sum(num) > 0 ORDER BY name"
        return [row["name"] for row in self._database.read().execute(query)]

    def _sync(self) -> None:
        changed_at = self._changed_at()
        if changed_at is None or changed_at != self._listed_at:
            found = set(storage.list_directories(self._directory))
            self._forget(self._known - found)
            news = sorted(found - self._known, reverse=True)
            self.num_unread = len(news)
            missing = 0
            for first in range(0, len(news), _BATCH):
                missing += self._take_in(news[first : first + _BATCH])
                self.num_unread = max(0, len(news) - first - _BATCH)
            # a directory whose run.json is being written is looked for again
            self._listed_at = None if missing else changed_at
        self._take_in(sorted(self._open))
        if time.monotonic() - self._dead_looked_at > _DEAD_SECONDS:
            self._take_in(sorted(self._dead)[-_BATCH:])
            self._dead_looked_at = time.monotonic()

    def _changed_at(self) -> int | None:
        """Return when the directory of runs last got or lost one; None where that is not said."""
        if not self._is_local:
            return None
        try:
            return os.stat(self._directory).st_mtime_ns
        except FileNotFoundError:
            return 0

    def _take_in(self, run_ids: Sequence[str]) -> int:
        """Read these runs; return how many have no record yet."""
        records = [record for run_id in run_ids if (record := self._record(run_id)) is not None]
        if records:
            with self._database.write() as connection:
                connection.executemany(_UPSERT, [_row(record) for record in records])
        for record in records:
            run_id, status = str(record["run_id"]), record["status"]
            self._known.add(run_id)
            self._open.discard(run_id)
            self._dead.discard(run_id)
            if status == "died":
                self._dead.add(run_id)
            elif status not in ENDED:
                self._open.add(run_id)
        return len(run_ids) - len(records)

    def _record(self, run_id: str) -> Mapping[str, Any] | None:
        url = storage.join(self._directory, run_id)
        try:
            data = storage.read_if_exists(storage.join(url, "run.json"))
            if data is None:
                return None
            record = {**json.loads(data), "run_id": run_id, "url": url}
            return {**record, "status": effective_status(record)}
        except (ValueError, KeyError, TypeError, StorageError) as error:
            return _damaged(run_id, error)

    def _forget(self, run_ids: set[str]) -> None:
        if not run_ids:
            return
        with self._database.write() as connection:
            connection.executemany("DELETE FROM run WHERE run_id = ?", [(one,) for one in run_ids])
        self._known -= run_ids
        self._open -= run_ids
        self._dead -= run_ids


def _row(record: Mapping[str, Any]) -> tuple[Any, ...]:
    texts = {
        name: str(record.get(name) or "")
        for name in ("run_id", "name", "recipe", "executor", "error", "deployment", "flow_name")
    }
    texts["error"] = texts["error"][:_MAX_ERROR_CHARACTERS]
    return (
        texts["run_id"],
        texts["name"],
        texts["recipe"],
        texts["executor"],
        str(record["status"]),
        record.get("started_at"),
        record.get("ended_at"),
        record.get("seconds"),
        texts["error"] or None,
        texts["deployment"] or None,
        " ".join(texts.values()).lower(),
    )


def _damaged(run_id: str, error: Exception) -> Mapping[str, Any]:
    return {
        "run_id": run_id,
        "name": "unknown",
        "status": "failed",
        "error": f"the record of this run cannot be read: {error}",
    }
