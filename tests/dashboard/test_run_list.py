"""The list of runs: searched, filtered, walked, at once with thousands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dashboards import Opened, a_run, index_of
from many_runs import make_runs
from playwright.sync_api import expect
from starlette.applications import Starlette
from starlette.testclient import TestClient

from mmcore.dashboard.index.runs import PAGE_SIZE


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


def test_a_list_that_is_replaced_keeps_the_focus_where_it_was(
    root: Path, browser_page: Callable[..., Opened]
) -> None:
    make_runs(root, 3, with_events=False)
    opened = browser_page(root)
    page = opened.page
    opened.goto("/runs")
    page.keyboard.press("j")
    page.keyboard.press("j")
    address = page.evaluate("document.activeElement.getAttribute('href')")
    page.evaluate("document.activeElement.closest('tr').dataset.old = ''")
    page.evaluate("document.querySelector('form.filters').requestSubmit()")
    page.locator("tr[data-old]").wait_for(state="detached")
    assert page.evaluate("document.activeElement.getAttribute('href')") == address
    assert str(address).startswith("/runs/")
