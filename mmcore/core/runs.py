"""What a run did, as it did it: `runs/<id>/` below the storage root.

`run.json` says what runs and how it ended; `events.jsonl` and `log.jsonl` hold a line of JSON per
event and per log record; `heartbeat` is rewritten while the run lives; `cancel.json` asks it to
stop. The dashboard and `mm` read these; no result depends on them.
"""

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
from mmcore.errors import ConfigError, StorageError

HEARTBEAT_SECONDS = 5.0
DEAD_AFTER_SECONDS = 25.0
"""A run of another machine whose heartbeat is older is dead."""
ENDED = ("done", "nothing_to_do", "failed", "cancelled", "interrupted")
"""What a run itself says at its end."""
_EVENT_SECONDS = 0.2  # between two lines on the progress of one step
_BYTES_PER_SECOND = 200_000  # of lines sent again to an object store, which cannot append
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

_logger = logging.getLogger("mmcore.runs")

Record = Mapping[str, Any]


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


def list_runs(
    root: str, *, limit: int | None = None, before: str | None = None
) -> Sequence[dict[str, Any]]:
    """Return the records of runs, the newest first; `before` is the last `run_id` of a page.

    Each has its `url`. A record says how a run sees itself: see `effective_status`.
    """
    runs: list[dict[str, Any]] = []
    for run_id in reversed(storage.list_directories(storage.join(root, "runs"))):
        if limit is not None and len(runs) >= limit:
            break
        if before is None or run_id < before:
            record = _load(storage.join(root, "runs", run_id))
            if record is not None:
                runs.append(record)
    return runs


def load_run(root: str, run_id: str) -> dict[str, Any]:
    """Return the record of a run; ConfigError when there is none."""
    is_name = run_id not in ("", ".", "..") and "/" not in run_id and "\\" not in run_id
    record = _load(storage.join(root, "runs", run_id)) if is_name else None
    if record is None:
        raise ConfigError(f"there is no run {run_id!r} below {root}. See: mm runs")
    return record


def find_run(root: str, wanted: str) -> dict[str, Any]:
    """Return the record of the run with an identifier, a prefix of only one, or `latest`."""
    names = storage.list_directories(storage.join(root, "runs"))
    if wanted in names:
        return load_run(root, wanted)
    found = names[-1:] if wanted == "latest" else [name for name in names if _fits(name, wanted)]
    if len(found) > 1:
        some = ", ".join(found[-3:])
        raise ConfigError(
            f"{len(found)} runs begin with {wanted!r}, the last ones {some}. Say more."
        )
    return load_run(root, found[0] if found else wanted)


def effective_status(run: Record) -> str:
    """Return how a run is: what it says of itself, unless it cannot say anything any more.

    `running`, `cancelling`, one of ENDED, or `died`: its process on this machine is gone, or on
    another machine its heartbeat has not been rewritten for 25 s.
    """
    if run["status"] != "running":
        return str(run["status"])
    is_asked = cancel_request(run["url"]) is not None
    if is_alive(run):
        return "cancelling" if is_asked else "running"
    # it may have ended between the two looks
    now = _load(run["url"])
    if now is not None and now["status"] != "running":
        return str(now["status"])
    return "cancelled" if is_asked else "died"


def is_alive(run: Record) -> bool:
    """Return whether the process of a run lives, as far as can be seen from here."""
    process = process_of(run)
    if process is not None and process.is_here:
        return process.is_alive
    return heartbeat_age(run) <= DEAD_AFTER_SECONDS


def process_of(run: Record) -> Process | None:
    """Return the process of a run; None for a record that does not say."""
    if "machine" not in run:
        return None
    return Process(
        host=run["host"], machine=run["machine"], pid=run["pid"], started=run["pid_started"]
    )


def heartbeat_age(run: Record) -> float:
    """Return the seconds since the last heartbeat, by this clock and that of the store."""
    for name in ("heartbeat", "run.json"):  # the first beat comes with the record itself
        try:
            return max(0.0, time.time() - storage.modified_at(storage.join(run["url"], name)))
        except StorageError:
            continue
    return float("inf")


def request_cancel(root: str, run_id: str, *, by: str, why: str = "") -> bool:
    """Ask a run to stop; return whether there is somebody to ask. Asked twice, the first counts.

    ConfigError when there is no such run.
    """
    run = load_run(root, run_id)
    if effective_status(run) not in ("running", "cancelling"):
        return False
    value = {"by": by, "why": why, "at": _now()}
    storage.create(storage.join(run["url"], "cancel.json"), json.dumps(value, indent=1).encode())
    return True


def cancel_request(run_url: str) -> Record | None:
    """Return `by`, `why` and `at` of a request to cancel; None when there is none."""
    data = storage.read_if_exists(storage.join(run_url, "cancel.json"))
    return None if data is None else dict(json.loads(data))


def close_record(run: Record, status: str, **facts: Any) -> None:
    """End the record of a run whose process is gone and could not do it itself."""
    now = _load(run["url"])
    if now is None or now["status"] != "running":
        return
    del now["url"]
    data = json.dumps({**now, "status": status, "ended_at": _now(), **facts}, indent=1)
    storage.write(storage.join(run["url"], "run.json"), data.encode())


def read_events(run_url: str) -> list[dict[str, Any]]:
    """Return the events of a run; a line that is being written is left out."""
    data = storage.read_if_exists(storage.join(run_url, "events.jsonl")) or b""
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


def _fits(name: str, wanted: str) -> bool:
    return name.startswith(wanted) and wanted != ""


def _load(run_url: str) -> dict[str, Any] | None:
    data = storage.read_if_exists(storage.join(run_url, "run.json"))
    return None if data is None else {**json.loads(data), "url": run_url}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
