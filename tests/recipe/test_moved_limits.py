"""Other limits for a dataset that grew: asked about, and applied, without decoding what is known."""

from pathlib import Path
from typing import Any

import pytest
from corpus import NUM_FOUND, write_corpus, write_recipe, write_sample
from moving_limits import spoil

from mmcore.core.lineage import find_dataset, increments
from mmcore.core.runner import Run
from mmcore.core.step import Artifact, Inputs
from mmcore.errors import ConfigError
from mmcore.executors.local import LocalExecutor
from mmcore.recipe.build import load_recipe
from mmcore.recipe.whatif import ask

SETTING = "clean.min_side.min_side=25"
NUM_NEW = 4


def run(recipe: Path, root: Path, *overrides: str, targets: tuple[str, ...] = ()) -> Artifact:
    graph = load_recipe(str(recipe), overrides=overrides).graph
    return Run(graph, root=str(root), executor=LocalExecutor()).run(targets)["clean"].artifact


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 27 samples, and four large ones on top of it."""
    directory = tmp_path_factory.mktemp("grown")
    corpus = write_corpus(directory / "corpus")
    recipe = write_recipe(directory / "tiny.yaml", corpus)
    run(recipe, directory / "root")
    for i in range(NUM_NEW):
        write_sample(corpus / "blue" / f"large{i}", 300 + i, side=40)
    run(recipe, directory / "root")
    return directory


def test_every_increment_is_asked_about(grown: Path) -> None:
    answer = ask(str(grown / "tiny.yaml"), [SETTING], root=str(grown / "root"))
    assert answer.summary.num_samples == NUM_FOUND + NUM_NEW
    assert answer.summary.after["kept"] == NUM_NEW
    assert answer.changed == "MinSide.min_side: 16 -> 25"
    assert answer.about.startswith("tiny/")


def test_what_was_cleaned_is_asked_about_where_there_is_no_dataset(
    grown: Path, tmp_path: Path
) -> None:
    made = run(grown / "tiny.yaml", tmp_path, targets=("clean",))
    answer = ask(str(grown / "tiny.yaml"), [SETTING], root=str(tmp_path))
    assert (answer.about, answer.summary.after["kept"]) == (made.url, NUM_NEW)


def test_what_changed_is_asked_about_once_and_what_vanished_is_not(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    run(recipe, tmp_path / "root")
    write_sample(corpus / "red" / "002", 999, side=40)
    for extension in ("png", "txt", "flac"):
        (corpus / "red" / f"004.{extension}").unlink()
    run(recipe, tmp_path / "root")
    answer = ask(str(recipe), [SETTING], root=str(tmp_path / "root"))
    assert answer.summary.num_samples == NUM_FOUND - 1
    assert answer.summary.after["kept"] == 1


def test_settings_that_nothing_was_cleaned_with_are_refused(grown: Path) -> None:
    other = Path(grown, "other.yaml")
    other.write_text("extends: tiny.yaml\nclean: {min_side: {min_side: 12}}\n")
    with pytest.raises(ConfigError, match="was not cleaned with these settings"):
        ask(str(other), [SETTING], root=str(grown / "root"))


def test_an_increment_looks_for_nothing_since_its_samples_are_new(grown: Path) -> None:
    root = str(grown / "root")
    graph = load_recipe(str(grown / "tiny.yaml")).graph
    first, second = increments(root, find_dataset(root, "tiny"))
    step = graph.step("clean")
    known = []
    for increment in (first, second):
        inputs = Inputs(
            {"ingest": increment["ingest"]}, {}, directory=graph.directory(root, "clean")
        )
        payloads: Any = [task.payload for task in step.work.tasks(inputs)]
        known.append([bool(payload["known"]) for payload in payloads])
    assert known == [[True] * 4, [False]]


def test_other_limits_for_all_increments_read_no_picture_and_no_sound(
    grown: Path, tmp_path: Path
) -> None:
    wanted = run(grown / "tiny.yaml", tmp_path / "fresh", SETTING, targets=("clean",))
    # bytes that are loaded are checked: these would fail the step
    spoil(grown / "corpus", ".png", ".flac")
    made = run(grown / "tiny.yaml", grown / "root", SETTING, targets=("clean",))
    assert made.manifest.files == wanted.manifest.files
    assert made.manifest.counts.kept == NUM_NEW
