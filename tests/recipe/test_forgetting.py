"""What is to be forgotten: obeyed at once, never taken in again, and in the end not there."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from command import Said, run_mm
from corpus import NUM_SOUND, TINY_MODEL, write_corpus, write_recipe, write_sample

from mmcore import storage
from mmcore.core.corpus_work import knows_one
from mmcore.core.forgotten import load_forgotten
from mmcore.core.lineage import committed_artifacts, dataset_versions, find_dataset
from mmcore.core.manifest import verify_artifact
from mmcore.core.rows import read_rows
from mmcore.core.runner import Run
from mmcore.core.step import Artifact, Inputs
from mmcore.core.tombstones import read_tombstones
from mmcore.errors import StepError
from mmcore.executors.local import LocalExecutor
from mmcore.load.dataset import ShardedDataset
from mmcore.recipe.build import load_recipe
from mmcore.shard.reader import find_sample, read_part, read_samples

KEY = "red__004"
CAPTION = b"picture number 4 of its class"


class Kept:
    """A corpus, its recipe and a root."""

    def __init__(self, directory: Path, *, more: str = "") -> None:
        self.corpus = write_corpus(directory / "corpus")
        self.recipe = write_recipe(directory / "tiny.yaml", self.corpus, more=more)
        self.root = str(directory / "root")

    def mm(self, *arguments: str) -> Said:
        return run_mm(*arguments, "--root", self.root)

    def run(self, *more: str) -> Said:
        said = self.mm("run", str(self.recipe), "--workers", "1", *more)
        assert said.code in (0, 4), said.err
        return said

    def compact(self, *more: str) -> Said:
        said = self.mm("compact", "tiny", "--workers", "1", "--json", *more)
        assert said.code == 0, said.err
        return said

    def newest(self) -> Any:
        return find_dataset(self.root, "tiny").artifact


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A dataset and its model; a wish; a run that finds a copy and something new; compaction."""
    kept = Kept(tmp_path_factory.mktemp("forgetting"), more=TINY_MODEL)
    kept.run()
    (first,) = dataset_versions(kept.root, "tiny")
    part = find_sample(first.artifact.url, KEY)
    assert part is not None
    told: dict[str, Any] = {"kept": kept, "first": first, "stored": part}
    told["jpg"] = read_part(first.artifact.url, part, "jpg")
    told["wish"] = kept.mm("forget", "red/004", "--why", "a letter", "--by", "Ann", "--json")
    told["again"] = kept.mm("forget", KEY, "--why", "once more")
    write_sample(kept.corpus / "blue" / "other", 301)
    shutil.copy(kept.corpus / "red/004.png", kept.corpus / "blue/other.png")
    write_sample(kept.corpus / "blue" / "new", 302)
    kept.run("--until", "shard")
    told["second"] = find_dataset(kept.root, "tiny")
    return told


def test_a_wish_is_recorded_with_who_when_and_why(story: dict[str, Any]) -> None:
    (wish,) = load_forgotten(story["kept"].root, "tiny").wishes
    assert (wish.by, wish.why, list(wish.samples)) == ("Ann", "a letter", [KEY])
    assert wish.at[:2] == "20"
    assert wish.versions == (str(story["first"]),)


def test_the_models_that_have_seen_the_sample_are_listed(story: dict[str, Any]) -> None:
    answer = story["wish"].json()
    split = story["stored"].split
    assert answer["versions"] == {str(story["first"]): {KEY: split}}
    (model,) = answer["models"]
    assert model["versions"] == ["tiny/1"]
    assert model["roles"] == {
        {"train": "learned from it", "test": "was judged on it"}[split]: [KEY]
    }


def test_what_was_forgotten_before_is_nothing_to_do(story: dict[str, Any]) -> None:
    assert story["again"].code == 4
    assert "was forgotten before" in story["again"].err


def test_no_reader_gives_it_out_from_any_version(story: dict[str, Any]) -> None:
    for version in dataset_versions(story["kept"].root, "tiny"):
        url = version.artifact.url
        assert find_sample(url, KEY) is None
        assert KEY not in {sample.key for sample in read_samples(url)}
        with pytest.raises(StepError, match="explain red__004"):
            read_part(url, story["stored"], "jpg")
        opened = ShardedDataset(version.artifact)
        assert KEY not in {entry.info.key for entry in opened.entries}
        assert len(opened.entries) >= NUM_SOUND - 1


