"""New data to a new champion, or to a refusal that says why; each on record."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from command import run_mm
from corpus import TINY_MODEL, write_corpus, write_recipe, write_sample

from mmcore.core.lineage import committed_artifacts, dataset_versions
from mmcore.core.manifest import Counts, Manifest
from mmcore.core.step import Artifact
from mmcore.recipe.build import LoadedRecipe, load_recipe
from mmcore.recipe.retrain import (
    Verdict,
    conclude,
    consider,
    list_decisions,
    nothing_gained,
    record,
    wait_until_quiet,
)
from mmcore.telemetry.model_registry import ModelRegistry

MODEL = f"""{TINY_MODEL}
retrain: {{min_new_samples: 3, max_wait_hours: 24, quiet_seconds: 0, overrides: [train.epochs=2]}}
"""
NOTHING_TO_DO = 4


class Kept:
    """A folder that fills, its recipe, and `mm retrain` on it."""

    def __init__(self, directory: Path) -> None:
        self.corpus = write_corpus(directory / "corpus")
        self.recipe = write_recipe(directory / "tiny.yaml", self.corpus, more=MODEL)
        self.root = str(directory / "root")

    def retrain(self, *more: str) -> tuple[int, Any]:
        said = run_mm(
            "retrain", str(self.recipe), "--root", self.root, "--workers", "1", "--json", *more
        )
        return said.code, said.json()

    def add(self, *numbers: int) -> None:
        for number in numbers:
            write_sample(self.corpus / ("red", "blue")[number % 2] / f"{number:03d}", number)

    def loaded(self) -> LoadedRecipe:
        return load_recipe(str(self.recipe))

    def made(self, step: str) -> list[Any]:
        found = committed_artifacts(f"{self.root}/steps/tiny/{step}")
        return [artifact.manifest for artifact in found]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A first model; nothing new; too little; enough; copies of what is there."""
    kept = Kept(tmp_path_factory.mktemp("retrain"))
    told: dict[str, Any] = {"kept": kept, "first": kept.retrain(), "nothing": kept.retrain()}
    kept.add(200, 201)
    told["too few"] = kept.retrain()
    kept.add(*range(202, 212))
    told["enough"] = kept.retrain()
    told["after"] = kept.retrain()
    for number in (0, 2, 4):
        write_sample(kept.corpus / "red" / f"copy-{number}", number)
    told["copies"] = kept.retrain()
    told["after copies"] = kept.retrain()
    return told


def test_the_first_retraining_makes_the_dataset_and_its_champion(story: dict[str, Any]) -> None:
    code, answer = story["first"]
    assert code == 0
    assert answer["outcome"]["status"] == "promoted"
    assert answer["outcome"]["model"] == "tiny/1"


def test_without_new_data_nothing_is_trained_and_the_reason_is_said(story: dict[str, Any]) -> None:
    for when in ("nothing", "after"):
        code, answer = story[when]
        assert (code, answer["should_run"]) == (NOTHING_TO_DO, False)
        assert answer["why"].startswith("no new sample since tiny/")


def test_too_few_new_samples_wait_and_it_is_said_until_when(story: dict[str, Any]) -> None:
    code, answer = story["too few"]
    assert code == NOTHING_TO_DO
    assert "2 new samples on top of tiny/" in answer["why"]
    assert "min_new_samples asks for 3; from 20" in answer["why"]


def test_a_retraining_processes_the_new_samples_alone_and_starts_from_the_champion(
    story: dict[str, Any],
) -> None:
    code, answer = story["enough"]
    assert answer["outcome"]["model"] == "tiny/2"
    assert code == {"promoted": 0, "kept_champion": 3}[answer["outcome"]["status"]]
    kept: Kept = story["kept"]
    assert sorted(manifest.counts.found for manifest in kept.made("ingest")) == [3, 12, 27]
    first, second = sorted(
        kept.made("train"), key=lambda one: bool(one.identity["work"]["train"].get("start_from"))
    )
    # the settings of a retraining are not those of the first training
    assert [one.identity["work"]["train"]["epochs"] for one in (first, second)] == [1, 2]
    assert second.identity["work"]["train"]["start_from"] == first.fingerprint
    assert second.identity["inputs"]["tokenizer"] == first.identity["inputs"]["tokenizer"]


def test_champion_and_challenger_are_measured_on_the_same_test_set(story: dict[str, Any]) -> None:
    kept: Kept = story["kept"]
    evaluated = kept.made("evaluate")
    assert len(evaluated) == 2
    first, *_ = dataset_versions(kept.root, "tiny")
    for manifest in evaluated:
        assert manifest.identity["inputs"]["shard"] == first.artifact.manifest.fingerprint
    assert len({manifest.facts["num_samples"] for manifest in evaluated}) == 1
    assert "different" not in story["enough"][1]["outcome"]["why"]


