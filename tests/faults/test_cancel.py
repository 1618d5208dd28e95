"""A cancelled run is gone: no process, no half file, no lease; and the next one goes on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import processes
import pytest
from command import run_mm
from ray_head import ray_head, what_is_left
from slow_recipe import Started, Starter, write_slow_recipe
from toy import hashes

from mmcore.core.lease import current_holder, lease_url
from mmcore.core.runs import load_run, read_events
from mmcore.storage import TEMPORARY_PREFIX

SILENCE_SECONDS = 30.0
"""From the request to cancel until nothing is left."""


def cancel(started: Started, *options: str) -> None:
    said = run_mm("cancel", started.run_id, "--root", str(started.root), *options)
    assert said.code == 0, said.err


def assert_that_nothing_is_left(started: Started) -> None:
    processes.wait_until(
        lambda: not started.its_processes(), seconds=SILENCE_SECONDS, what="no process is left"
    )
    assert not [path for path in started.root.rglob("*") if TEMPORARY_PREFIX in path.name]
    assert current_holder(lease_url(str(started.root), str(started.record()["name"]))) is None


def go_on(starter: Starter, recipe: Path, root: Path) -> dict[str, int]:
    """Run to the end; return how many tasks each step found done."""
    again = starter.run(recipe, root, "--workers", "1")
    assert again.finish() == 0, again.said()
    events = read_events(str(again.record()["url"]))
    return {e["step"]: e["num_resumed"] for e in events if e["kind"] == "step_started"}


@pytest.mark.parametrize(("executor", "workers"), [("local", "1"), ("local", "2"), ("ray", "2")])
def test_a_cancelled_run_leaves_nothing_and_the_next_run_goes_on_from_its_tasks(
    starter: Starter, tmp_path: Path, executor: str, workers: str
) -> None:
    recipe = write_slow_recipe(tmp_path)
    run = starter.run(recipe, tmp_path / "root", "--executor", executor, "--workers", workers)
    run.wait_for("task_finished", "clean")
    cancel(run, "--why", "the wrong corpus")
    assert run.finish() == 130
    assert_that_nothing_is_left(run)
    record = run.record()
    assert (record["status"], record["why"]) == ("cancelled", "the wrong corpus")
    assert "the wrong corpus. What is done is kept; run again to go on." in run.said()
    assert "Traceback" not in run.said()
    assert go_on(starter, recipe, run.root)["clean"] >= 1
    whole = starter.run(recipe, tmp_path / "whole", "--workers", "1")
    assert whole.finish() == 0
    assert hashes(run.root) == hashes(whole.root)


def test_sigterm_is_a_request_to_cancel(starter: Starter, tmp_path: Path) -> None:
    run = starter.run(write_slow_recipe(tmp_path), tmp_path / "root", "--workers", "2")
    run.wait_for("step_started", "clean")
    run.process.send_signal(signal.SIGTERM)
    assert run.finish() == 130
    assert_that_nothing_is_left(run)
    assert (run.record()["status"], run.record()["cancelled_by"]) == ("cancelled", "SIGTERM")


def test_a_run_that_cannot_be_interrupted_is_killed_and_leaves_nothing_all_the_same(
    starter: Starter, tmp_path: Path
) -> None:
    # one library call of minutes that lets no signal through, in the driver itself
    recipe = write_slow_recipe(tmp_path)
    text = recipe.read_text().replace("slow_stages.Slow, seconds: 0.2", "slow_stages.Deaf")
    recipe.write_text(text)
    run = starter.run(recipe, tmp_path / "root", "--workers", "1")
    run.wait_for("step_started", "clean")
    cancel(run)
    assert run.finish() == 130
    assert_that_nothing_is_left(run)
    assert run.record()["status"] == "cancelled"


def test_a_run_that_waits_for_another_can_be_cancelled_and_disturbs_nobody(
    starter: Starter, tmp_path: Path
) -> None:
    recipe = write_slow_recipe(tmp_path)
    first = starter.run(recipe, tmp_path / "root", "--workers", "1")
    first.wait_for("step_started", "clean")
    second = starter.run(recipe, tmp_path / "root", "--workers", "1")
    second.wait_for("waiting", "")
    assert f"waiting for run {first.run_id}" in second.said()
    cancel(second)
    assert second.finish() == 130
    assert second.record()["status"] == "cancelled"
    assert first.finish() == 0, first.said()


def test_a_cancelled_training_leaves_no_rank(
    starter: Starter, tmp_path: Path, training_recipe: Path
) -> None:
    run = starter.run(training_recipe, tmp_path / "root", "--workers", "2")
    run.wait_for("progress", "train", seconds=200)
    assert len(run.its_processes()) >= 3
    cancel(run)
    assert run.finish() == 130
    assert_that_nothing_is_left(run)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_on_a_ray_head_that_runs_share_a_cancelled_run_leaves_no_task_actor_or_resource(
    starter: Starter, tmp_path: Path, training_recipe: Path
) -> None:
    with ray_head(tmp_path, num_cpus=3) as environment:
        options = ("--executor", "ray", "--workers", "1")
        root = tmp_path / "root"
        other = starter.run(
            write_slow_recipe(tmp_path / "other", seconds=1.0), tmp_path / "other" / "root",
            *options, environment=environment,
        )  # fmt: skip
        training = starter.run(training_recipe, root, *options, environment=environment)
        training.wait_for("progress", "train", seconds=300)
        cancel(training)
        assert training.finish() == 130, training.said()
        assert training.record()["status"] == "cancelled"
        assert other.finish() == 0, other.said()
        processes.wait_until(
            # one actor of Ray's own serves all trainings of a cluster
            lambda: (
                what_is_left(environment) in ("[] [] []", "['_AutoscalingCoordinatorActor'] [] []")
            ),
            seconds=SILENCE_SECONDS,
            what="nothing of the run is left on the head",
        )


def test_what_has_ended_is_said_to_have_ended(starter: Starter, tmp_path: Path) -> None:
    recipe = write_slow_recipe(tmp_path, seconds=0.0)
    run = starter.run(recipe, tmp_path / "root", "--workers", "1")
    assert run.finish() == 0
    said = run_mm("cancel", run.run_id, "--root", str(run.root), "--json")
    assert (said.code, said.json()["status"]) == (4, "done")
    assert run_mm("cancel", "latest", "--root", str(run.root)).code == 1
    assert load_run(str(run.root), run.run_id)["status"] == "done"


def test_a_frozen_run_is_killed_by_the_one_who_cancels(starter: Starter, tmp_path: Path) -> None:
    run = starter.run(write_slow_recipe(tmp_path), tmp_path / "root", "--workers", "2")
    run.wait_for("step_started", "clean")
    run.process.send_signal(signal.SIGSTOP)
    with subprocess.Popen(
        [sys.executable, "-m", "mmcore", "cancel", run.run_id, "--root", str(run.root)],
        stderr=subprocess.PIPE, text=True, env=os.environ,
    ) as command:  # fmt: skip
        assert run.finish() == -signal.SIGKILL
        _, said = command.communicate()
    assert command.returncode == 0
    assert "killing process" in said
    processes.wait_until(lambda: not run.its_processes(), seconds=10, what="no process is left")
    assert load_run(str(run.root), run.run_id)["status"] == "cancelled"
