import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dashboards import Opened, log_in
from starlette.applications import Starlette
from starlette.testclient import TestClient

from mmcore.core.run_log import RunLog
from mmcore.recipe.retrain import Verdict, conclude, record
from mmcore.telemetry.prefect import PrefectApi


def a_run(root: Path, name: str = "stamps") -> RunLog:
    return RunLog(str(root), recipe=f"{name}.yaml", name=name, executor="local")


def test_what_failed_is_shown_with_why_and_the_next_command(root: Path, client: TestClient) -> None:
    a_run(root).finish("failed", error="the disk is full")
    page = client.get("/").text
    assert "the disk is full" in page
    assert f"mm run stamps.yaml --root {root}" in page


def test_failure_that_a_later_run_made_good_asks_for_nothing(
    root: Path, client: TestClient
) -> None:
    a_run(root).finish("failed", error="the disk is full")
    import time

    time.sleep(0.01)  # identifiers sort by milliseconds
    a_run(root).finish("done")
    page = client.get("/").text
    assert "a later run went well" in page
    assert "mm run stamps.yaml" not in page


def test_running_run_is_shown_with_its_step(root: Path, client: TestClient) -> None:
    log = a_run(root)
    log.event("step_started", "clean", {"num_tasks": 4, "num_resumed": 0})
    page = client.get("/").text
    assert "step 1 of 1: clean, 0 of 4" in page


def test_decisions_on_new_data_are_shown_with_what_came_of_them(
    root: Path, client: TestClient
) -> None:
    record(
        str(root), "stamps", Verdict(False, "12 new samples, 100 asked", 12, None), trigger="watch"
    )
    done = record(str(root), "birds", Verdict(True, "140 new samples", 140, None), trigger="watch")
    conclude(
        str(root), "birds", done, {"status": "done", "model": "birds/3", "decision": "promoted"}
    )
    page = client.get("/").text
    for expected in ("12 new samples, 100 asked", "Not retrained", "140", "/models/birds/3"):
        assert expected in page


def test_damaged_decisions_do_not_take_the_page_down(root: Path, client: TestClient) -> None:
    (root / "retrain" / "stamps").mkdir(parents=True)
    (root / "retrain" / "stamps" / "20260101-000000-aaaa.json").write_text("{half")
    answer = client.get("/")
    assert answer.status_code == 200
    assert "cannot be read" in answer.text


def test_without_prefect_it_is_said_and_with_a_silent_one_too(
    root: Path, make_app: Callable[..., Starlette]
) -> None:
    assert "No Prefect server is known" in log_in(make_app(root)).get("/").text
    with PrefectApi("http://127.0.0.1:9/api", timeout_seconds=2.0) as prefect:
        client = log_in(make_app(root, prefect=prefect))
        client.app.state.prefect.upcoming.get(wait_seconds=20)  # type: ignore[attr-defined]
        assert "Prefect does not answer" in client.get("/").text


def test_what_comes_next_is_called_by_its_flow_and_deployment(
    root: Path, make_app: Callable[..., Starlette], api: PrefectApi
) -> None:
    flow_id = api._ask("POST", "/flows/", {"name": "retrain"})["id"]
    deployment = {"name": "seals", "flow_id": flow_id, "enforce_parameter_schema": False}
    deployment_id = api._ask("POST", "/deployments/", deployment)["id"]
    soon = datetime.now(UTC) + timedelta(seconds=30)  # before what other tests have planned
    run = api.create_flow_run(deployment_id, scheduled_at=soon)
    try:
        client = log_in(make_app(root, prefect=api))
        client.app.state.prefect.upcoming.get(wait_seconds=60)  # type: ignore[attr-defined]
        page = client.get("/").text
        assert "retrain seals" in page
        assert run.name not in page
    finally:
        api.delete_deployment(deployment_id)


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        (
            {
                "prefect": {"state": "up"},
                "ray": {"state": "failed", "restarts": 3, "log": "ray.log"},
            },
            "stopped",
        ),
        ({}, "Stopped"),
    ],
)
def test_services_of_a_supervisor_that_is_gone_are_stopped(
    root: Path, client: TestClient, state: dict[str, Any], shown: str
) -> None:
    (root / "services").mkdir()
    value = {
        "format": "mm.services",
        "format_version": 1,
        "supervisor": {"host": "h", "machine": "m", "pid": 1, "started": 1},
        "services": state,
    }
    (root / "services" / "services.json").write_text(json.dumps(value))
    assert shown in client.get("/").text


def test_damaged_services_file_does_not_take_the_page_down(root: Path, client: TestClient) -> None:
    (root / "services").mkdir()
    (root / "services" / "services.json").write_text("{half")
    answer = client.get("/")
    assert answer.status_code == 200
    assert "is damaged" in answer.text


def test_page_renews_itself(root: Path, browser_page: Callable[..., Opened]) -> None:
    opened = browser_page(root)
    opened.goto("/")
    assert "This root is new" in opened.page.locator("main").inner_text()
    log = a_run(root)
    log.event("step_started", "clean", {"num_tasks": 4, "num_resumed": 0})
    opened.page.locator("#running").get_by_text("clean").wait_for()
    log.finish("failed", error="the disk is full")
    opened.page.locator("#failed").get_by_text("the disk is full").wait_for()
