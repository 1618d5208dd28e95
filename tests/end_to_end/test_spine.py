"""The whole spine, real: Prefect, Ray, two DeepSpeed ranks, MLflow; from raw files to a champion."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mmcore.core.explain import explain, find_keys
from mmcore.core.lineage import find_dataset
from mmcore.ingest.answers import read_answers
from mmcore.ingest.generate import make_corpus
from mmcore.sample import Json

REPOSITORY = Path(__file__).parents[2]
RECIPE = str(REPOSITORY / "configs/recipes/generated_tiny_cpu.yaml")
SMALL = ["--set", "train.epochs=2", "--set", "shard.samples_per_shard=64"]
pytestmark = pytest.mark.timeout(900)


class Spine:
    """A corpus, a storage root, and the commands run on them."""

    def __init__(self, directory: Path) -> None:
        self.corpus = directory / "corpus"
        self.root = directory / "root"
        (directory / "prefect").mkdir()
        self.environment = os.environ | {
            "MM_CORPUS": str(self.corpus),
            "MM_ROOT": str(self.root),
            "PREFECT_HOME": str(directory / "prefect"),
        }
        make_corpus(str(self.corpus), num_samples=300, seed=1)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True)

    def mm(self, *arguments: str) -> dict[str, object]:
        done = self.python("-m", "mmcore", *arguments, "--json")
        assert done.returncode in (0, 4), done.stderr
        value: dict[str, object] = json.loads(done.stdout)
        return value


@pytest.fixture(scope="module")
def spine(tmp_path_factory: pytest.TempPathFactory) -> Spine:
    spine = Spine(tmp_path_factory.mktemp("spine"))
    done = spine.python("-m", "pipelines", RECIPE, *SMALL, "--executor", "ray", "--workers", "2")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return spine


def test_one_command_takes_raw_files_to_a_registered_champion(spine: Spine) -> None:
    (model,) = spine.mm("models")["models"]  # type: ignore[misc]
    assert model["aliases"] == ["challenger", "champion"]
    (dataset,) = spine.mm("datasets")["datasets"]  # type: ignore[misc]
    assert model["dataset_fingerprint"] == dataset["fingerprint"]
    report = next((spine.root / "steps/generated/evaluate").glob("*/report.html")).read_text()
    assert "http://" not in report.replace("http://www.w3.org", "")
    assert "<audio" in report


def test_a_second_run_does_nothing_says_why_and_takes_no_step(spine: Spine) -> None:
    done = spine.python("-m", "pipelines", RECIPE, *SMALL)
    assert done.returncode == 4
    assert "nothing to do" in done.stderr
    value = spine.mm("run", RECIPE, *SMALL)
    assert value["status"] == "nothing_to_do"
    assert not any(step["ran"] for step in value["steps"])  # type: ignore[attr-defined]
    assert len(spine.mm("models")["models"]) == 1  # type: ignore[arg-type]


def test_explain_names_the_models_that_learned_from_a_sample(spine: Spine) -> None:
    manifest = next((spine.root / "ds/generated").glob("*/manifest.parquet"))
    rows = pq.read_table(manifest).to_pylist()
    by_split = {row["split"]: row["key"] for row in rows}
    roles = {}
    for split, key in by_split.items():
        (story,) = spine.mm("explain", key)["samples"]  # type: ignore[misc]
        assert story["shard"]["split"] == split
        (model,) = story["models"]
        assert model["versions"] == ["generated/1"]
        roles[split] = (model["role"], model["times_read"])
    assert roles == {
        "train": ("learned from it", 2),
        "val": ("was tuned on it", None),
        "test": ("was judged on it", None),
    }


DUPLICATES = {
    "cropped_picture": "near_duplicate_image",
    "duplicate_picture": "near_duplicate_image",
    "exact_duplicate": "exact_duplicate",
    "near_duplicate": "near_duplicate_image",
    "reencoded_picture": "near_duplicate_image",
}
EXPECTED = {
    "broken_picture": {"image_format_refused", "image_undecodable"},
    "empty_caption": {"caption_empty"},
    "key_taken": {"key_taken"},
    "missing_sound": {"audio_missing"},
    "mojibake_caption": {None},
    "paraphrased_caption": {None},  # its picture is its own
    "silent_sound": {"audio_silent"},
    "small_picture": {"image_too_small"},
    "truncated_sound": {"audio_truncated", "audio_undecodable"},
}


def test_planted_faults_are_found_with_their_known_answers(spine: Spine) -> None:
    dataset = find_dataset(str(spine.root), None)

    def reason_of(original_key: str) -> Json:
        (key,) = find_keys(str(spine.root), dataset, original_key)
        decided: Any = explain(str(spine.root), dataset, key)["decided_by"]
        return decided["reason"] if decided else None

    planted = dict(read_answers(str(spine.corpus)).planted)
    for fault, reason in DUPLICATES.items():
        for duplicate in planted.pop(fault):
            pair = [reason_of(duplicate.original_key), reason_of(duplicate.twin)]
            assert sorted(map(str, pair)) == ["None", reason], fault
    found = {
        fault: {reason_of(answer.original_key) for answer in answers}
        for fault, answers in planted.items()
    }
    assert {fault for fault, answers in planted.items() if answers} == EXPECTED.keys()
    for fault, reasons in found.items():
        assert reasons <= EXPECTED[fault], fault


def test_a_new_classifier_is_registered_beside_the_champion_and_must_beat_it(spine: Spine) -> None:
    done = spine.python("-m", "mmcore", "run", RECIPE, *SMALL, "--set", "train.learning_rate=1e-7")
    assert done.returncode == 0, done.stderr
    newest, oldest = spine.mm("models")["models"]  # type: ignore[misc]
    assert newest["aliases"] == ["challenger"]
    assert oldest["aliases"] == ["champion"]
