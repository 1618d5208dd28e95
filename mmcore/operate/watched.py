"""One service that the supervisor watches over: how it is, and how often it has failed."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import Executor, Future
from datetime import UTC, datetime
from typing import Any, Literal

from mmcore.core.process import Status
from mmcore.operate import processes
from mmcore.operate.health import complaint
from mmcore.operate.logs import log_path, open_log
from mmcore.operate.orders import Pace
from mmcore.operate.processes import Processes
from mmcore.operate.service import Service

State = Literal["waiting", "starting", "healthy", "unhealthy", "restarting", "failed", "stopping"]
_NUM_BAD_CHECKS_TO_TELL = 2
_STARTED_AS = "MM_SERVICE"


class Watched:
    """A service, its process, and its record."""

    def __init__(self, service: Service, *, root: str, pace: Pace, checks: Executor) -> None:
        self.service = service
        self.state: State = "waiting"
        self.detail = ""
        self.num_restarts = 0
        self.below: Processes = {}
        """What it has started, directly or not, and is still there."""
        self._root = root
        self._pace = pace
        self._checks = checks
        self._process: subprocess.Popen[bytes] | None = None
        self._answer: Future[str | None] | None = None
        self._num_failures = 0
        self._num_bad_checks = 0
        self._was_well = False
        self._started_at = ""
        self._started = self._well_since = self._next_check = self._next_start = 0.0
        self._ready_seconds: float | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def may_start(self) -> bool:
        is_due = self.state == "restarting" and time.monotonic() >= self._next_start
        return self.state == "waiting" or is_due

    def start(self) -> None:
        """Start the process; it ends when the supervisor does."""
        mark = {_STARTED_AS: self.service.name}
        try:
            log = open_log(self._root, self.service.name)
        except OSError as error:
            self.state, self.detail = "failed", f"cannot log: {error}"
            return
        try:
            self._process = subprocess.Popen(
                self.service.command,
                env=os.environ | self.service.environment | mark,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=self._before_it_begins,
            )
        except OSError as error:
            self.state, self.detail = "failed", f"cannot be started: {error}"
            return
        finally:
            os.close(log)
        self.state, self.detail = "starting", ""
        self._started = self._next_check = time.monotonic()
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._num_bad_checks = 0
        self._answer = None

    def look(self, *, ask: bool = True) -> None:
        """Find out how it is, and decide what becomes of it.

        It is not asked while what it needs is not well: that is no failure of its own.
        """
        if self._process is None:
            return
        code = self._process.poll()
        if code is not None:
            self._failed(_ending(code))
        elif self._answer is not None and self._answer.done():
            error = self._answer.exception()  # no answer, however strange, ends the supervisor
            self._hear(f"the check failed: {error!r}" if error else self._answer.result())
            self._answer = None
        elif ask and self._answer is None and time.monotonic() >= self._next_check:
            since = datetime.fromisoformat(self._started_at)
            self._answer = self._checks.submit(complaint, self.service.check, since=since)

    def count(self, everybody: Mapping[int, Status]) -> None:
        """Take note of the processes below it."""
        left = processes.alive(self.below)
        pids = [*left, *([self.pid] if self.pid is not None else [])]
        self.below = left | processes.descendants(pids, everybody)
        if self.pid is not None:
            self.below.pop(self.pid, None)

    def ask_to_end(self) -> None:
        """Send the signal to end; flows hear it as well, since their worker waits for them."""
        self.state = "stopping"
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
        if self.service.children_survive:
            processes.send(self.below, signal.SIGTERM)

    @property
    def has_ended(self) -> bool:
        is_gone = self._process is None or self._process.poll() is not None
        return is_gone and not (self.service.children_survive and processes.alive(self.below))

    def to_json(self) -> dict[str, Any]:
        """Return what `services.json` says of it."""
        return {
            **self.service.shown,
            "state": self.state,
            "detail": self.detail,
            "pid": self.pid,
            "restarts": self.num_restarts,
            "started_at": self._started_at,
            "ready_seconds": self._ready_seconds,
            "first_start": self.service.first_start,
            "log": log_path(self._root, self.service.name),
        }

    def _hear(self, wrong: str | None) -> None:
        now = time.monotonic()
        is_starting = self.state == "starting"
        self._next_check = now + (
            self._pace.starting_check_seconds
            if is_starting and wrong is not None
            else self._pace.check_seconds
        )
        if wrong is None:
            self._hear_that_it_is_well(now)
        elif is_starting:
            self.detail = wrong
            if now - self._started > self.service.start_seconds:
                self._failed(f"not well within {self.service.start_seconds:.0f} s: {wrong}")
        else:
            self._num_bad_checks += 1
            if self._num_bad_checks >= self._pace.num_bad_checks:
                self._failed(f"{self._num_bad_checks} checks in a row failed: {wrong}")
            elif self._num_bad_checks >= _NUM_BAD_CHECKS_TO_TELL:
                self.state, self.detail = "unhealthy", wrong

    def _hear_that_it_is_well(self, now: float) -> None:
        if self.state == "starting":
            self._ready_seconds = round(now - self._started, 1)
        if self.state != "healthy":
            self._well_since = now
        elif now - self._well_since > self._pace.calm_seconds:
            self._num_failures = 0
        self.state, self.detail = "healthy", ""
        self._was_well, self._num_bad_checks = True, 0

    def _failed(self, why: str) -> None:
        """End what is left of it, and start it anew after a while, or give it up."""
        assert self._process is not None, "it was started"
        self._process.kill()
        self._process.wait()
        self._process = self._answer = None
        if not self.service.children_survive:
            self._kill_what_is_left()
        self._num_failures += 1
        if not self._was_well:
            self.state, self.detail = "failed", f"{why}, before it was well"
        elif self._num_failures >= self._pace.max_failures:
            self.state = "failed"
            self.detail = f"given up after {self._num_failures} failures in a row, the last: {why}"
        else:
            wait = self._pace.backoff_seconds * 2 ** (self._num_failures - 1)
            self._next_start = time.monotonic() + min(wait, self._pace.max_backoff_seconds)
            self.state, self.detail = "restarting", why
            self.num_restarts += 1

    def _before_it_begins(self) -> None:
        """Run in the new process: it ends with the supervisor, and keeps its orphans to itself."""
        processes.end_with_parent(signal.SIGKILL)
        if not self.service.children_survive:
            processes.adopt_orphans()  # outlives exec(2)

    def _kill_what_is_left(self) -> None:
        """Kill what a dead process has started, which may hold its ports."""
        ours = processes.descendants([os.getpid()])
        marked = processes.with_environment(f"{_STARTED_AS}={self.service.name}")
        started = {pid: when for pid, when in marked.items() if pid in ours}
        processes.kill(self.below | started)
        self.below = {}


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    return f"was killed by {signal.Signals(-code).name}"
