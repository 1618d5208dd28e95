"""What keeps a flow run within bounds: too late, too long, tried again, one state at its end."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

from prefect import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.logging.loggers import LoggingAdapter

from mmcore.core import runs
from mmcore.errors import StorageError
from mmcore.operate.deployments import RetriesSection
from mmcore.telemetry.prefect import PrefectUnreachable

ResultT = TypeVar("ResultT")
RETRIED = (StorageError, PrefectUnreachable, ConnectionError)
"""A disk, a network, a server: bad data and bad settings are the same the next time."""
_LOOK_SECONDS = 1.0
_NUM_LOOKED_AT = 50  # of the newest runs, for that of this flow run


async def why_late(skip_if_late_seconds: float | None) -> str | None:
    """Return why a scheduled run should not begin any more, or None.

    After an outage all the runs that were missed begin at once; only the newest has to, and only
    where it is not too late. What a person or an event started is never late.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if run is None or not run.auto_scheduled or run.expected_start_time is None:
        return None
    now = datetime.now(UTC)
    due = run.expected_start_time
    seconds = (now - due).total_seconds()
    if skip_if_late_seconds is not None and seconds > skip_if_late_seconds:
        return (
            f"it was due at {due:%Y-%m-%d %H:%M:%S} UTC, {seconds:.0f} s ago; "
            f"skip_if_late_seconds is {skip_if_late_seconds:.0f}"
        )
    waiting = FlowRunFilterStateType(any_=[StateType.SCHEDULED, StateType.PENDING])
    async with get_client() as client:
        others = await client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[run.deployment_id])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=waiting),
                expected_start_time=FlowRunFilterExpectedStartTime(after_=due, before_=now),
            ),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=10,
        )
    for other in others:
        if other.auto_scheduled and other.id != run.id and (other.expected_start_time or due) > due:
            return (
                f"it was due at {due:%Y-%m-%d %H:%M:%S} UTC, and a newer run of the schedule, "
                f"due at {other.expected_start_time:%Y-%m-%d %H:%M:%S} UTC, takes its place"
            )
    return None


class Deadline:
    """Knows whether the time was up."""

    has_passed = False


@contextlib.asynccontextmanager
async def deadline(
    root: str, flow_run_id: str | None, timeout_seconds: float | None
) -> AsyncIterator[Deadline]:
    """Cancel the run of this flow run when it takes too long.

    Prefect's own timeout cannot stop a thread; a run that is asked to stop leaves nothing behind.
    """
    passed = Deadline()
    if timeout_seconds is None or flow_run_id is None:
        yield passed
        return

    async def cancel_in_time() -> None:
        await asyncio.sleep(timeout_seconds)
        passed.has_passed = True
        while True:  # a retry begins another run
            for run in await asyncio.to_thread(runs_of, root, flow_run_id):
                why = f"it took longer than timeout_seconds={timeout_seconds:g}"
                await asyncio.to_thread(
                    runs.request_cancel, root, run["run_id"], by="deadline", why=why
                )
            await asyncio.sleep(_LOOK_SECONDS)

    watch = asyncio.create_task(cancel_in_time())
    try:
        yield passed
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


def runs_of(root: str, flow_run_id: str | None) -> list[runs.Record]:
    """Return the records of the runs that a flow run made, the newest first."""
    newest = runs.list_runs(root, limit=_NUM_LOOKED_AT) if flow_run_id else []
    return [run for run in newest if run.get("flow_run_id") == flow_run_id]


async def retried(
    work: Callable[[], Awaitable[ResultT]],
    retries: RetriesSection,
    *,
    logger: "logging.Logger | LoggingAdapter",
) -> ResultT:
    """Do a work, and again when a disk, a network or a server failed; it goes on where it was."""
    delay_seconds = retries.delay_seconds
    for attempt in range(1, retries.max_retries + 1):
        try:
            return await work()
        except RETRIED as error:
            logger.warning(
                "attempt %d of %d failed: %s Trying again in %.0f s.",
                attempt,
                retries.max_retries + 1,
                error,
                delay_seconds,
            )
        await asyncio.sleep(delay_seconds)
        delay_seconds *= retries.backoff
    return await work()
