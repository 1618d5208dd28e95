"""What cannot be had is said before anything starts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from command import run_mm
from corpus import TINY_MODEL, write_corpus

from mmcore.core.runner import ignore_event
from mmcore.errors import ConfigError, StepError
from mmcore.executors.local import LocalExecutor
from mmcore.recipe.build import load_recipe
from mmcore.recipe.execute import plan_recipe, run_recipe
from mmcore.recipe.feasible import assumed_shapes, check_feasible
from mmcore.train.counting import count

NOWHERE = "/nowhere/ds/birds/0123456789abcdef"
MIX = f"loader.mix={{own: {{}}, birds: {{url: {NOWHERE}}}}}"


@pytest.fixture
def file(recipe: Callable[..., str], tmp_path: Path) -> str:
    write_corpus(tmp_path / "corpus")
    return recipe(more=TINY_MODEL)


def check(file: str, root: Path, *overrides: str, memory: int = 2**40) -> None:
    loaded = load_recipe(file, overrides=overrides)
    check_feasible(loaded, plan_recipe(loaded, root=str(root)), str(root), lambda: memory)


def counted(file: str, overrides: Sequence[str] = ()) -> dict[str, int]:
    loaded = load_recipe(file, overrides=overrides)
    work: Any = loaded.graph.step("train").work
    config = {
        "model": work.model,
        "train": work.train,
        "assumed": assumed_shapes(loaded),
        "num_ranks": work.num_ranks,
        "packs": work.loader.pack_tokens > 0,
    }
    return count(config)


def test_more_memory_than_there_is_is_refused_before_any_step_runs(
    file: str, tmp_path: Path
) -> None:
    class Small(LocalExecutor):
        def memory_bytes(self) -> int:
            return 100_000

    root = tmp_path / "root"
    with pytest.raises(ConfigError, match=r"weights with .* to write checkpoints .* are free"):
        run_recipe(load_recipe(file), root=str(root), executor=Small(), listener=ignore_event)
    assert not (root / "steps").exists()
    check(file, root)


def test_a_dataset_to_mix_that_is_not_there_is_refused_by_the_plan(
    file: str, tmp_path: Path
) -> None:
    said = run_mm("plan", file, "--root", str(tmp_path / "root"), "--set", MIX)
    assert said.code == 2
    assert said.err.startswith(f"mm: loader.mix.birds: there is no dataset version at {NOWHERE}")
    assert said.err.count("\n") == 1


def test_a_model_to_start_from_that_is_not_there_is_refused_by_the_plan(
    file: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"there is no such training at"):
        check(file, tmp_path / "root", "train.start_from=0123456789abcdef")


def test_nothing_is_asked_of_a_plan_that_does_not_train(file: str, tmp_path: Path) -> None:
    loaded = load_recipe(file, overrides=[MIX])
    plan = plan_recipe(loaded, root=str(tmp_path / "root"), until=["shard"])
    check_feasible(loaded, plan, str(tmp_path / "root"), lambda: 0)


def test_what_the_dataset_lacks_is_refused_once_it_is_there(file: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    run_recipe(
        load_recipe(file),
        root=str(root),
        executor=LocalExecutor(),
        listener=ignore_event,
        until=["shard", "tokenizer"],
    )
    with pytest.raises(ConfigError, match=r"no sample of .* has the score 'sharpnes'. It has audi"):
        check(file, root, "loader.curriculum={score: sharpnes, epochs: 2}")
    with pytest.raises(ConfigError, match=r"=4000 is more than the 16 samples .* Use 16 or less"):
        check(file, root, "train.global_batch_size=4000")
    with pytest.raises(StepError, match=r"no sample of the dataset has a label"):
        check(file, root, "loader.label_field=lable")


def test_weights_are_counted_without_memory_for_them(file: str) -> None:
    layers = "model.text.options.num_hidden_layers"
    one, three = counted(file, [f"{layers}=1"]), counted(file, [f"{layers}=3"])
    per_layer = (three["num_trained"] - one["num_trained"]) // 2
    # of each layer: four products of attention, two of the network, two norms
    assert per_layer == 4 * (8 * 8 + 8) + (8 * 16 + 16) + (16 * 8 + 8) + 2 * 2 * 8
    wide = [f"model.text.options.{name}=200000" for name in ("hidden_size", "intermediate_size")]
    assert counted(file, wide)["num_trained"] > 2 * 10**11  # a terabyte
    frozen = counted(file, ["train.freeze=[encoders.text.*]"])
    assert frozen["num_frozen"] > 0
    assert sum(frozen.values()) == sum(one.values())
    lora = counted(file, ["train.lora={targets: [encoders.text.*.query], rank: 2}"])
    assert lora["num_trained"] + lora["num_frozen"] == one["num_trained"] + 2 * 2 * 8


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.freeze=[encoders.txt.*]", "no weight fits 'encoders.txt"),
        ("train.lora={targets: [encoders.text.*.qery]}", "no linear layer fits"),
        ("model.text.options.hidden_size=7", "not a multiple of the number of attention heads"),
        ("model.text.options.hidden_siez=8", "Did you mean 'hidden_size'"),
        ("model.text.architecture=bertt", "no model type 'bertt'"),
        ("model.text.path=/nowhere", "there is no config.json"),
        ("loader.pack_tokens=64;model.text={architecture: electra}", "texts in one row apart"),
        ("loader.max_tokens=600", "the text encoder takes 512"),
    ],
)
def test_a_model_that_cannot_be_made_is_refused(file: str, override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        counted(file, override.split(";"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["train.early_stopping={metric: val_acuracy, mode: max}"],
            "val_acuracy is not reported. Use one of val_loss, val_accuracy, val_accuracy_image",
        ),
        (
            ["train.micro_batch_size=2", "loader.pack_tokens=64"],
            "a packed row has texts of several turns",
        ),
    ],
)
def test_what_contradicts_is_refused_as_the_recipe_is_read(
    file: str, overrides: Sequence[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        load_recipe(file, overrides=overrides)
