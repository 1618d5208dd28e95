"""What a run did, as it did it: `runs/<id>/` below the storage root.

`run.json` says what runs and how it ended; `events.jsonl` and `log.jsonl` hold a line of JSON per
event and per log record; `heartbeat` is rewritten while the run lives; `cancel.json` asks it to
stop. The dashboard and `mm` read these; no result depends on them.
"""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mmcore import storage
from mmcore.core.process import Process
from mmcore.errors import ConfigError, StorageError

DEAD_AFTER_SECONDS = 25.0
"""A run of another machine whose heartbeat is older is dead."""
ENDED = ("done", "nothing_to_do", "failed", "cancelled", "interrupted")
"""What a run itself says at its end."""

Record = Mapping[str, Any]


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