def test_a_copy_of_a_version_still_knows_what_is_to_be_forgotten(
    story: dict[str, Any], tmp_path: Path
) -> None:
    copied = shutil.copytree(story["first"].artifact.url, tmp_path / "copied")
    assert find_sample(str(copied), KEY) is None
    (one,) = read_tombstones(str(copied), "forgotten.json")
    assert (one.shard, one.index) == (story["stored"].shard, story["stored"].index)


def test_the_old_version_stays_whole_but_for_the_sample(story: dict[str, Any]) -> None:
    artifact = story["first"].artifact
    assert verify_artifact(artifact.url, artifact.manifest) == []
    assert len(read_samples(artifact.url)) == NUM_SOUND - 1


def test_the_next_run_publishes_a_version_without_it_and_takes_in_no_copy(
    story: dict[str, Any],
) -> None:
    kept: Kept = story["kept"]
    artifact = story["second"].artifact
    assert [(one.key, one.reason) for one in read_tombstones(artifact.url)] == [(KEY, "forgotten")]
    newest = max(
        committed_artifacts(f"{kept.root}/steps/tiny/ingest"),
        key=lambda one: "base" in one.manifest.identity,
    )
    rows = {row.sample.key: row for row in read_rows(newest)}
    assert rows.keys() == {"blue__other", "blue__new"}
    assert (rows["blue__other"].status, rows["blue__other"].reason) == ("dropped", "forgotten")
    assert rows["blue__other"].sample.parts == rows["blue__other"].sample.meta == {}
    assert newest.manifest.counts.dropped == {"forgotten": 1}
    assert kept.run("--until", "shard").code == 4


def test_the_story_of_it_says_who_asked_where_it_lies_and_who_learned(
    story: dict[str, Any],
) -> None:
    kept: Kept = story["kept"]
    (told,) = kept.mm("explain", "red/004", "--json").json()["samples"]
    assert told["status"] == "forgotten"
    assert told["forgotten"]["by"] == "Ann"
    assert told["source"] is None
    assert told["scores"] == {}
    assert [one["versions"] for one in told["models"]] == [["tiny/1"]]
    (dead,) = told["tombstones"]
    assert (dead["shard"], dead["reason"]) == (story["stored"].shard, "forgotten")
    said = kept.mm("explain", KEY).out
    assert "asked for by Ann" in said
    assert "model    tiny/1" in said


def test_a_compacted_version_equals_one_that_never_had_the_sample(
    story: dict[str, Any], tmp_path: Path
) -> None:
    kept: Kept = story["kept"]
    kept.compact()
    elsewhere = Kept(tmp_path)
    shutil.rmtree(elsewhere.corpus)
    shutil.copytree(kept.corpus, elsewhere.corpus)
    for name in ("red/004", "blue/other"):
        for extension in ("png", "txt", "flac"):
            (elsewhere.corpus / name).with_suffix(f".{extension}").unlink()
    elsewhere.run()
    assert kept.newest().manifest.files == elsewhere.newest().manifest.files
    assert read_tombstones(kept.newest().url) == []


def test_purged_bytes_are_nowhere_below_the_root_and_the_models_are_still_known(
    story: dict[str, Any],
) -> None:
    kept: Kept = story["kept"]
    holding = [path for path in Path(kept.root).rglob("*") if holds(path, story["jpg"], CAPTION)]
    assert holding
    assert [one for one in made(kept) if knows_one(one, [KEY])]
    deleted = kept.compact("--purge").json()["deleted"]
    assert f"{kept.root}/ds/{story['first']}" in deleted
    assert not [one for one in made(kept) if knows_one(one, [KEY])]
    assert not [p for p in Path(kept.root).rglob("*") if holds(p, story["jpg"], CAPTION)]
    for version in dataset_versions(kept.root, "tiny"):
        assert verify_artifact(version.artifact.url, version.artifact.manifest) == []
    (told,) = kept.mm("explain", "red/004", "--json").json()["samples"]
    assert [one["versions"] for one in told["models"]] == [["tiny/1"]]
    kept.run("--until", "shard")
    assert kept.mm("compact", "tiny", "--purge", "--workers", "1").code == 4


def made(kept: Kept) -> list[Artifact]:
    """What dedup and split made and is there."""
    steps = (f"{kept.root}/steps/tiny/{step}" for step in ("dedup", "split"))
    return [artifact for directory in steps for artifact in committed_artifacts(directory)]


def holds(path: Path, *wanted: bytes) -> bool:
    return path.is_file() and any(data in path.read_bytes() for data in wanted)


