import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dashboards import Opened, a_run, csrf_of, index_of
from playwright.sync_api import expect
from slow_recipe import Starter, starting, write_slow_recipe
from starlette.applications import Starlette
from starlette.testclient import TestClient

from mmcore.core.runs import effective_status, load_run
from mmcore.dashboard.pages.runs import command_of

SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
PLAN = [
    {"name": "scan", "inputs": [], "will_run": False, "reason": "no file changed", "estimated_seconds": None},
    {"name": "ingest", "inputs": ["scan"], "will_run": True, "reason": "another version of its code", "estimated_seconds": 10.0},
    {"name": "clean", "inputs": ["ingest"], "will_run": True, "reason": "its input changed: ingest", "estimated_seconds": 30.0},
]  # fmt: skip


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[Starter]:
    with starting(tmp_path) as made:
        yield made


def test_page_of_a_run_says_what_each_step_did_and_why(root: Path, client: TestClient) -> None:
    log = a_run(root)
    log.planned(PLAN)
    log.event("step_skipped", "scan", {"url": ""})
    log.event("step_started", "ingest", {"num_tasks": 4, "num_resumed": 0})
    counts = {
        "found": 398,
        "kept": 350,
        "dropped": {"image_too_small": 40},
        "quarantined": {"audio_truncated": 8},
    }
    log.event("step_finished", "ingest", {"seconds": 2.0, "counts": counts, "url": ""})
    log.event("step_started", "clean", {"num_tasks": 10, "num_resumed": 0})
    log.event("task_finished", "clean", {"done": 10, "total": 10, "task": "part-000000"})
    page = client.get(f"/runs/{log.run_id}").text
    for expected in (
        "another version of its code", "image too small", "audio truncated", "350", "199",
        "samples/s", "10 of 10", "Cancel run", '<svg class="graph"', "8.0 s",
    ):  # fmt: skip
        assert expected in page, expected


def test_failed_run_shows_its_error_and_the_command_that_goes_on(
    root: Path, client: TestClient
) -> None:
    log = a_run(root, overrides=["train.epochs=3", "x=a b"], until=["shard"])
    log.finish("failed", error="the disk is full")
    page = client.get(f"/runs/{log.run_id}").text
    assert "the disk is full" in page
    assert "mm run recipes/stamps.yaml --root" in page
    run = load_run(str(root), log.run_id)
    assert command_of(run, "/my root") == (
        "mm run recipes/stamps.yaml --root '/my root' --set train.epochs=3 --set 'x=a b' --until shard"
    )


def test_cancel_asks_the_run_and_says_who_and_why(root: Path, client: TestClient) -> None:
    log = a_run(root)
    answer = client.post(f"/runs/{log.run_id}/cancel", data={**csrf_of(client), "why": "too slow"})
    assert answer.status_code == 303
    request = log.cancel_request()
    assert request is not None
    assert (request["by"], request["why"]) == ("dashboard", "too slow")
    assert "too slow" in client.get(answer.headers["location"]).text


def test_run_that_has_ended_is_not_asked_to_stop(root: Path, client: TestClient) -> None:
    log = a_run(root)
    log.finish("done")
    answer = client.post(f"/runs/{log.run_id}/cancel", data=csrf_of(client))
    assert log.cancel_request() is None
    assert "had ended already" in client.get(answer.headers["location"]).text


def test_run_that_is_not_there_is_not_found(client: TestClient) -> None:
    for method, path in (("GET", ""), ("GET", "/live"), ("POST", "/cancel"), ("POST", "/retry")):
        answer = client.request(
            method,
            f"/runs/20260101-000000-aaaa{path}",
            data=csrf_of(client) if method == "POST" else None,
        )
        assert answer.status_code == 404, path


def test_run_without_a_deployment_cannot_be_retried_by_prefect(
    root: Path, client: TestClient
) -> None:
    log = a_run(root)
    log.finish("failed", error="x")
    assert client.post(f"/runs/{log.run_id}/retry", data=csrf_of(client)).status_code == 409


