"""How far a run is: its events, read once each as they come, summed up per step."""

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mmcore import storage
from mmcore.core.manifest import load_manifest
from mmcore.core.runs import ENDED
from mmcore.errors import IntegrityError, StorageError

WAITING, RUNNING, DONE, SKIPPED, NOT_REACHED = (
    "waiting",
    "running",
    "done",
    "skipped",
    "not_reached",
)
_MAX_FOLLOWED = 64


@dataclass
class StepState:
    """What is known of one step of a run."""

    name: str
    inputs: Sequence[str] = ()
    reason: str = ""
    """Why it runs, or need not."""
    will_run: bool | None = None
    estimated_seconds: float | None = None
    status: str = WAITING
    started_at: float | None = None
    """Seconds since the run began, as are all times here."""
    last_at: float = 0.0
    seconds: float | None = None
    done: float = 0
    total: float = 0
    num_tasks: int | None = None
    num_resumed: int = 0
    message: str = ""
    counts: Mapping[str, Any] = field(default_factory=dict)
    url: str = ""

    @property
    def share(self) -> float | None:
        """Return how much of it is done, from 0 to 1; None where it does not say."""
        if self.status in (DONE, SKIPPED):
            return 1.0
        return min(1.0, self.done / self.total) if self.total else None

    def elapsed(self, now: float) -> float | None:
        """Return for how many seconds it has run."""
        if self.seconds is not None:
            return self.seconds
        return None if self.started_at is None else max(0.0, now - self.started_at)

    def remaining(self, now: float) -> float | None:
        """Return the seconds left: from its own pace once a tenth is done, before that from the
        last time it ran.
        """
        if self.status in (DONE, SKIPPED):
            return 0.0
        elapsed = self.elapsed(now) or 0.0
        fresh = self.total - self.num_resumed
        done = self.done - self.num_resumed
        if self.status == RUNNING and fresh > 0 and done > 0 and done / fresh >= 0.1:
            return elapsed * (fresh - done) / done
        if self.estimated_seconds is None:
            return None
        return max(0.0, self.estimated_seconds - elapsed)

    def rate(self, now: float) -> tuple[float, str] | None:
        """Return how many samples or tasks a second, and which; None where nothing is known."""
        elapsed = self.elapsed(now)
        if not elapsed or self.status == SKIPPED:
            return None
        if self.counts.get("found"):
            return self.counts["found"] / elapsed, "samples/s"
        if self.status == RUNNING and self.done > self.num_resumed:
            return (self.done - self.num_resumed) / elapsed, "tasks/s"
        return None

    def core_seconds(self, now: float, num_workers: int) -> float | None:
        """Return what it cost at most: its time, on as many cores as it had tasks at a time."""
        elapsed = self.elapsed(now)
        if elapsed is None or self.status == SKIPPED:
            return None
        return elapsed * max(1, min(num_workers, (self.num_tasks or 1) - self.num_resumed))

    @property
    def dropped(self) -> Mapping[str, int]:
        """Return the dropped by reason, the most first."""
        return _sorted(self.counts.get("dropped"))

    @property
    def quarantined(self) -> Mapping[str, int]:
        """Return the quarantined by reason, the most first."""
        return _sorted(self.counts.get("quarantined"))


