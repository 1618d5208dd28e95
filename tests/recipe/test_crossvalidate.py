"""Folds of a real recipe: trainings, evaluations, MLflow, and what a second time costs."""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pyarrow.parquet as pq
import pytest
from corpus import TINY_MODEL, write_corpus, write_recipe

from mmcore.core.manifest import load_manifest
from mmcore.core.runner import Event, ignore_event
from mmcore.errors import ConfigError
from mmcore.executors.local import LocalExecutor
from mmcore.recipe.crossvalidate import CrossValidation, crossvalidate
from mmcore.telemetry.study_tracker import parts_of_study

NUM_FOLDS = 2


class Study:
    """A corpus, its recipe, and the cross-validations that were made of it."""

    def __init__(self, directory: Path) -> None:
        corpus = write_corpus(directory / "corpus")
        self.recipe = str(write_recipe(directory / "tiny.yaml", corpus, more=TINY_MODEL))
        self.root = directory / "root"
        self.events: list[Event] = []

    def run(self, num_folds: int = NUM_FOLDS, *overrides: str) -> CrossValidation:
        self.events.clear()
        return crossvalidate(
            self.recipe,
            num_folds=num_folds,
            root=str(self.root),
            make_executor=LocalExecutor,
            listener=self.events.append,
            overrides=overrides,
        )

    def trained(self) -> list[str]:
        return [e.step for e in self.events if e.kind == "step_started" and e.step == "train"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("folds"))


@pytest.fixture(scope="module")
def found(study: Study) -> CrossValidation:
    return study.run()


def test_every_sample_that_is_learned_from_is_judged_once_and_none_of_the_test_split(
    study: Study, found: CrossValidation
) -> None:
    (table,) = (study.root / "ds/tiny").glob("*/manifest.parquet")
    rows = pq.read_table(table).to_pylist()
    wanted = {row["key"] for row in rows if row["split"] in ("train", "val")}
    judged = []
    for file in (study.root / "steps/tiny/evaluate").glob("*/predictions.parquet"):
        judged += pq.read_table(file).column("key").to_pylist()
    assert sorted(judged) == sorted(wanted)
    assert sum(one.num_samples for one in found.folds) == len(wanted)


def test_the_spread_is_that_of_the_folds(found: CrossValidation) -> None:
    assert len(found.folds) == NUM_FOLDS
    accuracies = [one.scores["accuracy"] for one in found.folds]
    spread = found.spreads["accuracy"]
    assert spread.mean == pytest.approx(fmean(accuracies), abs=1e-6)
    assert (spread.low, spread.high) == (min(accuracies), max(accuracies))
    half = abs(accuracies[0] - accuracies[1]) / 2
    assert spread.deviation == pytest.approx(half * 2**0.5, abs=1e-6)
    assert "accuracy_by_modality.image" in found.spreads
    assert "num_samples" not in found.spreads


def test_each_fold_is_a_training_of_its_own_fingerprint(
    study: Study, found: CrossValidation
) -> None:
    assert len({one.run_key for one in found.folds}) == NUM_FOLDS
    for one in found.folds:
        manifest = load_manifest(str(study.root / "steps/tiny/train" / one.run_key[:16]))
        assert manifest is not None
        assert manifest.fingerprint == one.run_key


def test_mlflow_has_the_folds_below_one_study_with_the_dataset(
    study: Study, found: CrossValidation
) -> None:
    from mmcore.core.step import fingerprint_of

    key = fingerprint_of({"crossvalidation": [one.run_key for one in found.folds]})
    parts = parts_of_study(str(study.root), key)
    assert {run.data.tags["mm.run_key"] for run in parts} == {one.run_key for one in found.folds}
    assert {run.data.tags["mm.dataset"] for run in parts} == {found.dataset}
    assert {run.data.tags["mm.fold"] for run in parts} == {"1 of 2", "2 of 2"}
    (first,) = [run for run in parts if run.data.tags["mm.fold"] == "1 of 2"]
    assert first.data.metrics["fold.accuracy"] == found.folds[0].scores["accuracy"]
    assert "val_loss" in first.data.metrics


def test_a_second_time_does_nothing_and_says_the_same(study: Study, found: CrossValidation) -> None:
    again = study.run()
    assert study.events == []
    assert again.num_trained == 0
    assert again.folds == found.folds
    assert again.spreads == found.spreads


def test_folds_that_are_missing_are_made_and_the_others_kept(
    study: Study, found: CrossValidation
) -> None:
    lost = study.root / "steps/tiny/evaluate"
    manifests = sorted(lost.glob("*/manifest.json"))
    manifests[0].unlink()
    again = study.run()
    assert study.trained() == []
    assert again.num_trained == 1
    assert again.folds == found.folds


def test_a_recipe_without_a_model_and_a_single_fold_are_refused(
    study: Study, tmp_path: Path, recipe: Callable[..., str]
) -> None:
    with pytest.raises(ConfigError, match=r"--folds 1. Use 2 or more"):
        study.run(1)
    with pytest.raises(ConfigError, match="ends with the dataset"):
        crossvalidate(
            recipe(),
            num_folds=2,
            root=str(tmp_path),
            make_executor=LocalExecutor,
            listener=ignore_event,
        )
