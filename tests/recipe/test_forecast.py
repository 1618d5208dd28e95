"""The forecast of a recipe, before and after its dataset is there."""

from collections.abc import Callable
from pathlib import Path

import pytest
from command import run_mm
from corpus import TINY_MODEL, write_corpus

from mmcore.core.runner import ignore_event
from mmcore.errors import ConfigError
from mmcore.executors.local import LocalExecutor
from mmcore.recipe.build import load_recipe
from mmcore.recipe.execute import run_recipe
from mmcore.recipe.forecast import forecast


@pytest.fixture
def file(recipe: Callable[..., str], tmp_path: Path) -> str:
    write_corpus(tmp_path / "corpus")
    return recipe(more=TINY_MODEL)


def test_without_a_dataset_batches_are_made_up_and_every_case_is_worked_out(
    file: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    said = run_mm("forecast", file, "--root", str(root), "--ranks", "1,2,3", "--json")
    assert said.code == 0, said.err
    found = said.json()
    assert not found["is_real"]
    assert "the dataset is not there" in found["notes"][0]
    assert found["num_trained"] > 1000
    cases = {(c["num_ranks"], c["zero_stage"], c["offload"]): c for c in found["cases"]}
    assert len(cases) == 3 * (1 + 2 + 2 + 3)
    assert cases[1, 0, "none"]["fits"] is True
    assert cases[3, 0, "none"]["fits"] is None  # four samples are not divided by three ranks
    assert cases[2, 3, "none"]["weights"] < cases[2, 2, "none"]["weights"]
    assert cases[2, 2, "none"]["gradients"] < cases[2, 1, "none"]["gradients"]
    assert cases[2, 1, "none"]["optimizer"] < cases[1, 1, "none"]["optimizer"]
    assert cases[2, 1, "none"]["activations"] * 2 == pytest.approx(
        cases[1, 1, "none"]["activations"], abs=2
    )
    for one in cases.values():
        parts = ("weights", "gradients", "optimizer", "bucket", "activations")
        assert one["total"] == sum(one[part] for part in parts)
        is_offloaded = one["offload"] != "none"
        assert (one["on_device"] < one["total"]) == is_offloaded
    assert found["rehearsed"]["num_steps"] == 0
    assert found["rehearsed"]["samples_per_second"] > 0
    assert not (root / "steps").exists()


def test_with_a_dataset_its_batches_are_taken_and_the_training_is_timed(
    file: str, tmp_path: Path
) -> None:
    root = str(tmp_path / "root")
    run_recipe(
        load_recipe(file),
        root=root,
        executor=LocalExecutor(),
        listener=ignore_event,
        until=("shard", "tokenizer"),
    )
    found = forecast(
        file, ranks=[1], root=root, executor=LocalExecutor(), overrides=["train.epochs=7"]
    )
    assert found.is_real
    assert found.rehearsed is not None
    assert found.rehearsed.num_steps % 7 == 0
    assert found.rehearsed.num_steps > 7
    seconds = found.rehearsed.step_seconds + found.rehearsed.wait_seconds
    assert found.rehearsed.training_seconds == pytest.approx(found.rehearsed.num_steps * seconds)
    assert not (tmp_path / "root/steps/tiny/train").exists()


def test_numbers_of_ranks_that_are_none_are_refused(file: str, tmp_path: Path) -> None:
    for wrong in ("0,1", "two", ""):
        said = run_mm("forecast", file, "--root", str(tmp_path), "--ranks", wrong)
        assert said.code == 2
        assert "use numbers from 1 on with commas" in said.err


def test_a_recipe_without_a_model_has_nothing_to_forecast(
    recipe: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="ends with the dataset"):
        forecast(recipe(), ranks=[1], root=str(tmp_path), executor=LocalExecutor())
