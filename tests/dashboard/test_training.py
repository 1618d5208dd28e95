"""The pages on training: lists, curves that are drawn, comparison."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from dashboards import Opened, log_in
from playwright.sync_api import expect
from starlette.applications import Starlette
from starlette.testclient import TestClient
from trainings import write_training

from mmcore.core.run_log import RunLog
from mmcore.dashboard.index.build import update
from mmcore.dashboard.index.store import SampleDatabase


@pytest.fixture
def trained(root: Path) -> tuple[Path, str, str]:
    slow = write_training(root, learning_rate=0.01)
    fast = write_training(root, learning_rate=0.05)
    update(str(root), SampleDatabase(str(root / "state")))
    return root, slow, fast


def test_no_training_yet_says_how_to_get_one(client: TestClient) -> None:
    answer = client.get("/training")
    assert "No training yet" in answer.text
    assert "mm run" in answer.text


def test_curves_come_as_columns_with_the_clock_beside(
    trained: tuple[Path, str, str], make_app: Callable[..., Starlette]
) -> None:
    root, slow, _ = trained
    curves = log_in(make_app(root)).get(f"/api/training/small/{slow}").json()
    assert curves["steps"]["step"] == list(range(30))
    assert len(curves["steps"]["loss"]) == 30
    assert curves["epochs"]["val_accuracy"] == [0.5, 0.6, 0.7]
    assert curves["throughput"] == {"step": [9, 19, 29], "samples_per_second": [80.0] * 3}


def test_what_the_clock_said_of_each_second_is_a_curve_and_memory_that_of_the_largest_rank(
    root: Path, make_app: Callable[..., Starlette]
) -> None:
    metered = write_training(root, epochs=2, is_metered=True)
    update(str(root), SampleDatabase(str(root / "state")))
    curves = log_in(make_app(root)).get(f"/api/training/small/{metered}").json()
    assert curves["throughput"]["step"] == [4, 9, 14, 19]
    assert curves["throughput"]["samples_per_second"] == [80.0, 90.0, 80.0, 90.0]
    assert curves["throughput"]["data_stall"] == [0.01, 0.02, 0.01, 0.02]
    assert curves["memory"] == {
        "step": [9, 19],
        "memory_mib": [521.0, 531.0],
        "rank 0": [256.0, 256.0],
        "rank 1": [521.0, 531.0],
    }
    newest = dict(curves["now"])
    assert newest["Samples per second"] == "90.0"
    assert newest["Waiting for data"] == "2.0%"
    assert newest["Memory by rank, MiB"] == "256, 531"
    assert newest["Gradient norm"] == "1"


def test_the_clock_is_drawn_and_what_was_not_measured_is_left_out(
    root: Path, browser_page: Callable[..., Opened]
) -> None:
    metered = write_training(root, epochs=2, is_metered=True)
    update(str(root), SampleDatabase(str(root / "state")))
    opened = browser_page(root)
    opened.goto(f"/training/small/{metered}")
    for key in ("samples_per_second", "tokens_per_second", "data_stall", "memory_mib"):
        expect(opened.page.locator(f'[data-chart="{key}"] .uplot canvas')).to_be_visible()
    for key in ("mfu", "gpu_memory_mib"):
        expect(opened.page.locator(f'[data-chart="{key}"]')).to_be_hidden()
    chart = opened.page.locator('[data-chart="data_stall"]')
    chart.get_by_text("Values as a table").click()
    expect(chart.locator("tbody tr").first).to_contain_text("0.01")


def test_a_long_curve_is_thinned_and_keeps_its_ends(
    root: Path, make_app: Callable[..., Starlette]
) -> None:
    long = write_training(root, epochs=500)
    update(str(root), SampleDatabase(str(root / "state")))
    steps = log_in(make_app(root)).get(f"/api/training/small/{long}").json()["steps"]["step"]
    assert len(steps) <= 1500
    assert steps[-1] == 4999


def test_a_comparison_shows_what_was_different_and_what_was_better(
    trained: tuple[Path, str, str], make_app: Callable[..., Starlette]
) -> None:
    root, slow, fast = trained
    client = log_in(make_app(root))
    asked = [("run", f"small/{slow}"), ("run", f"small/{fast}"), ("run", "small/nobody")]
    page = client.get("/training/compare", params=asked).text
    different, _, same = page.partition("settings are the same")
    assert "train.learning_rate" in different
    assert "train.epochs" not in different
    assert "train.epochs" in same
    assert "small/nobody" in page


def test_curves_are_drawn_smoothed_and_told_as_a_table(
    trained: tuple[Path, str, str], browser_page: Callable[..., Opened]
) -> None:
    root, _, _ = trained
    opened = browser_page(root)
    page = opened.page
    opened.goto("/training")
    chart = page.locator('[data-chart="loss"]')
    expect(chart.locator(".uplot canvas")).to_be_visible()
    # two curves in two colours have left marks on the canvas
    num_marks = chart.locator("canvas").evaluate(
        "canvas => new Set(new Uint32Array(canvas.getContext('2d')"
        ".getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size"
    )
    assert num_marks > 10
    chart.get_by_text("Values as a table").click()
    expect(chart.locator("tbody tr")).to_have_count(30)
    page.get_by_label("Smoothing").fill("0.9")
    expect(page.locator("[data-smoothing-value]")).to_have_text("0.9")
    page.get_by_label("Log scale").check()
    expect(chart.locator(".uplot canvas")).to_be_visible()


def test_a_training_that_runs_is_shown_live(
    root: Path, browser_page: Callable[..., Opened]
) -> None:
    write_training(root, learning_rate=0.02)
    update(str(root), SampleDatabase(str(root / "state")))
    log = RunLog(str(root), recipe="small.yaml", name="small", executor="local")
    log.event("step_started", "train", {"num_tasks": 1, "num_resumed": 0})
    log.event("progress", "train", {"done": 20, "total": 50, "message": "epoch 2/5, loss 1.2"})
    running = write_training(root, epochs=2, is_committed=False)
    opened = browser_page(root)
    page = opened.page
    opened.goto("/training")
    row = page.locator("tr[data-row]", has_text=running[:8])
    expect(row).to_contain_text("running")
    expect(row).to_contain_text("20 of 50 steps")
    opened.goto(f"/training/small/{running}")
    page.locator('[data-chart="loss"]').get_by_text("Values as a table").click()
    expect(page.locator('[data-chart="loss"] tbody tr')).to_have_count(20)
    expect(page.locator('[data-chart="mfu"]')).to_be_hidden()  # there is no GPU
    metrics = root / "steps" / "small" / "train" / running / "metrics.jsonl"
    with metrics.open("a") as file:
        file.write(json.dumps({"step": 20, "epoch": 2, "loss": 0.5, "samples": 336}) + "\n")
    expect(page.locator('[data-chart="loss"] tbody tr')).to_have_count(21)
    log.finish("failed")
    opened.goto(f"/training/small/{running}")
    expect(page.get_by_text("no run is at it")).to_be_visible()


def test_the_page_of_a_run_draws_what_it_trains_at_this_moment(
    root: Path, make_app: Callable[..., Starlette]
) -> None:
    log = RunLog(str(root), recipe="small.yaml", name="small", executor="local")
    log.event("step_started", "train", {"num_tasks": 1, "num_resumed": 0})
    running = write_training(root, epochs=1, is_committed=False)
    client = log_in(make_app(root))
    assert f"small/{running}" in client.get(f"/runs/{log.run_id}").text.partition("data-curves")[2]
    log.event("step_finished", "train", {"counts": {"found": 0}, "seconds": 1.0})
    assert "data-curves" not in client.get(f"/runs/{log.run_id}").text
    log.finish("done")


@pytest.mark.parametrize("viewport", [(1280, 900), (390, 844)])
def test_training_fits_the_screen(
    trained: tuple[Path, str, str],
    browser_page: Callable[..., Opened],
    viewport: tuple[int, int],
) -> None:
    root, slow, fast = trained
    opened = browser_page(root, viewport=viewport, dark=True)
    compared = f"/training/compare?run=small/{slow}&run=small/{fast}"
    for path in ("/training", f"/training/small/{slow}", compared):
        opened.goto(path)
        expect(opened.page.locator("[data-curves][data-drawn]")).to_be_attached()
        assert opened.page.locator("body").evaluate("body => body.scrollWidth <= innerWidth"), path
