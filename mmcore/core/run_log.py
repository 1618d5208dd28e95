"""The record of a run, as the run itself writes it: see `core/runs.py`, which reads it."""

import json
import logging
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from mmcore import storage
from mmcore.core.process import Process
from mmcore.core.runs import Record, cancel_request
from mmcore.errors import StorageError

HEARTBEAT_SECONDS = 5.0
_EVENT_SECONDS = 0.2  # between two lines on the progress of one step
_BYTES_PER_SECOND = 200_000  # of lines sent again to an object store, which cannot append
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

_logger = logging.getLogger("mmcore.runs")


class RunLog:
    """The record of one run below a storage root, written by the run itself."""

    def __init__(
        self,
        root: str,
        *,
        recipe: str,
        name: str,
        executor: str,
        num_workers: int | None = None,
        overrides: Sequence[str] = (),
        until: Sequence[str] = (),
        source: str | None = None,
        flow: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin a record; `flow` has `flow_run_id`, `flow_name` and `deployment` under Prefect.

        `source` is where the raw corpus lies.
        """
        process = Process.current()
        self._started = time.monotonic()
        self._lock = threading.RLock()
        self._told_at: dict[tuple[str, str], float] = {}
        self._num_beats = 0
        self._record: dict[str, Any] = {
            "format": "mm.run",
            "format_version": 1,
            "recipe": recipe,
            "name": name,
            "executor": executor,
            "num_workers": num_workers,
            "overrides": list(overrides),
            "until": list(until),
            "source": source,
            "host": process.host,
            "machine": process.machine,
            "pid": process.pid,
            "pid_started": process.started,
            "started_at": _now(),
            "status": "running",
            **(flow or {}),
        }
        self.process = process
        self.run_id = self._create(storage.join(root, "runs"))
        self.url = storage.join(root, "runs", self.run_id)
        self._events = _Lines(storage.join(self.url, "events.jsonl"))
        self._lines = _Lines(storage.join(self.url, "log.jsonl"))

    def _create(self, directory: str) -> str:
        while True:
            now = datetime.now(UTC)
            # with microseconds: identifiers sort by time
            run_id = f"{now:%Y%m%d-%H%M%S-%f}{secrets.token_hex(1)}"
            self._record["run_id"] = run_id
            if storage.create(storage.join(directory, run_id, "run.json"), self._data()):
                return run_id

    @property
    def record(self) -> Record:
        """Return what `run.json` says."""
        return dict(self._record)

    def event(self, kind: str, step: str, facts: Mapping[str, Any]) -> None:
        """Add a line; of a step's progress a few lines a second, and always the last.

        On an object store lines are sent when a step ends and at intervals.
        """
        now = time.monotonic()
        if kind in ("task_finished", "progress") and facts.get("done") != facts.get("total"):
            if now - self._told_at.get((kind, step), -1.0) < _EVENT_SECONDS:
                return
            self._told_at[kind, step] = now
        value = {"at_seconds": round(now - self._started, 3), "kind": kind, "step": step, **facts}
        self._events.add(json.dumps(value, sort_keys=True))
        if kind in ("step_finished", "step_skipped", "planned"):
            self._events.send()
        if kind not in ("task_finished", "progress", "planned"):
            said = {name: facts[name] for name in facts if name not in ("counts", "url")}
            _logger.info(kind, extra={"step": step, **said})

    def planned(self, steps: Sequence[Mapping[str, Any]]) -> None:
        """Say what the run is going to do: name, inputs, will_run, reason, estimated_seconds."""
        self.event("planned", "", {"steps": [dict(step) for step in steps]})

    def beat(self) -> None:
        """Say that the run lives, and send what was not sent yet."""
        self._num_beats += 1
        data = json.dumps({"at": _now(), "num_beats": self._num_beats}).encode()
        storage.write(storage.join(self.url, "heartbeat"), data)
        self._events.send_in_time()
        self._lines.send_in_time()

    def cancel_request(self) -> Record | None:
        """Return who asked the run to stop and why; None when nobody did."""
        return cancel_request(self.url)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Write what `mmcore` logs into `log.jsonl` until the block ends."""
        logger = logging.getLogger("mmcore")
        handler = _Handler(self._lines)
        level = logger.level
        if level == logging.NOTSET:
            logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            self._lines.send()

    def finish(self, status: str, **facts: Any) -> None:
        """Close the record with one of ENDED; the first end counts."""
        with self._lock:
            if self._record["status"] != "running":
                return
            self._record |= {
                "status": status,
                "ended_at": _now(),
                "seconds": round(time.monotonic() - self._started, 3),
                **facts,
            }
            self._events.send()
            self._lines.send()
            storage.write(storage.join(self.url, "run.json"), self._data())

    def _data(self) -> bytes:
        return json.dumps(self._record, indent=1, sort_keys=True).encode()


class _Lines:
    """Lines added to a file: at once on a disk, now and then on an object store."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._pieces: list[bytes] = []
        self._num_bytes = 0
        self._num_sent = 0
        self._sent_at = time.monotonic()

    def add(self, line: str) -> None:
        data = f"{line}\n".encode()
        with self._lock:
            if not storage.is_local(self._url):
                self._pieces.append(data)
                self._num_bytes += len(data)
                return
            try:
                with open(self._url, "ab") as file:
                    file.write(data)
            except OSError as error:
                raise StorageError(f"cannot write {self._url}: {error}. Free some room.") from error

    def send(self) -> None:
        with self._lock:
            if self._num_bytes > self._num_sent:
                self._pieces = [b"".join(self._pieces)]
                storage.write(self._url, self._pieces[0])
                self._num_sent, self._sent_at = self._num_bytes, time.monotonic()

    def send_in_time(self) -> None:
        """Send, unless it would be the bulk of what this run sends."""
        if time.monotonic() - self._sent_at >= self._num_bytes / _BYTES_PER_SECOND:
            self.send()


class _Handler(logging.Handler):
    def __init__(self, lines: _Lines) -> None:
        super().__init__(logging.INFO)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        fields = {k: v for k, v in vars(record).items() if k not in _STANDARD_FIELDS}
        value = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields,
        }
        if record.exc_info:
            value["traceback"] = logging.Formatter().formatException(record.exc_info)
        try:
            self._lines.add(json.dumps(value, sort_keys=True, default=str))
        except StorageError:
            self.handleError(record)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
