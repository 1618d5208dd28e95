"""Watches a folder or bucket prefix, and tells once of every file that is complete.

What was told of is remembered in a small database that may be thrown away: then everything there is
told of once more, and the retraining finds that it knows it all.

From a complete file to the event: at most one interval until it is seen, `settle_seconds`, one more
interval, and HOLD_SECONDS.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from mmcore import storage
from mmcore.errors import StorageError
from mmcore.operate.connection import connect
from mmcore.operate.events import Arrival, notify_arrival
from mmcore.operate.quiet import Settling, being_written, is_temporary
from mmcore.operate.seen import SeenFiles
from mmcore.storage import FileInfo
from mmcore.telemetry.prefect import PrefectError

HOLD_SECONDS = 0.5
"""How long a complete file waits for others that are not, so that a copied folder is one event."""
FOLDER_INTERVAL_SECONDS = 0.5
BUCKET_INTERVAL_SECONDS = 1.0
"""A listing of a bucket is paid for."""
MAX_SHARE_OF_TIME = 0.2
"""Of one core, that listing takes: of a place with very many files, intervals become longer."""
_MAX_RETRY_SECONDS = 15.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What is watched, and for which dataset."""

    url: str
    dataset: str
    settle_seconds: float = 2.0


class Watcher:
    """Watches one place; all time comes from the caller's clock, which never goes back."""

    def __init__(self, watch: Watch, seen: SeenFiles, emit: Callable[[Arrival], object]) -> None:
        self.watch = watch
        self.unfinished: tuple[str, ...] = ()
        """What was new at the last look, and not complete."""
        self._seen = seen
        self._emit = emit
        self._settling = Settling(watch.settle_seconds)
        self._held_since: float | None = None
        self._retry_at = 0.0
        self._retry_seconds = 1.0

    def look(self, *, now: float) -> Arrival | None:
        """Look once; emit one event for what is complete and was not told of, and return it.

        StorageError when the place cannot be listed. When Prefect does not answer, that is said
        once, and the event is tried again at a later look, with what has come since.
        """
        settled = self._complete(now)
        if not settled:
            self._held_since = None
            return None
        if self._held_since is None:
            self._held_since = now
        is_held = self.unfinished and now - self._held_since < HOLD_SECONDS
        if is_held or now < self._retry_at:
            return None
        try:
            return self._tell(settled)
        except PrefectError as error:
            if self._retry_at == 0.0:
                _logger.warning("event_waits: %s", error, extra={"source": self.watch.url})
            self._retry_at = now + self._retry_seconds
            self._retry_seconds = min(2 * self._retry_seconds, _MAX_RETRY_SECONDS)
            return None

    def look_until_settled(self) -> Arrival | None:
        """Look until what is there now is complete or is seen to be still written; emit one event.

        PrefectError when it could not be emitted.
        """
        end = time.monotonic() + self.watch.settle_seconds
        settled = self._complete(time.monotonic())
        while self.unfinished and time.monotonic() < end + HOLD_SECONDS:
            time.sleep(min(FOLDER_INTERVAL_SECONDS, max(end - time.monotonic(), 0.05)))
            settled = self._complete(time.monotonic())
        return self._tell(settled) if settled else None

    def _complete(self, now: float) -> list[FileInfo]:
        """Return the files that are complete and were not told of."""
        news = self._seen.news(storage.list_files(self.watch.url))
        settled = self._settling.look(news, now=now)
        written = being_written(self.watch.url, settled) if settled else set()
        complete = [file for file in settled if file not in written]
        done = set(complete)
        self.unfinished = tuple(
            file.path for file in news if file not in done and not is_temporary(file.path)
        )
        return complete

    def _tell(self, files: list[FileInfo]) -> Arrival:
        arrival = Arrival.of_files(self.watch.dataset, self.watch.url, files)
        self._emit(arrival)
        self._seen.add(files)
        self._retry_at, self._retry_seconds, self._held_since = 0.0, 1.0, None
        said = {"dataset": arrival.dataset, "source": arrival.source, "files": arrival.num_files}
        _logger.info("data_arrived", extra={**said, "num_bytes": arrival.num_bytes})
        return arrival


def make_watcher(root: str, watch: Watch) -> Watcher:
    """Return a watcher that remembers below a root, and tells the root's Prefect server."""
    # where the services are is asked each time: they may have been started again
    return Watcher(
        watch,
        SeenFiles(root, watch.url, watch.dataset),
        lambda arrival: notify_arrival(connect(root), arrival),
    )


def watch_until(
    watcher: Watcher,
    stop: threading.Event,
    *,
    interval_seconds: float | None = None,
    on_arrival: Callable[[Arrival], object] = lambda _: None,
) -> None:
    """Look again and again until told to stop; a place that cannot be listed is said once."""
    url = watcher.watch.url
    is_local = storage.is_local(url)
    interval = interval_seconds or (
        FOLDER_INTERVAL_SECONDS if is_local else BUCKET_INTERVAL_SECONDS
    )
    is_broken = False
    while not stop.is_set():
        began = time.monotonic()
        try:
            arrival = watcher.look(now=began)
            if arrival is not None:
                on_arrival(arrival)
            is_broken = False
        except StorageError as error:
            if not is_broken:
                _logger.warning("cannot_watch: %s", error, extra={"source": url})
            is_broken = True
        took = time.monotonic() - began
        stop.wait(max(interval - took, took * (1 / MAX_SHARE_OF_TIME - 1), 0.05))
