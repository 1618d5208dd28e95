"""Deploying to a real Prefect server: once, again, and with less than before."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import wait_until

from mmcore.errors import ConfigError, StepError
from mmcore.operate.connection import Connection
from mmcore.operate.deploy import Changes, deploy
from mmcore.operate.deployed import list_deployed
from mmcore.operate.deployments import load_deployments
from mmcore.operate.events import notify_data
from mmcore.operate.schedules import backfill, list_schedules, set_active, wait_until_planned
from mmcore.telemetry.prefect import Deployment, PrefectApi, PrefectUnreachable

Project = Callable[..., Changes]
TWO_SCHEDULES = """
schedules:
  - {slug: nightly, cron: "0 3 * * *", timezone: Europe/Oslo}
  - {slug: hourly, flow: prepare-data, interval_seconds: 3600}
watch: {debounce_seconds: 3}
"""


def of(api: PrefectApi, flow: str, name: str) -> Deployment:
    found = api.deployment(flow, name)
    assert found is not None
    return found


def test_a_second_deploy_changes_nothing_and_one_with_less_removes_what_is_gone(
    project: Project, api: PrefectApi, name: str, connection: Connection, tmp_path: Path
) -> None:
    first = project(TWO_SCHEDULES)
    assert [line for line in first.done if "created" in line and "/" in line] == [
        f"{flow}/{name}: created" for flow in ("retrain", "end-to-end", "prepare-data")
    ]
    before = of(api, "retrain", name)
    assert before.parameters["root"] == connection.root
    assert [schedule.slug for schedule in before.schedules] == ["nightly"]
    assert before.concurrency_limit is not None
    limits = {
        flow: of(api, flow, name).concurrency_limit["id"]  # type: ignore[index]
        for flow in ("retrain", "end-to-end", "prepare-data")
    }
    assert set(limits.values()) == {before.concurrency_limit["id"]}, "one limit for the dataset"
    assert before.concurrency_limit["limit"] == 1
    assert [one.dataset for one in list_deployed(connection.root)] == [name]

    second = project(TWO_SCHEDULES)
    assert second.done == []
    assert f"retrain/{name}" in second.unchanged
    assert of(api, "retrain", name) == before

    third = project("")
    assert f"retrain/{name}: schedule nightly removed" in third.done
    assert f"prepare-data/{name}: schedule hourly removed" in third.done
    assert of(api, "retrain", name).schedules == ()
    assert of(api, "retrain", name).concurrency_limit == before.concurrency_limit


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    project: Project, api: PrefectApi, name: str, connection: Connection
) -> None:
    assert f"retrain/{name}: created" in project(dry_run=True).done
    assert api.deployment("retrain", name) is None
    assert list_deployed(connection.root) == []


def test_what_prefect_refuses_is_said_in_its_words(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "mmcore.operate.prefect_yaml.ENTRYPOINTS", {"retrain": "pipelines.flows.no_such_flow"}
    )
    with pytest.raises(StepError, match="no_such_flow"):
        project("flows: [retrain]")


def test_a_paused_schedule_stays_paused_and_a_resumed_one_is_planned(
    project: Project, name: str, connection: Connection
) -> None:
    project(TWO_SCHEDULES)
    planned = [
        row for row in wait_until_planned(connection, seconds=60) if name in row["deployment"]
    ]
    assert all(row["next"] for row in planned), (
        "Prefect's scheduler plans nothing: is SQLAlchemy older than 2.1?"
    )
    assert set_active(connection, f"retrain/{name}", "nightly", active=False) == [("nightly", True)]
    assert set_active(connection, f"retrain/{name}", None, active=False) == [("nightly", False)]
    assert project(TWO_SCHEDULES).done == []
    (row,) = list_schedules(connection, f"retrain/{name}")
    assert row["active"] is False
    assert row["when"] == "cron '0 3 * * *' Europe/Oslo"
    with pytest.raises(ConfigError, match="Did you mean 'nightly'"):
        set_active(connection, f"retrain/{name}", "nightli", active=True)
    with pytest.raises(ConfigError, match=f"Did you mean 'retrain/{name}'"):
        set_active(connection, f"retrian/{name}", None, active=True)


def test_events_of_one_burst_start_one_retraining_with_what_the_event_told(
    project: Project, api: PrefectApi, name: str, connection: Connection
) -> None:
    project(TWO_SCHEDULES)
    deployment_id = of(api, "retrain", name).id
    # the server's triggers hear of a new automation a moment after it is made
    time.sleep(2)
    for number in (1, 2, 3):
        notify_data(connection, dataset=name, source="in", num_files=number, first_keys=["a.png"])

    def started() -> list[object]:
        runs = api.flow_runs(deployment_ids=[deployment_id])
        return [run.parameters for run in runs if "arrived" in run.parameters]

    wait_until(started, seconds=60, what="a flow run is scheduled")
    notify_data(connection, dataset="another", num_files=9)
    time.sleep(3)
    (parameters,) = [
        run.parameters
        for run in api.flow_runs(deployment_ids=[deployment_id])
        if "arrived" in run.parameters
    ]
    assert parameters["arrived"] == {
        "dataset": name,
        "source": "in",
        "num_files": 1,
        "num_bytes": 0,
        "first_keys": ["a.png"],
    }
    assert parameters["recipe"] == "texts.yaml"
    assert parameters["root"] == connection.root


def test_a_second_backfill_adds_nothing(
    project: Project, api: PrefectApi, name: str, connection: Connection
) -> None:
    from datetime import date

    project("flows: [prepare-data]")
    first, last = date(2026, 1, 30), date(2026, 2, 2)
    would = backfill(connection, f"prepare-data/{name}", first, last, dry_run=True)
    assert [(run.logical_date, run.is_new) for run in would][:2] == [
        ("2026-01-30", True),
        ("2026-01-31", True),
    ]
    assert api.flow_runs(deployment_ids=[of(api, "prepare-data", name).id]) == []
    made = backfill(connection, name, first, last)
    assert [run.is_new for run in made] == [True] * 4
    again = backfill(connection, name, first, date(2026, 2, 3))
    assert [run.is_new for run in again] == [False] * 4 + [True]
    runs = api.flow_runs(deployment_ids=[of(api, "prepare-data", name).id])
    assert sorted(run.parameters["logical_date"] for run in runs) == [
        "2026-01-30",
        "2026-01-31",
        "2026-02-01",
        "2026-02-02",
        "2026-02-03",
    ]
    with pytest.raises(ConfigError, match="Swap them"):
        backfill(connection, name, last, first)


def test_without_a_server_it_is_said_how_to_get_one(project: Project, tmp_path: Path) -> None:
    project(dry_run=True)
    nowhere = Connection(root=os.fspath(tmp_path))
    with pytest.raises(PrefectUnreachable, match="mm up"):
        deploy(nowhere, load_deployments(["d.yaml"]), directory=str(tmp_path))