def test_nothing_is_purged_while_the_newest_version_counts_on_it(tmp_path: Path) -> None:
    from mmcore.core.purge import purge

    kept = Kept(tmp_path)
    kept.run("--until", "shard")
    kept.mm("forget", KEY, "--why", "a letter")
    with pytest.raises(StepError, match="mm compact tiny --purge"):
        purge(kept.root, "tiny", load_forgotten(kept.root, "tiny"))


def test_what_a_killed_purge_or_run_left_behind_is_purged_as_well(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.run("--until", "shard")
    kept.mm("forget", KEY, "--why", "a letter")
    half = Path(kept.root, "steps/tiny/clean/0123456789abcdef/part-000000.bin")
    half.parent.mkdir()
    half.write_bytes(CAPTION)
    kept.compact("--purge")
    assert not half.parent.exists()


def test_a_sample_with_the_same_picture_goes_with_it(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    write_sample(kept.corpus / "blue" / "again", 77)
    shutil.copy(kept.corpus / "red/004.png", kept.corpus / "blue/again.png")
    kept.run("--until", "shard")
    answer = kept.mm("forget", KEY, "--why", "a letter", "--json").json()
    assert answer["samples"] == ["blue__again", KEY]
    assert answer["copies"] == {"blue__again": KEY}
    assert find_sample(kept.newest().url, "blue__again") is None


def test_compaction_makes_the_shards_of_small_increments_one_and_may_keep_every_split(
    tmp_path: Path,
) -> None:
    kept = Kept(tmp_path)
    kept.run("--until", "shard")
    for number in range(200, 204):
        write_sample(kept.corpus / "red" / str(number), number)
        kept.run("--until", "shard")
    for extension in ("png", "txt", "flac"):
        (kept.corpus / "red" / f"002.{extension}").unlink()
    kept.run("--until", "shard")
    before = kept.newest()
    split_of = {one.key: one.split for one in read_samples(before.url)}
    answer = kept.compact("--keep-splits").json()
    assert answer["num_moved"] == 0
    assert answer["num_shards"]["after"] < answer["num_shards"]["before"]
    assert {one.key: one.split for one in read_samples(kept.newest().url)} == split_of
    assert kept.mm("compact", "tiny", "--keep-splits", "--workers", "1").code == 4
    assert kept.run("--until", "shard").code == 4
    write_sample(kept.corpus / "red" / "300", 300)
    kept.run("--until", "shard")
    assert len(kept.newest().manifest.facts["increments"]) == 2


def test_a_model_is_judged_on_the_first_test_set_without_what_was_forgotten_since(
    tmp_path: Path,
) -> None:
    kept = Kept(tmp_path, more=TINY_MODEL)
    kept.run("--until", "shard")
    first = kept.newest()
    test = [one.key for one in read_samples(first.url) if one.split == "test"]

    def evaluation() -> tuple[dict[str, Any], Inputs]:
        graph = load_recipe(str(kept.recipe)).graph
        plan = Run(graph, root=kept.root, executor=LocalExecutor()).plan()
        assert plan.ground is not None
        made = {step.name: Artifact(step.url or "", first.manifest) for step in plan.steps}
        inputs = graph.inputs(graph.step("evaluate"), made, plan.ground)
        return dict(graph.identities(plan.ground)["evaluate"][1]), inputs

    assert "forgotten" not in evaluation()[0]
    kept.mm("forget", test[0], "--why", "a letter")
    kept.run("--until", "shard")
    identity, inputs = evaluation()
    assert identity["inputs"]["shard"] == first.manifest.fingerprint
    assert len(identity["forgotten"]) == 64
    opened = ShardedDataset(inputs["shard"], inputs.forgotten.keys)
    assert [one.info.key for one in opened.split("test")] == test[1:]


def test_a_bucket_forgets_like_a_disk(tmp_path: Path, bucket: str) -> None:
    kept = Kept(tmp_path)
    kept.root = bucket
    kept.run("--until", "shard")
    (first,) = dataset_versions(bucket, "tiny")
    assert kept.mm("forget", KEY, "--why", "a letter").code == 0
    assert find_sample(first.artifact.url, KEY) is None
    assert len(read_samples(first.artifact.url)) == NUM_SOUND - 1
    write_sample(kept.corpus / "red" / "002", 999)
    kept.run("--until", "shard")
    dead = {(one.key, one.reason) for one in read_tombstones(kept.newest().url)}
    assert dead == {(KEY, "forgotten"), ("red__002", "changed")}
    deleted = kept.compact("--purge").json()["deleted"]
    assert first.artifact.url in deleted
    (only,) = dataset_versions(bucket, "tiny")
    assert len(read_samples(only.artifact.url)) == NUM_SOUND - 1
    assert storage.list_files(first.artifact.url) == []
