"""The bounds of a flow run: too late, too long, tried again."""

import asyncio
import logging
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect_server import PrefectServer

from mmcore.core.run_log import RunLog
from mmcore.core.runs import cancel_request
from mmcore.errors import StepError, StorageError
from mmcore.operate.deployments import RetriesSection
from mmcore.telemetry.prefect import PrefectApi
from pipelines import flows
from pipelines.limits import deadline, retried
from pipelines.threads import in_daemon_thread

# Prefect's client leaves sockets to the garbage collector
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)
LOGGER = logging.getLogger("test")
AT_ONCE = RetriesSection(max_retries=2, delay_seconds=0.0)


class Flaky:
    """Work that fails a few times before it succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.num_attempts = 0

    async def __call__(self) -> str:
        self.num_attempts += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_a_disk_or_network_that_fails_is_tried_again() -> None:
    work = Flaky(StorageError("the bucket is away"), ConnectionError("reset"))
    assert asyncio.run(retried(work, AT_ONCE, logger=LOGGER)) == "done"
    assert work.num_attempts == 3


def test_after_the_last_retry_the_error_stands() -> None:
    work = Flaky(*[StorageError(str(i)) for i in range(5)])
    with pytest.raises(StorageError, match="2"):
        asyncio.run(retried(work, AT_ONCE, logger=LOGGER))
    assert work.num_attempts == 3


def test_what_would_be_the_same_the_next_time_is_not_tried_again() -> None:
    work = Flaky(StepError("bad data"))
    with pytest.raises(StepError):
        asyncio.run(retried(work, AT_ONCE, logger=LOGGER))
    assert work.num_attempts == 1


def test_each_delay_is_longer_than_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("pipelines.limits.asyncio.sleep", sleep)
    work = Flaky(*[StorageError("x")] * 3)
    section = RetriesSection(max_retries=3, delay_seconds=10, backoff=2)
    asyncio.run(retried(work, section, logger=LOGGER))
    assert slept == [10, 20, 40]


def test_a_function_in_a_daemon_thread_returns_and_raises_as_if_it_were_called() -> None:
    assert asyncio.run(in_daemon_thread(divmod, 7, 2)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(in_daemon_thread(divmod, 7, 0))


def test_whoever_waits_for_a_daemon_thread_may_leave_it_behind() -> None:
    release = threading.Event()

    async def wait_a_moment() -> None:
        await asyncio.wait_for(in_daemon_thread(release.wait), 0.1)

    with pytest.raises(TimeoutError):
        asyncio.run(wait_a_moment())
    release.set()


def test_a_run_that_takes_too_long_is_asked_to_stop_and_others_are_not(tmp_path: Path) -> None:
    root = str(tmp_path)
    settings = {"recipe": "r.yaml", "name": "n", "executor": "local"}
    ours = RunLog(root, **settings, flow={"flow_run_id": "ours"})  # type: ignore[arg-type]
    other = RunLog(root, **settings, flow={"flow_run_id": "other"})  # type: ignore[arg-type]

    async def work() -> bool:
        async with deadline(root, "ours", 0.05) as limit:
            while cancel_request(ours.url) is None:
                await asyncio.sleep(0.02)
            return limit.has_passed

    assert asyncio.run(asyncio.wait_for(work(), 60))
    request = cancel_request(ours.url)
    assert request is not None
    assert (request["by"], request["why"]) == (
        "deadline",
        "it took longer than timeout_seconds=0.05",
    )
    assert cancel_request(other.url) is None


def test_a_run_in_time_is_left_alone(tmp_path: Path) -> None:
    log = RunLog(
        str(tmp_path), recipe="r", name="n", executor="local", flow={"flow_run_id": "ours"}
    )

    async def work() -> bool:
        async with deadline(str(tmp_path), "ours", 60.0) as limit:
            await asyncio.sleep(0.05)
        return limit.has_passed

    assert not asyncio.run(work())
    assert cancel_request(log.url) is None


class Outage:
    """A deployment whose scheduled runs were missed while everything was down."""

    def __init__(self, api: PrefectApi, project: Path, name: str, *, limit: float) -> None:
        self.api = api
        (project / "late.yaml").write_text(
            f"name: late\nrecipe: {project}/texts.yaml\nskip_if_late_seconds: {limit}\n"
        )
        flow = api._ask("POST", "/flows/", {"name": "prepare-data"})
        parameters = {
            "recipe": str(project / "texts.yaml"),
            "root": str(project / "root"),
            "executor": "local",
            "workers": 1,
            "policy": str(project / "late.yaml"),
        }
        body: dict[str, Any] = {
            "name": name,
            "flow_id": flow["id"],
            "parameters": parameters,
            "paused": True,  # the server plans nothing by itself
            "schedules": [{"schedule": {"interval": 600}, "active": True, "slug": "s"}],
        }
        self.deployment_id = api._ask("POST", "/deployments/", body)["id"]

    def plan(self, *, hours: float) -> list[str]:
        """Plan the runs of the last hours as the scheduler had, and return them by time."""
        now = datetime.now(UTC)
        body = {
            "start_time": (now - timedelta(hours=hours)).isoformat(),
            "end_time": now.isoformat(),
            "min_runs": 100,
            "max_runs": 100,
        }
        self.api._ask("POST", f"/deployments/{self.deployment_id}/schedule", body)
        runs = self.api.flow_runs(
            deployment_ids=[self.deployment_id], sort="EXPECTED_START_TIME_ASC"
        )
        assert all(run.is_scheduled for run in runs)
        return [run.id for run in runs]

    def run(self, flow_run_id: str, **more: Any) -> tuple[str, str]:
        """Run one of them in this process; return the name of its last state and the message."""
        from prefect.client.orchestration import get_client
        from prefect.flow_engine import run_flow_async

        async def run() -> None:
            async with get_client() as client:
                flow_run = await client.read_flow_run(flow_run_id)  # type: ignore[arg-type]
            parameters = {**flow_run.parameters, **more}
            await run_flow_async(
                flows.prepare_data, flow_run=flow_run, parameters=parameters, return_type="state"
            )

        asyncio.run(run())
        ended = self.api.flow_run(flow_run_id)
        assert ended.state_type == "COMPLETED"
        return ended.state_name, ended.message


def test_of_runs_that_piled_up_only_the_newest_does_anything(
    on_server: PrefectServer, api: PrefectApi, project: Path
) -> None:
    outage = Outage(api, project, "piled-up", limit=10**6)
    older, *_, newest = outage.plan(hours=0.6)
    state, why = outage.run(older)
    assert state == "Skipped"
    assert "takes its place" in why
    assert not (project / "root" / "runs").exists()
    assert outage.run(newest)[0] == "Completed"
    assert (project / "root" / "ds").exists()


def test_a_scheduled_run_that_is_too_late_is_skipped_unless_it_is_forced(
    on_server: PrefectServer, api: PrefectApi, project: Path
) -> None:
    outage = Outage(api, project, "too-late", limit=0.001)
    *_, before, newest = outage.plan(hours=0.6)
    state, why = outage.run(newest)
    assert state == "Skipped"
    assert "skip_if_late_seconds" in why
    assert outage.run(before, force=True)[0] == "Completed"
