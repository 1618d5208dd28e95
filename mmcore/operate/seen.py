"""Which files of a watched place were told of: a small SQLite file that may be thrown away."""

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Sequence

from mmcore import storage
from mmcore.errors import StorageError
from mmcore.storage import FileInfo


class SeenFiles:
    """Remembers files by path, size and version. For one thread."""

    def __init__(self, root: str, url: str, dataset: str) -> None:
        self.path = seen_path(root, url, dataset)
        self._known: dict[str, tuple[int, str]] | None = None

    def news(self, files: Iterable[FileInfo]) -> list[FileInfo]:
        """Return the files that were not told of as they are now; forget those that are gone."""
        known = self._load()
        present = {file.path: file for file in files}
        gone = known.keys() - present.keys()
        if gone:
            self._forget(sorted(gone))
        return [
            file
            for path, file in present.items()
            if known.get(path) != (file.num_bytes, file.version)
        ]

    def add(self, files: Sequence[FileInfo]) -> None:
        """Remember that these were told of."""
        rows = [(file.path, file.num_bytes, file.version) for file in files]
        with self._open() as database:
            database.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", rows)
        self._load().update({path: (num_bytes, version) for path, num_bytes, version in rows})

    def _forget(self, paths: Sequence[str]) -> None:
        with self._open() as database:
            database.executemany("DELETE FROM seen WHERE path = ?", [(path,) for path in paths])
        known = self._load()
        for path in paths:
            known.pop(path, None)

    def _load(self) -> dict[str, tuple[int, str]]:
        if self._known is None:
            with self._open() as database:
                rows = database.execute("SELECT path, num_bytes, version FROM seen")
                self._known = {path: (num_bytes, version) for path, num_bytes, version in rows}
        return self._known

    def _open(self) -> "_Transaction":
        return _Transaction(self.path)


class _Transaction:
    """One transaction on a connection of its own; a file that is no database is begun anew."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> sqlite3.Connection:
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            self._connection = _connect(self.path)
        except (OSError, sqlite3.OperationalError) as error:
            raise StorageError(
                f"cannot remember what was told of in {self.path}: {error}. Free some room, or "
                "choose another root."
            ) from error
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._connection.commit()
        self._connection.close()


def _connect(path: str) -> sqlite3.Connection:
    table = "CREATE TABLE IF NOT EXISTS seen (path TEXT PRIMARY KEY, num_bytes INT, version TEXT)"
    connection = sqlite3.connect(path, timeout=30.0)
    try:
        connection.execute(table)
    except sqlite3.OperationalError:
        connection.close()
        raise
    except sqlite3.DatabaseError:  # damaged: it may be thrown away, and is
        connection.close()
        os.remove(path)
        connection = sqlite3.connect(path, timeout=30.0)
        connection.execute(table)
    return connection


def seen_path(root: str, url: str, dataset: str) -> str:
    """Return where it is remembered: below a local root, else in the cache of this user."""
    name = f"{dataset}-{hashlib.sha256(url.encode()).hexdigest()[:12]}.sqlite"
    if storage.is_local(root):
        return os.path.join(os.path.abspath(root), "state", "watch", name)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    key = hashlib.sha256(root.encode()).hexdigest()[:12]
    return os.path.join(cache, "mm", key, "watch", name)
