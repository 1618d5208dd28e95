"""A dataset that grows: new data costs what new data costs, and what is old stays as it is."""

from pathlib import Path
from typing import Any

import pytest
from corpus import NUM_FOUND, NUM_SOUND, ORIGINAL, write_corpus, write_recipe, write_sample

from mmcore.core.explain import explain, find_keys
from mmcore.core.lineage import DatasetVersion, find_dataset, increments
from mmcore.core.manifest import verify_artifact
from mmcore.core.rows import read_rows
from mmcore.core.runner import Run, StepResult
from mmcore.core.step import Artifact
from mmcore.executors.local import LocalExecutor
from mmcore.recipe.build import load_recipe
from mmcore.shard.reader import read_samples

NUM_NEW = 4


def run(recipe: Path, root: Path) -> dict[str, StepResult]:
    loaded = load_recipe(str(recipe))
    return Run(loaded.graph, root=str(root), executor=LocalExecutor()).run()


def tars(artifact: Artifact) -> dict[str, str]:
    files = artifact.manifest.files
    return {file.path: file.sha256 for file in files if file.path.endswith(".tar")}


def add_samples(corpus: Path, *, first: int = 200, num: int = NUM_NEW) -> None:
    for i in range(first, first + num):
        write_sample(corpus / ("red", "blue")[i % 2] / f"{i:03d}", i)


