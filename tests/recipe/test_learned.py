"""What is told of a model that has learned from several datasets."""

from pathlib import Path
from typing import Any

import pytest
from command import Said, run_mm
from corpus import TINY_MODEL, write_corpus, write_recipe

from mmcore.core.explain import explain
from mmcore.core.lineage import find_dataset
from mmcore.core.runner import ignore_event
from mmcore.core.step import Inputs
from mmcore.executors.local import LocalExecutor
from mmcore.recipe.build import load_recipe
from mmcore.recipe.execute import plan_recipe, run_recipe
from mmcore.recipe.feasible import committed_inputs


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """Two datasets of one root, and a model of the one that has mixed the other in."""
    directory = tmp_path_factory.mktemp("mixed")
    root = str(directory / "root")
    corpus = write_corpus(directory / "corpus")
    other = write_recipe(directory / "other.yaml", corpus)
    other.write_text(other.read_text().replace("name: tiny", "name: other"))
    executor, listener = LocalExecutor(), ignore_event
    run_recipe(load_recipe(str(other)), root=root, executor=executor, listener=listener)
    version = find_dataset(root, "other")
    parts = f"own: {{weight: 1}}, more: {{url: {version.artifact.url}, weight: 3}}"
    more = TINY_MODEL + f"loader: {{mix: {{{parts}}}}}\n"
    file = str(write_recipe(directory / "tiny.yaml", corpus, more=more))
    loaded = load_recipe(file)
    run_recipe(loaded, root=root, executor=executor, listener=listener, until=["train"])
    return root, file, str(version)


def mm(root: str, *arguments: str) -> Said:
    said = run_mm(*arguments, "--root", root)
    assert said.code == 0, said.err
    return said


def fingerprint(root: str, file: str) -> str:
    plan = plan_recipe(load_recipe(file), root=root, until=["train"])
    assert not plan.to_run
    return str(plan.steps[-1].fingerprint)


def test_a_model_names_every_dataset_version_it_learned_from(mixed: tuple[str, str, str]) -> None:
    root, file, other = mixed
    own = str(find_dataset(root, "tiny"))
    train = fingerprint(root, file)
    told = mm(root, "explain", "--model", train[:16], "--json").json()
    assert told["train_fingerprint"] == train
    found = [(one["dataset"], one["in_mix"], one["weight"]) for one in told["datasets"]]
    assert found == [(own, None, 1.0), (other, "more", 3.0)]
    said = mm(root, "explain", "--model", train[:16]).out
    assert f"learned  {other} as more, weight 3: 16 samples" in said


def test_a_step_names_its_samples_in_the_order_in_which_they_were_read(
    mixed: tuple[str, str, str],
) -> None:
    root, file, other = mixed
    loaded = load_recipe(file)
    work: Any = loaded.graph.step("train").work
    plan = plan_recipe(loaded, root=root, until=["train"])
    inputs = committed_inputs(loaded, plan)
    assert isinstance(inputs, Inputs)
    opened = work.loader.open(inputs)
    batches = list(opened.epoch("train", seed=3, epoch=0, global_batch_size=4, rank=0, num_ranks=1))
    opened.close()
    train = fingerprint(root, file)
    names: set[str] = set()
    for step in (0, len(batches) - 1):
        told = mm(root, "explain", "--model", train, "--step", str(step), "--json").json()
        read = [
            f"more/{one['key']}" if one["dataset"] == other else one["key"]
            for one in told["samples"]
        ]
        assert read == list(batches[step].keys)
        names |= {one["dataset"] for one in told["samples"]}
    assert other in names
    said = run_mm("explain", "--model", train, "--step", "999", "--root", root)
    assert (said.code, "from 0 on" in said.err) == (2, True)


def test_a_sample_and_its_forgetting_name_the_model_that_mixed_it_in(
    mixed: tuple[str, str, str],
) -> None:
    root, file, other = mixed
    train = fingerprint(root, file)
    version = find_dataset(root, "other")
    learned, judged = _keys(version.artifact.url)
    (model,) = explain(root, version, learned)["models"]  # type: ignore[misc]
    assert model["train_fingerprint"] == train  # type: ignore[call-overload, index]
    assert model["dataset"] == other  # type: ignore[call-overload, index]
    assert model["role"] == "learned from it"  # type: ignore[call-overload, index]
    # validation and test are of the recipe's own dataset alone
    assert explain(root, version, judged)["models"] == []
    asked = mm(
        root, "forget", learned, "--dataset", "other", "--why", "a test", "--dry-run", "--json"
    ).json()
    assert [one["train_fingerprint"] for one in asked["models"]] == [train]


def _keys(url: str) -> tuple[str, str]:
    """A sample of the training split, and one that is not."""
    from mmcore.core.tables import read_table

    rows = read_table(f"{url}/manifest.parquet", ["key", "split"]).to_pylist()
    learned = next(row["key"] for row in rows if row["split"] == "train")
    return learned, next(row["key"] for row in rows if row["split"] == "test")


def test_explain_says_what_it_can_be_asked(tmp_path: Path) -> None:
    said = run_mm("explain", "--root", str(tmp_path))
    assert said.code == 2
    assert "a SAMPLE, or --model NAME/VERSION" in said.err
