import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboards import Opened, csrf_of
from many_runs import make_runs
from playwright.sync_api import expect
from slow_recipe import Starter, starting, write_slow_recipe
from starlette.applications import Starlette
from starlette.testclient import TestClient

from mmcore.core.runs import RunLog, effective_status, load_run
from mmcore.dashboard.index.runs import PAGE_SIZE, RunIndex
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


def a_run(root: Path, **changes: Any) -> RunLog:
    """A run of this very process, which lives while the test does."""
    plain = {
        "recipe": "recipes/stamps.yaml",
        "name": "stamps",
        "executor": "local",
        "num_workers": 4,
    }
    return RunLog(str(root), **{**plain, **changes})


def index_of(app: Starlette) -> RunIndex:
    index: RunIndex = app.state.runs
    index.sync()
    return index


def test_list_shows_how_each_run_is(root: Path, app: Starlette, client: TestClient) -> None:
    a_run(root)
    a_run(root, name="birds").finish("failed", error="the disk is full")
    make_runs(root, 3)
    index_of(app)
    page = client.get("/runs").text
    for expected in ("stamps", "running", "birds", "the disk is full", "failed"):
        assert expected in page


def test_run_whose_process_is_gone_is_shown_as_died(root: Path, app: Starlette) -> None:
    log = a_run(root)
    record = json.loads((Path(log.url) / "run.json").read_text())
    assert index_of(app).counts() == {"running": 1}
    # the same pid, begun at another time: another process
    record["pid_started"] = record["pid_started"] - 1
    (Path(log.url) / "run.json").write_text(json.dumps(record))
    assert index_of(app).counts() == {"died": 1}


def test_run_that_ends_is_read_again_and_counted_once(root: Path, app: Starlette) -> None:
    log = a_run(root)
    index = index_of(app)
    assert index.counts() == {"running": 1}
    log.finish("done")
    index.sync()
    assert index.counts() == {"done": 1}
    assert [row["status"] for row in index.page().runs] == ["done"]


def test_run_that_is_deleted_is_forgotten(root: Path, app: Starlette) -> None:
    import shutil

    runs = make_runs(root, 3)
    index = index_of(app)
    shutil.rmtree(root / "runs" / runs[1])
    index.sync()
    assert [row["run_id"] for row in index.page().runs] == [runs[2], runs[0]]
    assert sum(index.counts().values()) == 2


def test_record_that_cannot_be_read_is_shown_and_breaks_nothing(
    root: Path, app: Starlette, client: TestClient
) -> None:
    (root / "runs" / "20260101-000000-000aaaa").mkdir(parents=True)
    (root / "runs" / "20260101-000000-000aaaa" / "run.json").write_text("{half")
    make_runs(root, 1)
    index_of(app)
    page = client.get("/runs").text
    assert "cannot be read" in page


def test_index_knows_after_a_restart_what_it_knew(
    root: Path, make_app: Callable[..., Starlette]
) -> None:
    make_runs(root, 30)
    before = index_of(make_app(root))
    counts, page = before.counts(), [tuple(row) for row in before.page().runs]
    again = make_app(root).state.runs
    assert again.counts() == counts
    assert [tuple(row) for row in again.page().runs] == page


def test_pages_are_walked_to_the_end_and_back_without_gap_or_double(
    root: Path, app: Starlette
) -> None:
    runs = list(reversed(make_runs(root, 2 * PAGE_SIZE + 7, with_events=False)))
    index = index_of(app)
    seen, before = [], ""
    pages = []
    while True:
        page = index.page(before=before)
        pages.append(page)
        seen += [row["run_id"] for row in page.runs]
        if not page.older:
            break
        before = page.older
    assert seen == runs
    assert pages[0].newer == ""
    back = index.page(after=pages[-1].newer)
    assert [row["run_id"] for row in back.runs] == runs[PAGE_SIZE : 2 * PAGE_SIZE]
    first = index.page(after=back.newer)
    assert [row["run_id"] for row in first.runs] == runs[:PAGE_SIZE]
    assert first.newer == ""


def test_filters_hold_together_and_words_are_taken_literally(root: Path, app: Starlette) -> None:
    make_runs(root, 200, with_events=False)
    a_run(root, name="odd_name").finish("failed", error="100% of it\\ is [gone]")
    index = index_of(app)
    for row in index.page(status="failed", name="stamps").runs:
        assert (row["status"], row["name"]) == ("failed", "stamps")
    assert [row["name"] for row in index.page(text="100% GONE").runs] == ["odd_name"]
    assert [row["name"] for row in index.page(text="it\\").runs] == ["odd_name"]
    assert index.page(text="10_%").runs == []
    assert index.page(text="' OR 1=1 --").runs == []


def test_ten_thousand_runs_are_looked_at_once(root: Path, app: Starlette) -> None:
    make_runs(root, 2000, with_events=False)
    index = index_of(app)
    assert sum(index.counts().values()) == 2000
    opened: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith("run.json"):
            opened.append(str(arguments[0]))

    import sys

    sys.addaudithook(watch)
    index.sync()
    num_dead = index.counts().get("died", 0)
    a_run(root)
    index.sync()
    assert len(opened) <= 2 * num_dead + 10


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


def test_list_is_searched_while_typing(root: Path, browser_page: Callable[..., Opened]) -> None:
    make_runs(root, 120, with_events=False)
    a_run(root, name="needle").finish("failed", error="lost in the hay")
    opened = browser_page(root)
    page = opened.page
    opened.goto("/runs")
    page.keyboard.press("/")
    page.keyboard.type("hay lost")
    expect(page.locator("#run-list tbody tr")).to_have_count(1)
    assert "q=hay" in page.url
    page.locator("#q").press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/2*")
    assert "lost in the hay" in page.locator("main").inner_text()


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