class RunProgress:
    """The steps of one run; `update()` reads what was added since the last time."""

    def __init__(self, run_url: str) -> None:
        self._url = storage.join(run_url, "events.jsonl")
        self._offset = 0
        self._lock = threading.Lock()
        self.steps: dict[str, StepState] = {}
        self.now = 0.0
        """The time of the last event."""

    def update(self) -> bool:
        """Return whether there was anything new."""
        with self._lock:
            data = storage.read_if_exists(self._url, offset=self._offset) or b""
            whole = data[: data.rfind(b"\n") + 1]
            self._offset += len(whole)
            for line in whole.splitlines():
                try:
                    event = json.loads(line)
                except ValueError:
                    continue  # a line torn by a full disk; the next one is whole again
                if isinstance(event, dict):
                    self._take_in(event)
            return bool(whole)

    def settle(self, status: str) -> None:
        """Say of steps that had begun and not ended how the run ended."""
        if status not in (*ENDED, "died"):
            return
        for step in self.steps.values():
            if step.status == RUNNING:
                step.status = status if status not in ("done", "nothing_to_do") else DONE
            elif step.status == WAITING:
                step.status = NOT_REACHED if step.will_run is not False else SKIPPED

    def _take_in(self, event: Mapping[str, Any]) -> None:
        kind, at = event.get("kind"), float(event.get("at_seconds") or 0.0)
        self.now = max(self.now, at)
        if kind == "planned":
            for planned in event.get("steps") or []:
                step = self._step(str(planned["name"]))
                step.inputs = tuple(planned.get("inputs") or ())
                step.reason = str(planned.get("reason") or "")
                step.will_run = planned.get("will_run")
                step.estimated_seconds = planned.get("estimated_seconds")
            return
        name = event.get("step")
        if not name:
            return
        step = self._step(str(name))
        step.last_at = at
        if kind == "step_started":
            step.status, step.started_at = RUNNING, at
            step.num_tasks = event.get("num_tasks")
            step.num_resumed = int(event.get("num_resumed") or 0)
            step.total, step.done = step.num_tasks or 0, step.num_resumed
            step.reason = step.reason or str(event.get("why") or "")
        elif kind in ("task_finished", "progress"):
            step.status = RUNNING
            step.done, step.total = event.get("done") or 0, event.get("total") or 0
            step.message = str(event.get("message") or step.message)
            if kind == "progress":
                step.num_resumed = 0  # it counts something else than tasks
        elif kind == "step_finished":
            step.status, step.seconds = DONE, event.get("seconds")
            step.counts = event.get("counts") or {}
            step.url = str(event.get("url") or "")
        elif kind == "step_skipped":
            step.status, step.url = SKIPPED, str(event.get("url") or "")
            step.counts = _counts_of(step.url)

    def _step(self, name: str) -> StepState:
        if name not in self.steps:
            # records of before there was a plan: each step after the one that was said before it
            before = tuple(list(self.steps)[-1:])
            self.steps[name] = StepState(name, inputs=before)
        return self.steps[name]


class Follower:
    """Keeps the progress of the runs that were looked at last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followed: OrderedDict[str, RunProgress] = OrderedDict()

    def progress(self, run_url: str, status: str) -> RunProgress:
        """Return how far a run is, with everything that it has said until now."""
        with self._lock:
            progress = self._followed.setdefault(run_url, RunProgress(run_url))
            self._followed.move_to_end(run_url)
            while len(self._followed) > _MAX_FOLLOWED:
                self._followed.popitem(last=False)
        progress.update()
        progress.settle(status)
        return progress


def overall_share(steps: Sequence[StepState], now: float) -> float | None:
    """Return how much of a run is done: by the time that steps take, or by their number."""
    if not steps:
        return None
    to_run = [step for step in steps if step.status != SKIPPED]
    if not to_run:
        return 1.0
    weights = [step.seconds or step.estimated_seconds for step in to_run]
    known = [weight for weight in weights if weight]
    usual = sum(known) / len(known) if known else 1.0
    total = sum(weight or usual for weight in weights)
    done = sum(
        (weight or usual) * (step.share or 0.0)
        for step, weight in zip(to_run, weights, strict=True)
    )
    return done / total if total else None


def remaining_seconds(steps: Sequence[StepState], now: float) -> float | None:
    """Return the seconds left of a run; None when a step that has to run was never timed."""
    left = [step.remaining(now) for step in steps if step.status in (WAITING, RUNNING)]
    left = [seconds for seconds in left if seconds is not None] if None not in left else [None]
    return None if None in left else sum(seconds or 0.0 for seconds in left)


def _counts_of(url: str) -> Mapping[str, Any]:
    """Return what was counted when an artifact was made; nothing when it is not there any more."""
    try:
        manifest = load_manifest(url) if url else None
    except (IntegrityError, StorageError):
        return {}
    return {} if manifest is None else asdict(manifest.counts)


def _sorted(counts: Any) -> Mapping[str, int]:
    if not isinstance(counts, Mapping):
        return {}
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
