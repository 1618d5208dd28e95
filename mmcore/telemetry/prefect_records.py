"""What a Prefect server tells: flow runs, deployments and schedules, as values of our own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

StateType = Literal[
    "SCHEDULED",
    "PENDING",
    "RUNNING",
    "PAUSED",
    "CANCELLING",
    "CANCELLED",
    "COMPLETED",
    "FAILED",
    "CRASHED",
]
ENDED: frozenset[str] = frozenset({"CANCELLED", "COMPLETED", "FAILED", "CRASHED"})


@dataclass(frozen=True, kw_only=True)
class FlowRun:
    """A flow run, as the server sees it; the truth about data is in our manifests."""

    id: str
    name: str
    flow_id: str
    deployment_id: str | None
    state_type: StateType
    state_name: str
    """`Late`, `AwaitingConcurrencySlot`, `Skipped`: what the type alone does not say."""
    message: str
    expected_start: datetime | None
    started: datetime | None
    ended: datetime | None
    seconds: float
    """It has run for."""
    parameters: Mapping[str, Any]
    tags: tuple[str, ...]
    idempotency_key: str | None
    is_scheduled: bool
    """By a schedule, not by a person or an event."""

    @property
    def has_ended(self) -> bool:
        """Return whether the state is final."""
        return self.state_type in ENDED


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One schedule of a deployment."""

    id: str
    slug: str | None
    active: bool
    spec: Mapping[str, Any]
    """`cron` or `interval` (seconds), `timezone`, ..."""
    parameters: Mapping[str, Any]

    @property
    def when(self) -> str:
        """Return when it fires, in words."""
        zone = f" {self.spec['timezone']}" if self.spec.get("timezone") else ""
        if "cron" in self.spec:
            return f"cron {self.spec['cron']!r}{zone}"
        if "interval" in self.spec:
            return f"every {float(self.spec['interval']):g} s{zone}"
        return f"rrule {self.spec.get('rrule')!r}{zone}"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A flow with its parameters, schedules and place to run."""

    id: str
    name: str
    flow_id: str
    version: str | None
    paused: bool
    entrypoint: str | None
    work_pool: str | None
    parameters: Mapping[str, Any]
    tags: tuple[str, ...]
    schedules: tuple[Schedule, ...]
    concurrency_limit: Mapping[str, Any] | None
    """The global limit that it runs under: `id`, `name`, `limit`, `active_slots`."""
    pull_steps: Sequence[Mapping[str, Any]]


def flow_run_of(found: Mapping[str, Any]) -> FlowRun:
    """Read a flow run as the server sends it."""
    state = found.get("state") or {}
    return FlowRun(
        id=found["id"],
        name=found["name"],
        flow_id=found["flow_id"],
        deployment_id=found.get("deployment_id"),
        state_type=found.get("state_type") or "PENDING",
        state_name=found.get("state_name") or "Pending",
        message=state.get("message") or "",
        expected_start=moment_of(found.get("expected_start_time")),
        started=moment_of(found.get("start_time")),
        ended=moment_of(found.get("end_time")),
        seconds=float(found.get("total_run_time") or 0.0),
        parameters=found.get("parameters") or {},
        tags=tuple(found.get("tags") or ()),
        idempotency_key=found.get("idempotency_key"),
        is_scheduled=bool(found.get("auto_scheduled")),
    )


def deployment_of(found: Mapping[str, Any]) -> Deployment:
    """Read a deployment as the server sends it."""
    return Deployment(
        id=found["id"],
        name=found["name"],
        flow_id=found["flow_id"],
        version=found.get("version"),
        paused=bool(found.get("paused")),
        entrypoint=found.get("entrypoint"),
        work_pool=found.get("work_pool_name"),
        parameters=found.get("parameters") or {},
        tags=tuple(found.get("tags") or ()),
        schedules=tuple(_schedule(schedule) for schedule in found.get("schedules") or ()),
        concurrency_limit=found.get("global_concurrency_limit"),
        pull_steps=found.get("pull_steps") or (),
    )


def _schedule(found: Mapping[str, Any]) -> Schedule:
    return Schedule(
        id=found["id"],
        slug=found.get("slug"),
        active=bool(found["active"]),
        spec=found["schedule"],
        parameters=found.get("parameters") or {},
    )


def moment_of(text: str | None) -> datetime | None:
    """Read a moment as the server sends it, with its time zone."""
    return None if text is None else datetime.fromisoformat(text)