def test_the_champion_changes_only_for_a_better_model(story: dict[str, Any]) -> None:
    outcome = story["enough"][1]["outcome"]
    aliases = ModelRegistry(story["kept"].root).aliases("tiny")
    assert aliases["challenger"] == 2
    assert aliases["champion"] == (2 if outcome["status"] == "promoted" else 1)


def test_copies_of_what_is_there_teach_nothing_and_no_model_is_trained(
    story: dict[str, Any],
) -> None:
    code, answer = story["copies"]
    assert (code, answer["outcome"]["status"]) == (NOTHING_TO_DO, "nothing_gained")
    assert "no new sample was kept" in answer["outcome"]["why"]
    assert story["after copies"][0] == NOTHING_TO_DO
    assert len(story["kept"].made("train")) == 2


def test_every_answer_is_on_record_with_what_came_of_it(story: dict[str, Any]) -> None:
    told = list_decisions(story["kept"].root, "tiny")
    assert [one.verdict.should_run for one in reversed(told)] == [
        True, False, False, True, False, True, False,
    ]  # fmt: skip
    statuses = [one.outcome and one.outcome["status"] for one in reversed(told)]
    assert statuses[0] == "promoted"
    assert statuses[5] == "nothing_gained"
    assert statuses[1] is statuses[2] is None
    assert list_decisions(story["kept"].root, limit=2) == told[:2]


def test_a_retraining_that_never_ended_goes_on_with_what_was_decided(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    run_mm("run", str(kept.recipe), "--root", kept.root, "--until", "shard", "--workers", "1")
    decided = Verdict(True, "27 samples", 27, None, ("train.epochs=7",))
    decision_id = record(kept.root, "tiny", decided, trigger="test")
    again = consider(kept.loaded(), root=kept.root)
    assert again.should_run
    assert again.overrides == ("train.epochs=7",)
    assert "did not end (27 samples)" in again.why
    conclude(kept.root, "tiny", decision_id, {"status": "failed"})
    assert "did not end" not in consider(kept.loaded(), root=kept.root).why


def test_after_the_longest_wait_one_new_sample_is_enough(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    run_mm("run", str(kept.recipe), "--root", kept.root, "--until", "shard", "--workers", "1")
    kept.add(200)
    now = datetime.now(UTC)
    assert not consider(kept.loaded(), root=kept.root, now=now + timedelta(hours=23)).should_run
    late = consider(kept.loaded(), root=kept.root, now=now + timedelta(hours=25))
    assert late.should_run
    assert late.why.startswith("1 new samples on top of tiny/")
    assert consider(kept.loaded(), root=kept.root, force=True).should_run


def test_a_source_that_still_changes_is_waited_for(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.recipe.write_text(kept.recipe.read_text().replace("quiet_seconds: 0", "quiet_seconds: 5"))
    moments = [0.0]

    def sleep(seconds: float) -> None:
        moments.append(moments[-1] + seconds)
        if len(moments) < 5:
            kept.add(300 + len(moments))

    wait_until_quiet(kept.loaded(), sleep=sleep, clock=lambda: moments[-1])
    assert moments[-1] == 3.0 + 5.0


def test_what_changed_vanished_or_is_to_be_forgotten_is_counted_and_said(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    run_mm("run", str(kept.recipe), "--root", kept.root, "--until", "shard", "--workers", "1")
    write_sample(kept.corpus / "red" / "002", 999)
    for extension in ("png", "txt", "flac"):
        (kept.corpus / "blue" / f"003.{extension}").unlink()
    assert run_mm("forget", "red__004", "--why", "a letter", "--root", kept.root).code == 0
    verdict = consider(kept.loaded(), root=kept.root)
    assert not verdict.should_run
    assert verdict.num_new_samples == 1
    assert verdict.why.startswith("0 new samples, 1 changed, 1 removed, 1 forgotten on top of")
    kept.add(200, 201)
    assert consider(kept.loaded(), root=kept.root).num_new_samples == 3
    assert consider(kept.loaded(), root=kept.root).should_run


def test_fewer_samples_to_learn_from_are_a_reason_to_train_when_asked() -> None:
    facts: Any = {"increments": [{"num_samples": {"train": 9}}, {"num_samples": {}}]}

    def nothing(**more: Any) -> str | None:
        last = {"num_samples": {}, **more}
        facts["increments"][-1] = last
        return nothing_gained(Artifact("", Manifest("shard", "f" * 64, {}, Counts(), (), facts)))

    assert nothing() is not None
    assert nothing(num_gone={"test": 3}) is not None
    assert nothing(num_gone={"train": 1}) is None