def test_live_events_carry_parts_and_log_and_end_with_the_run(
    root: Path, client: TestClient
) -> None:
    log = a_run(root)
    log.planned(PLAN)
    (Path(log.url) / "log.jsonl").write_text(
        json.dumps(
            {
                "at": "2026-11-22T05:00:00+00:00",
                "level": "warning",
                "message": "slow_disk",
                "seconds": 3,
            }
        )
        + "\n"
    )
    log.finish("done")
    said = client.get(f"/runs/{log.run_id}/live").text
    names = [
        line.removeprefix("event: ") for line in said.splitlines() if line.startswith("event:")
    ]
    assert names == ["summary", "graph", "steps", "log", "end"]
    assert "slow disk" in said
    assert "level-warning" in said
    last_id = [line for line in said.splitlines() if line.startswith("id:")][-1].removeprefix(
        "id: "
    )
    again = client.get(f"/runs/{log.run_id}/live", headers={"last-event-id": last_id}).text
    assert "slow disk" not in again


def test_api_gives_the_same(root: Path, app: Starlette, client: TestClient) -> None:
    log = a_run(root)
    log.planned(PLAN)
    index_of(app)
    listed = client.get("/api/runs").json()
    assert listed["schema"] == "mm.runs/1"
    assert [run["run_id"] for run in listed["runs"]] == [log.run_id]
    one = client.get(f"/api/runs/{log.run_id}").json()
    assert one["run"]["status"] == "running"
    assert [step["name"] for step in one["steps"]] == ["scan", "ingest", "clean"]
    assert client.get("/api/runs?status=odd").status_code == 400
    headers = {"x-csrf-token": csrf_of(client)["csrf_token"]}
    answer = client.post(f"/api/runs/{log.run_id}/cancel", json={"why": "x"}, headers=headers)
    assert answer.json()["was_asked"] is True


def test_script_in_names_errors_and_logs_is_shown_and_not_run(
    root: Path, app: Starlette, browser_page: Callable[..., Opened]
) -> None:
    log = a_run(root, name=SCRIPT, recipe=SCRIPT, overrides=[SCRIPT])
    log.planned([{**PLAN[0], "name": SCRIPT, "reason": SCRIPT}])
    log.event("progress", SCRIPT, {"done": 1, "total": 1, "message": SCRIPT})
    line = {"at": SCRIPT, "level": SCRIPT, "message": SCRIPT, SCRIPT: SCRIPT, "traceback": SCRIPT}
    (Path(log.url) / "log.jsonl").write_text(json.dumps(line) + "\n")
    opened = browser_page(root)
    page = opened.page
    for path in ("/", "/runs", f"/runs/{log.run_id}"):
        opened.goto(path)
        page.wait_for_timeout(1200)  # a few live events
        assert "document.title='owned'" in page.locator("main").inner_text(), path
        assert page.locator("main script, main img").count() == 0
        assert page.title() != "owned"
    log.finish("failed", error=SCRIPT)
    for path in ("/", "/runs", f"/runs/{log.run_id}"):
        opened.goto(path)
        assert "document.title='owned'" in page.locator("main").inner_text(), path
        assert page.locator("main script, main img").count() == 0
        assert page.title() != "owned"


def test_running_run_is_followed_live_and_cancelled(
    root: Path, tmp_path: Path, starter: Starter, browser_page: Callable[..., Opened]
) -> None:
    started = starter.run(write_slow_recipe(tmp_path, num_texts=200), root, "--workers", "1")
    started.wait_for("task_finished", "clean")
    opened = browser_page(root)
    page = opened.page
    opened.goto("/")
    page.locator("#running").get_by_text("slow").first.click()
    page.wait_for_url("**/runs/*")
    share = page.locator("#step-clean .step-share")
    before = share.inner_text()
    expect(share).not_to_have_text(before, timeout=30_000)
    page.get_by_role("button", name="Cancel run").click()
    page.get_by_label("Reason").fill("it was only a test")
    page.get_by_role("dialog").get_by_role("button", name="Cancel run").click()
    page.locator(".summary .badge.is-cancelled").wait_for(timeout=60_000)
    assert started.finish() != 0
    assert effective_status(load_run(str(root), started.run_id)) == "cancelled"
    assert "it was only a test" in page.locator(".summary").inner_text()
    assert not started.its_processes()


def test_stream_of_a_run_stops_when_the_dashboard_closes(
    root: Path, app: Starlette, client: TestClient
) -> None:
    log = a_run(root)
    log.planned(PLAN)
    app.state.is_closing = True
    began = time.monotonic()
    assert "event:" not in client.get(f"/runs/{log.run_id}/live").text
    assert time.monotonic() - began < 30
    assert os.getpid() == load_run(str(root), log.run_id)["pid"]
