"""The process that `mm up` runs beside Prefect: it watches what is deployed, and finds dead runs.

Command: `python -m mmcore.operate.watch --root ROOT`. It ends by SIGTERM within a second, and needs
no port. Without anything deployed it waits for `mm deploy`.
"""

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime

from mmcore.errors import MmError
from mmcore.operate.deaths import LOOK_SECONDS, Deaths
from mmcore.operate.deployed import Deployed, list_deployed, state_file
from mmcore.operate.unanswered import Unanswered
from mmcore.operate.watcher import Watch, make_watcher, watch_until
from mmcore.telemetry.prefect import PrefectError

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_logger = logging.getLogger(__name__)


class Service:
    """A watcher, in a thread of its own, for everything that is deployed below a root."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.unanswered = Unanswered(root)
        self._running: dict[Watch, threading.Event] = {}
        self._read_at: int | None = None

    def refresh(self) -> list[Deployed]:
        """Begin and end watching as `deployments.json` says; return what is deployed."""
        deployed = list_deployed(self.root)
        wanted = {
            Watch(url=one.watched, dataset=one.dataset, settle_seconds=one.settle_seconds)
            for one in deployed
            if one.watched is not None
        }
        for watch in self._running.keys() - wanted:
            self._running.pop(watch).set()
            _logger.info("watch_ended", extra={"source": watch.url, "dataset": watch.dataset})
        for watch in wanted - self._running.keys():
            self._begin(watch)
        return deployed

    def has_changed(self) -> bool:
        """Return whether `deployments.json` is another than at the last call."""
        try:
            written_at = os.stat(state_file(self.root)).st_mtime_ns
        except FileNotFoundError:
            written_at = 0
        has_changed = written_at != self._read_at
        self._read_at = written_at
        return has_changed

    def close(self) -> None:
        """End all watching."""
        for stop in self._running.values():
            stop.set()
        self._running.clear()

    def _begin(self, watch: Watch) -> None:
        stop = self._running[watch] = threading.Event()
        _logger.info("watch_began", extra={"source": watch.url, "dataset": watch.dataset})

        def run() -> None:
            try:
                watcher = make_watcher(self.root, watch)
                watch_until(watcher, stop, on_arrival=self.unanswered.told)
            except MmError as error:
                _logger.error("watch_failed: %s", error, extra={"source": watch.url})
                self._running.pop(watch, None)

        threading.Thread(target=run, name=f"watch {watch.url}", daemon=True).start()


def serve(root: str, stop: threading.Event) -> None:
    """Watch all that is deployed below a root until told to stop."""
    service, deaths = Service(root), Deaths(root)
    deployed = service.refresh()
    looked_at = 0.0
    try:
        while not stop.wait(1.0):
            try:
                if service.has_changed():
                    deployed = service.refresh()
                if time.monotonic() - looked_at >= LOOK_SECONDS:
                    looked_at = time.monotonic()
                    deaths.look(deployed)
                    service.unanswered.look(deployed)
            except PrefectError as error:
                _logger.info("prefect_away: %s", error)
            except MmError as error:
                _logger.error("watch_service: %s", error)
                stop.wait(LOOK_SECONDS)
    finally:
        service.close()


class JsonLines(logging.Formatter):
    """A log line as JSON, with its fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {name: v for name, v in vars(record).items() if name not in _STANDARD_FIELDS}
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        value = {"at": at, "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps({**value, **fields}, default=str)


def main(arguments: list[str] | None = None) -> None:
    """Run the service."""
    parser = argparse.ArgumentParser(prog="python -m mmcore.operate.watch", description=__doc__)
    parser.add_argument("--root", default=os.environ.get("MM_ROOT", ".mm"))
    root = parser.parse_args(arguments).root
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    serve(os.path.abspath(root), stop)


if __name__ == "__main__":
    main()
