"""The index of samples of one root, kept up to date while the dashboard runs."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from mmcore.dashboard.index.catalogue import (
    committed_datasets,
    committed_trainings,
    known_places,
)
from mmcore.dashboard.index.store import SampleDatabase

_LOOK_SECONDS = 3.0
_SEEN_SECONDS = 0.5


class SampleIndex:
    """The index of one root; brings itself up to date in a process of its own."""

    def __init__(self, root: str, state_directory: str) -> None:
        self.root = root
        self._state_directory = state_directory
        self._opened = SampleDatabase(state_directory, root)
        self._looked_at = 0.0
        self._seen_at = 0.0
        self._lock = threading.Lock()
        self._is_closed = False
        # one thread, and so one connection, for as long as the dashboard runs
        self._looker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="samples")
        self._builder: subprocess.Popen[bytes] | None = None

    @property
    def database(self) -> SampleDatabase:
        """Return the index; a new one where the file was thrown away."""
        now = time.monotonic()
        if now - self._seen_at < _SEEN_SECONDS:
            return self._opened
        self._seen_at = now
        if not self._opened.is_there:
            with self._lock:
                if not self._opened.is_there:
                    self._opened.close()
                    self._opened = SampleDatabase(self._state_directory, self.root)
        return self._opened

    def keep_current(self) -> None:
        """See whether there is anything new, at most every few seconds, and have it indexed."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_SECONDS and not self._is_closed:
            self._looked_at = now
            self._looker.submit(self._look)

    def close(self) -> None:
        """Stop indexing, and close the file."""
        self._is_closed = True
        self._looker.shutdown(cancel_futures=True)
        if self._builder is not None:
            self._builder.kill()
            self._builder.communicate()
        self._opened.close()

    def _look(self) -> None:
        if self._builder is not None and self._builder.poll() is None:
            return
        database = self.database
        datasets, trainings = known_places(database)
        (unfinished,) = (
            database.read()
            .execute("SELECT count(*) FROM segment WHERE state IN ('waiting', 'indexing')")
            .fetchone()
        )
        if (
            not unfinished
            and datasets == committed_datasets(self.root)
            and trainings == committed_trainings(self.root)
        ):
            return
        self._builder = subprocess.Popen(
            [
                *(sys.executable, "-m", "mmcore.dashboard.index.build"),
                *("--root", self.root, "--state", self._state_directory),
            ],
            stdin=subprocess.PIPE,
            # Ctrl-C is for the dashboard, which lets go of the pipe
            start_new_session=True,
        )
