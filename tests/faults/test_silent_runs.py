"""Runs that die, freeze or meet: each dataset has one run at a time, and nothing is done twice."""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import processes
import pytest
from command import run_mm
from slow_recipe import Started, Starter, write_slow_recipe
from toy import hashes

from mmcore.core.lease import current_holder, lease_url
from mmcore.core.runs import effective_status, list_runs, load_run, read_events

DIED_WITHIN_SECONDS = 30.0
TRIALS = int(os.environ.get("MM_FAULT_TRIALS", "1"))


def steps_made(root: Path) -> Counter[str]:
    """How often each step was committed, over all runs."""
    return Counter(
        event["step"]
        for run in list_runs(str(root))
        for event in read_events(run["url"])
        if event["kind"] == "step_finished"
    )


def status(run: Started, run_id: str) -> str:
    return effective_status(load_run(str(run.root), run_id))


@pytest.fixture
def whole(starter: Starter, tmp_path: Path) -> dict[str, str]:
    """What a run makes of the recipe that nobody disturbs."""
    recipe = write_slow_recipe(tmp_path)
    run = starter.run(recipe, tmp_path / "whole", "--workers", "1")
    assert run.finish() == 0, run.said()
    return hashes(tmp_path / "whole")


def test_a_second_run_waits_then_finds_everything_done(
    starter: Starter, tmp_path: Path, whole: dict[str, str]
) -> None:
    recipe, root = tmp_path / "slow.yaml", tmp_path / "root"
    first = starter.run(recipe, root, "--workers", "1")
    first.wait_for("step_started", "ingest")
    second = starter.run(recipe, root, "--workers", "1")
    second.wait_for("waiting", "")
    at_once = run_mm("run", str(recipe), "--root", str(root), "--no-wait")
    assert at_once.code == 1
    assert f"{first.run_id} (host " in at_once.err
    assert f"stop it: mm cancel {first.run_id}" in at_once.err
    assert first.finish() == 0, first.said()
    assert second.finish() == 4, second.said()
    assert second.record()["status"] == "nothing_to_do"
    assert f"waiting for run {first.run_id} (host " in second.said()
    assert set(steps_made(root).values()) == {1}
    assert hashes(root) == whole


def test_a_killed_run_is_shown_as_died_and_its_lease_passes_on(
    starter: Starter, tmp_path: Path, whole: dict[str, str]
) -> None:
    for seed in range(TRIALS):
        dice = random.Random(seed)
        root = tmp_path / f"root-{seed}"
        first = starter.run(tmp_path / "slow.yaml", root, "--workers", str(dice.choice([1, 2])))
        first.wait_for("task_finished", dice.choice(["ingest", "clean"]))
        run_id = first.run_id
        time.sleep(dice.uniform(0, 2))
        first.process.kill()
        # not waited for: a zombie until the end of the test, and dead all the same
        processes.wait_until(
            lambda run=first, run_id=run_id: status(run, run_id) == "died",  # type: ignore[misc]
            seconds=DIED_WITHIN_SECONDS,
            what="the run is shown as died",
        )
        processes.wait_until(
            lambda run=first: not run.its_processes(),  # type: ignore[misc]
            seconds=10,
            what="no process outlives it",
        )
        second = starter.run(tmp_path / "slow.yaml", root, "--workers", "1")
        assert second.finish() == 0, second.said()
        assert "waiting for" not in second.said()
        assert status(second, run_id) == "died"
        assert set(steps_made(root).values()) == {1}, f"seed {seed}"
        assert hashes(root) == whole, f"seed {seed}"
        assert current_holder(lease_url(str(root), "slow")) is None


@pytest.mark.slow
def test_a_run_that_was_frozen_loses_its_place_and_ends_when_it_wakes_up(
    starter: Starter, tmp_path: Path, whole: dict[str, str]
) -> None:
    for seed in range(TRIALS):
        dice = random.Random(seed)
        root = tmp_path / f"root-{seed}"
        # workers that go on while their driver is frozen are the harder case
        first = starter.run(tmp_path / "slow.yaml", root, "--workers", str(dice.choice([2, 1])))
        first.wait_for("task_finished", "clean")
        first.process.send_signal(signal.SIGSTOP)
        second = starter.run(tmp_path / "slow.yaml", root, "--workers", "1")
        second.wait_for("waiting", "")
        second.wait_for("planned", "")
        if dice.random() < 0.5:
            assert second.finish() == 0, second.said()
            first.process.send_signal(signal.SIGCONT)
        else:
            first.process.send_signal(signal.SIGCONT)
            assert second.finish() == 0, second.said()
        assert first.finish() == 1
        assert "another one took over" in first.said()
        record = first.record()
        assert record["status"] == "failed"
        assert "lost the lease" in str(record["error"])
        processes.wait_until(
            lambda run=first: not run.its_processes(),  # type: ignore[misc]
            seconds=20,
            what="no process of the stale run is left",
        )
        made = steps_made(root)
        assert set(made.values()) == {1}, f"seed {seed}: {made}"
        assert hashes(root) == whole, f"seed {seed}"


def test_runs_of_two_datasets_do_not_wait_for_each_other(starter: Starter, tmp_path: Path) -> None:
    one = write_slow_recipe(tmp_path / "one", name="one", num_texts=6)
    two = write_slow_recipe(tmp_path / "two", name="two", num_texts=6)
    runs = [starter.run(recipe, tmp_path / "root", "--workers", "1") for recipe in (one, two)]
    for run in runs:
        assert run.finish() == 0, run.said()
        assert "waiting" not in run.said()
