"""A search that is killed or cancelled leaves nothing at work and no half result, and goes on."""

import json
from pathlib import Path
from typing import Any

import processes
import pytest
from corpus import TINY_MODEL, write_corpus, write_recipe
from slow_recipe import Started, Starter

from mmcore.core.lease import current_holder, lease_url
from mmcore.core.runner import ignore_event
from mmcore.executors.local import LocalExecutor
from mmcore.recipe.build import load_recipe
from mmcore.recipe.execute import run_recipe
from mmcore.recipe.tune import _Study
from mmcore.sample import sha256_hex
from mmcore.storage import TEMPORARY_PREFIX
from mmcore.telemetry.study_tracker import parts_of_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
NUM_TRIALS = 3
TUNE = """
tune:
  metric: val_loss
  mode: min
  grace_epochs: 4
  train.learning_rate: {choice: [0.001, 0.002, 0.01]}
"""
SILENCE_SECONDS = 45.0


def write_study(directory: Path, root: Path) -> Path:
    """Write a recipe whose trials all train to their end, and make its dataset."""
    corpus = directory / "corpus"
    if not corpus.exists():
        write_corpus(corpus)
    more = TINY_MODEL.replace("epochs: 1", "epochs: 4") + TUNE
    recipe = write_recipe(directory / "tiny.yaml", corpus, more=more)
    run_recipe(
        load_recipe(str(recipe)),
        root=str(root),
        executor=LocalExecutor(),
        listener=ignore_event,
        until=("shard", "tokenizer"),
    )
    return recipe


def tune(starter: Starter, recipe: Path, root: Path) -> Started:
    options = ("--trials", str(NUM_TRIALS), "--workers", "1")
    return starter.run(recipe, root, *options, command=("mmcore", "tune"))


def records(root: Path) -> list[dict[str, Any]]:
    """What is known of trials, each a whole file."""
    files = sorted((root / "search").rglob("trial-*.json"))
    return [json.loads(file.read_text()) for file in files]


def wait_for_records(started: Started, number: int) -> None:
    def are_there() -> bool:
        assert started.process.poll() is None, started.said()
        return len(list((started.root / "search").rglob("trial-*.json"))) >= number

    processes.wait_until(are_there, seconds=600, what=f"{number} trials have ended")


def assert_that_nothing_is_at_work(started: Started) -> None:
    processes.wait_until(
        lambda: not started.its_processes(), seconds=SILENCE_SECONDS, what="no process is left"
    )
    assert all(one["status"] == "done" for one in records(started.root))


def models(root: Path) -> dict[str, str]:
    """SHA-256 of the weights of each committed training."""
    found = (root / "steps" / "tiny" / "train").glob("*/manifest.json")
    return {
        one.parent.name: sha256_hex((one.parent / "model.safetensors").read_bytes())
        for one in found
    }


def test_a_search_that_is_killed_and_then_cancelled_comes_to_what_one_that_was_not_does(
    starter: Starter, tmp_path: Path
) -> None:
    whole, root = tmp_path / "whole", tmp_path / "root"
    write_study(tmp_path, whole)
    recipe = write_study(tmp_path, root)
    undisturbed = tune(starter, recipe, whole)
    assert undisturbed.finish(seconds=600) == 0, undisturbed.said()

    killed = tune(starter, recipe, root)
    wait_for_records(killed, 1)
    killed.process.kill()
    killed.process.wait()
    assert_that_nothing_is_at_work(killed)
    first = records(root)

    cancelled = tune(starter, recipe, root)
    wait_for_records(cancelled, len(first) + 1)
    cancelled.process.terminate()
    assert cancelled.finish(seconds=60) == 130, cancelled.said()
    assert "Traceback" not in cancelled.said()
    assert_that_nothing_is_at_work(cancelled)
    assert current_holder(lease_url(str(root), "tiny")) is None

    last = tune(starter, recipe, root)
    assert last.finish(seconds=600) == 0, last.said()
    assert f"{NUM_TRIALS - len(first) - 1} of {NUM_TRIALS} trials were tried now" in last.said()
    assert records(root) == records(whole)
    assert [one["number"] for one in records(root)] == list(range(NUM_TRIALS))
    assert models(root) == models(whole)
    assert len(models(root)) == NUM_TRIALS
    assert not [path for path in root.rglob("*") if TEMPORARY_PREFIX in path.name]
    key = _Study(load_recipe(str(recipe)), str(root)).key
    runs = parts_of_study(str(root), key)
    assert {run.data.tags["mm.run_key"] for run in runs} == {one["run_key"] for one in first} | {
        one["run_key"] for one in records(root)
    }
    assert [run.info.status for run in runs] == ["FINISHED"] * NUM_TRIALS
