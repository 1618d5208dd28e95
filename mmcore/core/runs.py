"""What a run did, as it did it: `runs/<id>/run.json` and a line of JSON per event beside it.

The dashboard and `mm` read these; no result depends on them.
"""

import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mmcore import storage
from mmcore.errors import StorageError


class RunLog:
    """The record of one run below a storage root."""

    def __init__(self, root: str, *, recipe: str, name: str, executor: str) -> None:
        now = datetime.now(UTC)
        self.run_id = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        self.url = storage.join(root, "runs", self.run_id)
        self._started = time.monotonic()
        self._lines: list[str] = []
        self._record: dict[str, Any] = {
            "format": "mm.run",
            "format_version": 1,
            "run_id": self.run_id,
            "recipe": recipe,
            "name": name,
            "executor": executor,
            "pid": os.getpid(),
            "started_at": now.isoformat(timespec="seconds"),
            "status": "running",
        }
        self._write_record()

    def event(self, kind: str, step: str, facts: Mapping[str, Any]) -> None:
        """Add a line; on an object store lines are written when a step ends."""
        at_seconds = round(time.monotonic() - self._started, 3)
        value = {"at_seconds": at_seconds, "kind": kind, "step": step, **facts}
        line = json.dumps(value, sort_keys=True)
        self._lines.append(line + "\n")
        url = storage.join(self.url, "events.jsonl")
        if storage.is_local(url):
            try:
                with open(url, "a", encoding="utf-8") as file:
                    file.write(self._lines.pop())
            except OSError as error:
                raise StorageError(f"cannot write {url}: {error}. Free some room.") from error
        elif kind in ("step_finished", "step_skipped"):
            storage.write(url, "".join(self._lines).encode())

    def finish(self, status: str, **facts: Any) -> None:
        """Close the record: `done`, `failed`, `interrupted` or `nothing_to_do`."""
        self._record |= {
            "status": status,
            "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self._started, 3),
            **facts,
        }
        self._write_record()

    def _write_record(self) -> None:
        data = json.dumps(self._record, indent=1, sort_keys=True).encode()
        storage.write(storage.join(self.url, "run.json"), data)


def list_runs(root: str) -> Sequence[Mapping[str, Any]]:
    """Return the records of all runs, the newest first."""
    runs = []
    for run_id in reversed(storage.list_directories(storage.join(root, "runs"))):
        data = storage.read_if_exists(storage.join(root, "runs", run_id, "run.json"))
        if data is not None:
            runs.append(json.loads(data))
    return runs