class Grown:
    """A dataset, and the same after four new samples arrived."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.corpus = write_corpus(directory / "corpus")
        self.recipe = write_recipe(directory / "tiny.yaml", self.corpus)
        self.root = directory / "root"
        self.first = run(self.recipe, self.root)
        add_samples(self.corpus)
        self.second = run(self.recipe, self.root)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    return Grown(tmp_path_factory.mktemp("grown"))


def test_an_increment_takes_the_new_samples_alone_through_every_step(grown: Grown) -> None:
    found = {name: result.artifact.manifest.counts.found for name, result in grown.first.items()}
    assert (found["ingest"], found["shard"]) == (NUM_FOUND, NUM_SOUND)
    for name in ("ingest", "clean", "dedup", "split", "encode", "shard"):
        assert grown.second[name].artifact.manifest.counts.found == NUM_NEW, name


def test_old_shards_keep_their_hashes_and_new_ones_are_added(grown: Grown) -> None:
    before, after = tars(grown.first["shard"].artifact), tars(grown.second["shard"].artifact)
    assert before.items() < after.items()
    assert (
        verify_artifact(grown.second["shard"].artifact.url, grown.second["shard"].artifact.manifest)
        == []
    )
    path = next(iter(before))
    urls = (grown.first["shard"].artifact.url, grown.second["shard"].artifact.url)
    old, new = (Path(url, path).stat() for url in urls)
    assert old.st_ino == new.st_ino  # no byte was written again


def test_the_grown_version_holds_every_sample_once_and_says_which_increment_added_what(
    grown: Grown,
) -> None:
    artifact = grown.second["shard"].artifact
    keys = [sample.key for sample in read_samples(artifact.url)]
    assert len(keys) == len(set(keys)) == NUM_SOUND + NUM_NEW
    facts: Any = artifact.manifest.facts
    assert sum(facts["num_samples"].values()) == NUM_SOUND + NUM_NEW
    added = [sum(one["num_samples"].values()) for one in facts["increments"]]
    assert added == [NUM_SOUND, NUM_NEW]
    assert artifact.url.endswith(facts["increments"][-1]["dataset"])


def test_a_tokenizer_stays_that_of_the_first_increment(grown: Grown) -> None:
    assert grown.second["tokenizer"].was_cached
    assert grown.second["tokenizer"].artifact.url == grown.first["tokenizer"].artifact.url


def test_a_run_after_an_increment_does_nothing_and_says_so(grown: Grown) -> None:
    again = run(grown.recipe, grown.root)
    assert all(result.was_cached for result in again.values())
    assert again["shard"].artifact.url == grown.second["shard"].artifact.url
    plan = Run(
        load_recipe(str(grown.recipe)).graph, root=str(grown.root), executor=LocalExecutor()
    ).plan()
    assert not plan.to_run


def test_the_same_increments_in_another_root_give_the_same_hashes(
    grown: Grown, tmp_path: Path
) -> None:
    corpus = write_corpus(tmp_path / "elsewhere")
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    first = run(recipe, tmp_path / "root")
    add_samples(corpus)
    second = run(recipe, tmp_path / "root")
    assert first["shard"].artifact.manifest == grown.first["shard"].artifact.manifest
    assert second["shard"].artifact.manifest == grown.second["shard"].artifact.manifest


def test_samples_of_every_increment_can_be_explained(grown: Grown) -> None:
    dataset = find_dataset(str(grown.root), "tiny")
    assert dataset.artifact.url == grown.second["shard"].artifact.url
    assert [set(one) for one in increments(str(grown.root), dataset)] == 2 * [
        {"scan", "ingest", "clean", "dedup", "split", "encode", "shard"}
    ]
    for name, key in (("red/000", "red__000"), ("red/200", "red__200")):
        assert find_keys(str(grown.root), dataset, name) == [key]
        story: Any = explain(str(grown.root), dataset, key)
        assert story["status"] == "kept"
        assert story["shard"]["url"].startswith(dataset.artifact.url)
        assert len(story["steps"]) == 5
    dropped: Any = explain(str(grown.root), dataset, "red__tiny")
    assert dropped["decided_by"]["step"] == "clean"


def test_a_newcomer_that_was_there_before_is_dropped_and_names_the_old_one(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    run(recipe, tmp_path / "root")
    write_sample(corpus / "blue" / "again", 0)  # as red/000, under a name that sorts before it
    second = run(recipe, tmp_path / "root")
    (row,) = read_rows(second["dedup"].artifact)
    assert (row.status, row.reason, row.twin) == ("dropped", "exact_duplicate", ORIGINAL)
    assert second["shard"].artifact.manifest.counts.found == 0


def test_a_newcomer_joins_the_split_of_what_it_is_linked_to(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    first = run(recipe, tmp_path / "root")
    split_of = {row.sample.key: row.sample.meta for row in read_rows(first["split"].artifact)}
    old = {str(meta["split"]): key for key, meta in sorted(split_of.items())}
    for split, key in old.items():
        stem = corpus / "red" / f"like-{split}"
        write_sample(stem, 300 + len(split))
        picture = corpus / key.replace("__", "/")
        stem.with_suffix(".png").write_bytes(picture.with_suffix(".png").read_bytes())
    second = run(recipe, tmp_path / "root")
    rows = {row.sample.key: row.sample.meta for row in read_rows(second["split"].artifact)}
    assert len(rows) == len(old) == 3
    for split, key in old.items():
        assert rows[f"red__like-{split}"]["split"] == split
        assert rows[f"red__like-{split}"]["split_group"] == split_of[key]["split_group"]


@pytest.mark.parametrize("change", ["removed", "changed", "gained a part"])
def test_what_is_more_than_new_data_makes_the_dataset_from_the_ground_up(
    tmp_path: Path, change: str
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    run(recipe, tmp_path / "root")
    add_samples(corpus)
    if change == "removed":
        (corpus / "red" / "002.txt").unlink()
    elif change == "changed":
        write_sample(corpus / "red" / "002", 999)
    else:
        (corpus / "red" / "002.json").write_text('{"mood": "calm"}')
    second = run(recipe, tmp_path / "root")
    assert second["ingest"].artifact.manifest.counts.found == NUM_FOUND + NUM_NEW
    assert "base" not in second["shard"].artifact.manifest.identity


def test_another_recipe_makes_the_dataset_from_the_ground_up(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    run(recipe, tmp_path / "root")
    add_samples(corpus)
    recipe.write_text(recipe.read_text().replace("side: 32", "side: 16"))
    second = run(recipe, tmp_path / "root")
    assert second["ingest"].artifact.manifest.counts.found == NUM_FOUND + NUM_NEW


def test_a_new_file_that_forms_no_sample_leaves_nothing_to_do(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    first = run(recipe, tmp_path / "root")
    (corpus / "LICENCE").write_text("free")
    second = run(recipe, tmp_path / "root")
    assert not second["scan"].was_cached
    assert all(result.was_cached for name, result in second.items() if name != "scan")
    assert second["shard"].artifact.url == first["shard"].artifact.url


def test_increments_follow_each_other(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    run(recipe, tmp_path / "root")
    for number in range(3):
        add_samples(corpus, first=300 + 10 * number, num=2)
        last = run(recipe, tmp_path / "root")
        assert last["ingest"].artifact.manifest.counts.found == 2
    version = DatasetVersion("tiny", "", last["shard"].artifact)
    assert len(increments(str(tmp_path / "root"), version)) == 4
    assert len(read_samples(last["shard"].artifact.url)) == NUM_SOUND + 6


def test_a_rebuild_builds_on_nothing_and_what_it_made_is_built_on_next(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    run(recipe, tmp_path / "root")
    add_samples(corpus)
    grown = run(recipe, tmp_path / "root")
    graph = load_recipe(str(recipe), rebuild=True).graph
    rebuilt = Run(graph, root=str(tmp_path / "root"), executor=LocalExecutor()).run()
    assert rebuilt["shard"].artifact.url != grown["shard"].artifact.url
    assert rebuilt["ingest"].artifact.manifest.counts.found == NUM_FOUND + NUM_NEW
    again = run(recipe, tmp_path / "root")
    assert again["shard"].artifact.url == rebuilt["shard"].artifact.url
