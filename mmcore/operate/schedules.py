"""The schedules of deployments: what they are, what they run next, pausing, and backfills."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from mmcore.config import suggest
from mmcore.errors import ConfigError
from mmcore.operate.connection import Connection
from mmcore.operate.events import open_prefect
from mmcore.operate.prefect_yaml import TAG
from mmcore.telemetry.prefect import PAGE_SIZE, Deployment, PrefectApi, Schedule

MAX_BACKFILL_RUNS = 1000


@dataclass(frozen=True)
class Named:
    """A deployment with the name that people use, `flow/name`."""

    name: str
    deployment: Deployment


@dataclass(frozen=True)
class PastRun:
    """One run of a backfill."""

    logical_date: str
    flow_run_id: str | None
    """None when nothing was created: a dry run, or it is there already."""
    is_new: bool


def named_deployments(prefect: PrefectApi) -> list[Named]:
    """Return our deployments on the server, sorted by name."""
    flows = prefect.flow_names()
    found = prefect.deployments(tags=[TAG])
    named = [Named(f"{flows[one.flow_id]}/{one.name}", one) for one in found]
    return sorted(named, key=lambda one: one.name)


def find(named: Sequence[Named], wanted: str) -> Named:
    """Return the deployment `flow/name`; `name` alone does where there is only one of it."""
    found = [one for one in named if wanted in (one.name, one.deployment.name)]
    if len(found) == 1:
        return found[0]
    names = [one.name for one in named]
    if found:
        raise ConfigError(f"{wanted!r} may be {', '.join(one.name for one in found)}. Say which.")
    raise ConfigError(f"{wanted!r} is not deployed.{suggest(wanted, names)} Deploy with: mm deploy")


def list_schedules(connection: Connection, wanted: str | None = None) -> list[dict[str, Any]]:
    """Return every schedule: `deployment`, `slug`, `when`, `active`, `next`."""
    with open_prefect(connection) as prefect:
        named = named_deployments(prefect)
        if wanted is not None:
            named = [find(named, wanted)]
        ids = [one.deployment.id for one in named]
        planned = prefect.flow_runs(
            state_types=["SCHEDULED"],
            deployment_ids=ids,
            sort="NEXT_SCHEDULED_START_TIME_ASC",
            limit=PAGE_SIZE,
        )
    soonest: dict[str, str] = {}
    for run in planned:
        if run.is_scheduled and run.deployment_id and run.expected_start:
            soonest.setdefault(
                _key(run.deployment_id, _schedule_of(run.idempotency_key)),
                run.expected_start.isoformat(timespec="seconds"),
            )
    return [
        {
            "deployment": one.name,
            "slug": schedule.slug,
            "when": schedule.when,
            "active": schedule.active,
            "next": soonest.get(_key(one.deployment.id, schedule.id)),
        }
        for one in named
        for schedule in one.deployment.schedules
    ]


def set_active(
    connection: Connection, wanted: str, slug: str | None, *, active: bool
) -> list[tuple[str, bool]]:
    """Pause or resume one schedule of a deployment, or all; return slugs and what has changed."""
    with open_prefect(connection) as prefect:
        one = find(named_deployments(prefect), wanted)
        chosen = _chosen(one, slug)
        for schedule in chosen:
            if schedule.active != active:
                prefect.set_schedule_active(one.deployment.id, schedule.id, active)
    return [(schedule.slug or schedule.id, schedule.active != active) for schedule in chosen]


def wait_until_planned(
    connection: Connection, *, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> list[dict[str, Any]]:
    """Return the active schedules, the soonest first, giving the server a moment to plan new ones.

    Prefect's scheduler looks for new schedules every 5 s.
    """
    end = time.monotonic() + seconds
    while True:
        active = [row for row in list_schedules(connection) if row["active"]]
        if all(row["next"] for row in active) or time.monotonic() >= end:
            return sorted(active, key=lambda row: row["next"] or "9999")
        sleep(1.0)


def backfill(
    connection: Connection, wanted: str, first: date, last: date, *, dry_run: bool = False
) -> list[PastRun]:
    """Have a deployment run once for each day; a day that was asked for before is not run again."""
    days = list(_days(first, last))
    with open_prefect(connection) as prefect:
        one = find(named_deployments(prefect), wanted)
        keys = {f"mm-backfill {one.name} {day}": day for day in days}
        there = set()
        asked = list(keys)
        for begin in range(0, len(asked), PAGE_SIZE):
            known = prefect.flow_runs(idempotency_keys=asked[begin : begin + PAGE_SIZE])
            there |= {run.idempotency_key for run in known}
        runs = []
        for key, day in keys.items():
            if key in there or dry_run:
                runs.append(PastRun(day, None, key not in there))
                continue
            run = prefect.create_flow_run(
                one.deployment.id,
                {"logical_date": day},
                idempotency_key=key,
                tags=["backfill"],
                labels={"mm.logical_date": day},
            )
            runs.append(PastRun(day, run.id, True))
    return runs


def _days(first: date, last: date) -> Iterator[str]:
    num_days = (last - first).days + 1
    if num_days < 1:
        raise ConfigError(f"--from {first} is after --to {last}. Swap them.")
    if num_days > MAX_BACKFILL_RUNS:
        raise ConfigError(
            f"from {first} to {last} are {num_days} runs, and {MAX_BACKFILL_RUNS} are the most at "
            "a time. Ask for less."
        )
    for i in range(num_days):
        yield (first + timedelta(days=i)).isoformat()


def _chosen(one: Named, slug: str | None) -> list[Schedule]:
    schedules = list(one.deployment.schedules)
    if slug is None:
        if not schedules:
            raise ConfigError(f"{one.name} has no schedule. Add one to its file, then: mm deploy")
        return schedules
    chosen = [schedule for schedule in schedules if schedule.slug == slug]
    if not chosen:
        slugs = [schedule.slug for schedule in schedules if schedule.slug]
        raise ConfigError(f"{one.name} has no schedule {slug!r}.{suggest(slug, slugs)}")
    return chosen


def _schedule_of(idempotency_key: str | None) -> str:
    """Return the schedule that planned a run: Prefect's key is `scheduled ID SCHEDULE DATE`."""
    parts = (idempotency_key or "").split()
    return parts[2] if len(parts) > 2 and parts[0] == "scheduled" else ""


def _key(deployment_id: str, schedule_id: str) -> str:
    return f"{deployment_id} {schedule_id}"
