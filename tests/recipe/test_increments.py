"""A dataset that grows: new data costs what new data costs, and what is old stays as it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from corpus import NUM_FOUND, NUM_SOUND, ORIGINAL, write_corpus, write_recipe, write_sample

from mmcore.core.explain import explain, find_keys
from mmcore.core.grown_table import read_groups
from mmcore.core.lineage import DatasetVersion, find_dataset, increments
from mmcore.core.manifest import verify_artifact
from mmcore.core.rows import read_rows
from mmcore.core.runner import Run, StepResult
from mmcore.core.step import Artifact
from mmcore.core.tombstones import read_tombstones
from mmcore.encode.tokenizer import TOKENIZER_NAME, given_tokenizer
from mmcore.errors import StepError
from mmcore.executors.local import LocalExecutor
from mmcore.ingest.folder import FolderLayout
from mmcore.ingest.layout import Grouping, SourceFile
from mmcore.media.array import array_of
from mmcore.recipe.build import load_recipe
from mmcore.shard.reader import find_sample, read_part, read_samples

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


def test_token_ids_of_an_increment_are_those_of_the_first_tokenizer(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    recipe.write_text(recipe.read_text().replace("encode_text:", "encode_text:\n  token_ids:"))
    first = run(recipe, tmp_path / "root")
    add_samples(corpus)
    second = run(recipe, tmp_path / "root")
    assert second["encode"].artifact.manifest.counts.found == NUM_NEW
    assert second["tokenizer"].artifact.url == first["tokenizer"].artifact.url
    tokenizer, dataset = second["tokenizer"].artifact, find_dataset(str(tmp_path / "root"), "tiny")
    _, encode = given_tokenizer(f"{tokenizer.url}/{TOKENIZER_NAME}")
    for sample in read_samples(dataset.artifact.url):
        text = read_part(dataset.artifact.url, sample, "txt").decode()
        ids = array_of(read_part(dataset.artifact.url, sample, "ids.npy"))
        assert ids.tolist() == encode.encode(text).ids
    story: Any = explain(str(tmp_path / "root"), dataset, "red__200")
    assert story["status"] == "kept"
    assert all(result.was_cached for result in run(recipe, tmp_path / "root").values())


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


def remove(stem: Path) -> None:
    for extension in ("png", "txt", "flac"):
        stem.with_suffix(f".{extension}").unlink()


def dead(artifact: Artifact) -> set[tuple[str, str]]:
    return {(one.key, one.reason) for one in read_tombstones(artifact.url)}


class Changed:
    """A dataset after one sample changed, one gained a part, two vanished and one arrived."""

    def __init__(self, directory: Path) -> None:
        self.corpus = write_corpus(directory / "corpus")
        self.recipe = write_recipe(directory / "tiny.yaml", self.corpus)
        self.root = directory / "root"
        self.first = run(self.recipe, self.root)
        write_sample(self.corpus / "red" / "002", 999)
        (self.corpus / "red" / "004.json").write_text('{"mood": "calm"}')
        remove(self.corpus / "blue" / "003")
        remove(self.corpus / "red" / "000")  # red/twin was dropped in favour of it
        write_sample(self.corpus / "red" / "200", 200)
        self.second = run(self.recipe, self.root)
        self.shard = self.second["shard"].artifact


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Changed:
    return Changed(tmp_path_factory.mktemp("changed"))


def test_an_increment_processes_what_is_new_or_changed_and_nothing_else(changed: Changed) -> None:
    rows = {row.sample.key for row in read_rows(changed.second["ingest"].artifact)}
    assert rows == {"red__002", "red__004", "red__200", "red__twin"}
    assert changed.second["shard"].artifact.manifest.counts.found == 4


def test_what_changed_or_vanished_is_a_tombstone_and_old_shards_keep_their_hashes(
    changed: Changed,
) -> None:
    assert dead(changed.shard) == {
        ("red__002", "changed"),
        ("red__004", "changed"),
        ("blue__003", "removed"),
        ("red__000", "removed"),
    }
    before = tars(changed.first["shard"].artifact)
    assert before.items() < tars(changed.shard).items()
    assert verify_artifact(changed.shard.url, changed.shard.manifest) == []
    facts: Any = changed.shard.manifest.facts
    assert facts["tombstones"] == {"changed": 2, "removed": 2}
    assert sum(facts["increments"][-1]["num_gone"].values()) == 4


def test_a_grown_version_holds_each_sample_as_it_is_now(changed: Changed) -> None:
    stored = {sample.key: sample for sample in read_samples(changed.shard.url)}
    assert len(stored) == NUM_SOUND - 2 + len({"red__200", "red__twin"})
    assert not stored.keys() & {"blue__003", "red__000"}
    caption = read_part(changed.shard.url, stored["red__002"], "txt").decode()
    assert caption == "picture number 999 of its class"
    assert stored["red__004"].meta["mood"] == "calm"


def test_the_version_before_stays_as_it_was(changed: Changed) -> None:
    artifact = changed.first["shard"].artifact
    assert {"blue__003", "red__000"} <= {sample.key for sample in read_samples(artifact.url)}
    assert read_tombstones(artifact.url) == []
    assert verify_artifact(artifact.url, artifact.manifest) == []


def test_a_sample_comes_back_when_the_twin_that_outlived_it_is_gone(changed: Changed) -> None:
    assert find_sample(changed.first["shard"].artifact.url, "red__twin") is None
    assert find_sample(changed.shard.url, "red__twin") is not None


def test_samples_that_changed_altogether_stay_in_their_splits(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    recipe.write_text(recipe.read_text().replace('[image, "meta:original_key"]', "[image]"))
    for number in range(2, 24, 4):  # pairs with one picture: a group has the name of the first
        picture = (corpus / "red" / f"{number:03d}.png").read_bytes()
        (corpus / "red" / f"{number - 2:03d}.png").write_bytes(picture)
    first = run(recipe, tmp_path / "root")
    before = {one.key: one.split for one in read_samples(first["shard"].artifact.url)}
    for number in range(2, 18):
        write_sample(corpus / ("red", "blue")[number % 2] / f"{number:03d}", 900 + number)
    second = run(recipe, tmp_path / "root")
    assert second["split"].artifact.manifest.counts.found == 16
    after = {one.key: one.split for one in read_samples(second["shard"].artifact.url)}
    assert {key: after[key] for key in before} == before
    assert len(set(after.values())) == 3


def test_changes_and_removals_replayed_elsewhere_give_the_same_hashes(
    changed: Changed, tmp_path: Path
) -> None:
    again = Changed(tmp_path)
    assert again.shard.manifest == changed.shard.manifest


def test_a_sample_may_change_vanish_and_come_back(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    run(recipe, tmp_path / "root")
    for number in (500, 501):
        write_sample(corpus / "red" / "002", number)
        last = run(recipe, tmp_path / "root")["shard"].artifact
    remove(corpus / "red" / "002")
    without = run(recipe, tmp_path / "root")["shard"].artifact
    assert find_sample(without.url, "red__002") is None
    write_sample(corpus / "red" / "002", 501)
    add_samples(corpus, num=1)
    last = run(recipe, tmp_path / "root")["shard"].artifact
    found = find_sample(last.url, "red__002")
    assert found is not None
    assert read_part(last.url, found, "txt").decode().startswith("picture number 501 ")
    assert [reason for key, reason in sorted(dead(last)) if key == "red__002"] == [
        "changed",
        "removed",
    ]
    assert len(read_tombstones(last.url)) == 3
    assert len(read_samples(last.url)) == NUM_SOUND + 1


def test_a_corpus_of_which_nothing_stayed_makes_the_dataset_from_the_ground_up(
    tmp_path: Path,
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    run(recipe, tmp_path / "root")
    for path in sorted(corpus.rglob("*.png")):
        remove(path.with_suffix(""))
    add_samples(corpus, num=12)
    second = run(recipe, tmp_path / "root")
    assert "base" not in second["shard"].artifact.manifest.identity
    assert read_tombstones(second["shard"].artifact.url) == []


def test_of_a_file_with_many_samples_only_those_that_differ_are_taken_in_again(
    tmp_path: Path,
) -> None:
    file = tmp_path / "corpus" / "lines.txt"
    file.parent.mkdir()
    lines = [f"n{i:02d}: the line number {i}" for i in range(20)]
    file.write_text("\n".join(lines))
    recipe = tmp_path / "lines.yaml"
    recipe.write_text(
        f"name: lines\nsource: {{path: {file.parent}, layout: {{use: line_layout.LineLayout}}}}\n"
        "split: {together: [text]}\n"
    )
    run(recipe, tmp_path / "root")
    file.write_text("\n".join([*lines[:3], "n03: another line", *lines[5:], "n20: a new one"]))
    second = run(recipe, tmp_path / "root")
    rows = {row.sample.key for row in read_rows(second["ingest"].artifact)}
    assert rows == {"lines__n03", "lines__n20"}
    assert dead(second["shard"].artifact) == {
        ("lines__n03", "changed"),
        ("lines__n04", "removed"),
    }
    assert len(read_samples(second["shard"].artifact.url)) == 20


def test_a_plan_says_what_is_new_changed_and_removed(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    first = run(recipe, tmp_path / "root")
    add_samples(corpus)
    write_sample(corpus / "red" / "002", 999)
    remove(corpus / "blue" / "003")
    graph = load_recipe(str(recipe)).graph
    again = Run(graph, root=str(tmp_path / "root"), executor=LocalExecutor())
    again.run_step("scan", again.plan())
    base = first["shard"].artifact.url.rsplit("/", 1)[-1]
    assert again.plan().steps[1].reason == (
        f"4 new samples, 1 changed, 1 removed, on top of tiny/{base}"
    )


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


def test_an_increment_of_new_samples_reads_no_whole_row_of_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    run(recipe, tmp_path / "root")
    add_samples(corpus)

    def refused(url: str, columns: Sequence[str] | None = None) -> Any:
        assert columns == ["key", "parts.list.element.sha256"], f"rows of {url} are read whole"
        return read_groups(url, columns)

    monkeypatch.setattr("mmcore.shard.earlier.read_groups", refused)
    grouped: list[str] = []
    group = FolderLayout.group

    def seen(layout: FolderLayout, files: Sequence[SourceFile]) -> Grouping:
        grouped.extend(file.path for file in files)
        return group(layout, files)

    monkeypatch.setattr(FolderLayout, "group", seen)
    grown = run(recipe, tmp_path / "root")
    assert grown["shard"].artifact.manifest.counts.kept == NUM_NEW
    assert len(read_samples(grown["shard"].artifact.url)) == NUM_SOUND + NUM_NEW
    # all old files but one: whether anything of the corpus stayed is told by the first
    stems = {path.rpartition("/")[2].split(".")[0] for path in grouped}
    assert {f"{i}" for i in range(200, 200 + NUM_NEW)} < stems
    assert len(stems) <= NUM_NEW + 2


def test_a_table_that_grew_often_is_written_anew_and_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    run(recipe, tmp_path / "root")
    monkeypatch.setattr("mmcore.core.grown_table._MAX_PIECES", 1)
    num_groups = []
    for number in range(3):
        add_samples(corpus, first=300 + 10 * number, num=2)
        last = run(recipe, tmp_path / "root")["shard"].artifact
        num_groups.append(pq.ParquetFile(Path(last.url, "manifest.parquet")).num_row_groups)
    assert num_groups == [2, 1, 2]
    assert len({one.key for one in read_samples(last.url)}) == NUM_SOUND + 6


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


def test_a_broken_newcomer_is_measured_against_the_dataset_and_not_against_two_newcomers(
    tmp_path: Path,
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus, more="max_quarantined: 0.05\n")
    run(recipe, tmp_path / "root")
    add_samples(corpus, num=2)
    (corpus / "red" / "200.png").write_bytes(b"no picture")
    second = run(recipe, tmp_path / "root")
    assert sum(second["clean"].artifact.manifest.counts.quarantined.values()) == 1
    for number in (202, 204):
        write_sample(corpus / "red" / str(number), number)
        (corpus / "red" / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(StepError, match="2 of 2 samples are broken"):
        run(recipe, tmp_path / "root")
