"""A search over a real recipe on a real Ray: trials, ASHA, MLflow, and what a second time costs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from corpus import TINY_MODEL, write_corpus, write_recipe

from mmcore.core.manifest import load_manifest
from mmcore.core.runner import Event, ignore_event
from mmcore.errors import ConfigError
from mmcore.executors.local import LocalExecutor
from mmcore.executors.ray import RayExecutor
from mmcore.recipe.build import load_recipe
from mmcore.recipe.execute import plan_recipe, run_recipe
from mmcore.recipe.tune import Search, search
from mmcore.telemetry.study_tracker import parts_of_study

pytestmark = pytest.mark.timeout(600)
TUNE = """
tune:
  metric: val_loss
  mode: min
  reduction_factor: 2
  train.learning_rate: {choice: [1.0e-9, 1.0e-7, 1.0e-8, 0.01]}
"""


class Study:
    """A corpus, its recipe, and the searches that were made of it; one trial at a time."""

    def __init__(self, directory: Path) -> None:
        corpus = write_corpus(directory / "corpus")
        more = TINY_MODEL.replace("epochs: 1", "epochs: 3") + TUNE
        self.recipe = str(write_recipe(directory / "tiny.yaml", corpus, more=more))
        self.root = directory / "root"
        self.events: list[Event] = []
        self.executors: list[RayExecutor] = []
        run_recipe(
            load_recipe(self.recipe),
            root=str(self.root),
            executor=LocalExecutor(),
            listener=ignore_event,
            until=("shard", "tokenizer"),
        )

    def run(self, num_trials: int) -> Search:
        self.events.clear()
        self.executors.clear()
        return search(
            self.recipe,
            num_trials=num_trials,
            root=str(self.root),
            make_executor=self.make_executor,
            listener=self.events.append,
        )

    def make_executor(self) -> RayExecutor:
        self.executors.append(RayExecutor(num_workers=1))
        return self.executors[-1]

    def ended(self) -> list[int]:
        said = [str(e.facts["message"]) for e in self.events if e.kind == "progress"]
        return [int(one.split()[1]) for one in said if one.startswith("trial ")]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("tune"))


@pytest.fixture(scope="module")
def found(study: Study) -> Search:
    return study.run(2)


def test_the_best_trial_is_a_training_that_mm_run_finds_done(study: Study, found: Search) -> None:
    best = found.best
    assert best is not None
    done = [one for one in found.trials if one.status == "done"]
    assert best.value == min(one.value for one in done if one.value is not None)
    plan = plan_recipe(load_recipe(study.recipe, overrides=best.overrides), root=str(study.root))
    will_run = {step.name for step in plan.steps if step.will_run}
    assert will_run == {"evaluate", "register"}


def test_a_trial_without_promise_is_stopped_early_and_said_to_be_so(
    study: Study, found: Search
) -> None:
    stopped = [one for one in found.trials if one.status == "stopped"]
    assert stopped
    for one in found.trials:
        epochs = [report["epoch"] for report in one.history]
        assert epochs == ([1, 2, 3] if one.status == "done" else list(range(1, len(epochs) + 1)))
        assert len(epochs) < 3 or one.status == "done"
        manifest = load_manifest(str(study.root / "steps/tiny/train" / one.run_key[:16]))
        assert (manifest is None) == (one.status == "stopped")


def test_mlflow_has_every_trial_with_its_lineage(study: Study, found: Search) -> None:
    (file,) = (study.root / "search/tiny").glob("*/trial-0000.json")
    assert file.parent.name == found.study
    from mmcore.recipe.tune import _Study

    key = _Study(load_recipe(study.recipe), str(study.root)).key
    runs = {run.data.tags["mm.run_key"]: run for run in parts_of_study(str(study.root), key)}
    assert runs.keys() == {one.run_key for one in found.trials}
    for one in found.trials:
        run = runs[one.run_key]
        assert run.data.tags["mm.overrides"] == " ".join(one.overrides)
        assert run.data.tags["mm.trial_status"] == one.status
        assert run.data.tags["mm.dataset"] == found.dataset
        assert run.info.status == {"done": "FINISHED", "stopped": "KILLED"}[one.status]
        assert run.data.metrics["val_loss"] == pytest.approx(one.history[-1]["val_loss"])


def test_a_second_search_does_nothing_and_starts_nothing(study: Study, found: Search) -> None:
    again = study.run(2)
    assert (study.events, study.executors, again.num_tried) == ([], [], 0)
    assert again.trials == found.trials


@pytest.mark.slow
def test_more_trials_are_added_to_a_search_and_compared_with_those_of_before(
    study: Study, found: Search
) -> None:
    more = study.run(3)
    assert study.ended() == [2]
    assert more.num_tried == 1
    assert more.trials[:2] == found.trials


@pytest.mark.slow
def test_a_trial_whose_result_was_lost_is_tried_again_alone(study: Study, found: Search) -> None:
    record = study.root / "search/tiny" / found.study / "trial-0001.json"
    before = json.loads(record.read_text())
    record.unlink()
    if before["status"] == "done":  # as if it had been killed on its way
        shutil.rmtree(study.root / "steps/tiny/train" / before["run_key"][:16])
    study.run(2)
    assert study.ended() == [1]
    assert json.loads(record.read_text())["run_key"] == before["run_key"]


def test_a_metric_that_nobody_reports_is_said_before_anything_starts(study: Study) -> None:
    with pytest.raises(ConfigError, match=r"val_acuracy is not reported. Did you mean 'val_acc"):
        search(
            study.recipe,
            num_trials=1,
            root=str(study.root),
            make_executor=study.make_executor,
            listener=ignore_event,
            overrides=["tune.metric=val_acuracy"],
        )


def test_a_recipe_that_declares_no_range_is_refused(
    tmp_path: Path, recipe: Callable[..., str]
) -> None:
    with pytest.raises(ConfigError, match=r"declares nothing to search. Add for example"):
        search(
            recipe(more=TINY_MODEL),
            num_trials=1,
            root=str(tmp_path),
            make_executor=lambda: RayExecutor(num_workers=1),
            listener=ignore_event,
        )
