"""From artifacts back to the raw corpus and forward to what was made from them."""

import os
from pathlib import Path

import pytest
from toy import Shout, run_toy, toy_graph, write_corpus

from mmcore.core.lineage import (
    bases_of,
    committed_artifacts,
    dataset_versions,
    find_artifact,
    find_dataset,
    made_from,
    step_names,
    upstream,
)
from mmcore.core.manifest import Counts, Manifest, commit_manifest
from mmcore.core.rows import load_part, read_kept
from mmcore.errors import ConfigError


@pytest.fixture
def root(tmp_path: Path) -> str:
    write_corpus(tmp_path / "corpus", num_texts=6)
    run_toy(toy_graph(tmp_path / "corpus"), tmp_path / "root")
    return str(tmp_path / "root")


def publish(root: str, name: str, version: str, *, at: int) -> None:
    url = f"{root}/ds/{name}/{version}"
    commit_manifest(url, Manifest("shard", version * 4, {"inputs": {}}, Counts(), ()))
    os.utime(f"{url}/manifest.json", (at, at))


def test_what_an_artifact_was_made_from_is_found_back_to_the_scan(root: str) -> None:
    (dedup,) = committed_artifacts(f"{root}/steps/toy/dedup")
    chain = upstream(root, "toy", dedup)
    assert list(chain) == ["scan", "ingest", "clean", "dedup"]
    bases = bases_of(chain)
    assert {load_part(sample.parts["txt"], bases)[:4] for sample in read_kept(dedup)} == {b"TEXT"}


def test_a_step_that_was_swept_away_leaves_the_rest_of_the_chain(root: str) -> None:
    (clean,) = committed_artifacts(f"{root}/steps/toy/clean")
    os.unlink(f"{clean.url}/manifest.json")
    (dedup,) = committed_artifacts(f"{root}/steps/toy/dedup")
    assert list(upstream(root, "toy", dedup)) == ["dedup"]


def test_what_was_made_from_an_artifact_is_found(root: str, tmp_path: Path) -> None:
    run_toy(toy_graph(tmp_path / "corpus", stage=Shout(min_chars=5)), tmp_path / "root")
    assert len(list(committed_artifacts(f"{root}/steps/toy/clean"))) == 2
    (ingest,) = committed_artifacts(f"{root}/steps/toy/ingest")
    found = made_from(root, "toy", "clean", ingest=ingest.manifest.fingerprint)
    assert len(found) == 2
    (dedup,) = made_from(root, "toy", "dedup", clean=found[0].manifest.fingerprint)
    assert dedup.manifest.identity["inputs"] == {"clean": found[0].manifest.fingerprint}
    assert made_from(root, "toy", "dedup", clean="0" * 64) == []


def test_an_artifact_is_found_by_its_fingerprint_or_is_not_there(root: str) -> None:
    (clean,) = committed_artifacts(f"{root}/steps/toy/clean")
    assert find_artifact(root, "toy", "clean", clean.manifest.fingerprint) == clean
    assert find_artifact(root, "toy", "clean", "0" * 64) is None


def test_directories_without_a_manifest_are_not_artifacts(root: str) -> None:
    os.makedirs(f"{root}/steps/toy/clean/half-made")
    assert len(list(committed_artifacts(f"{root}/steps/toy/clean"))) == 1
    assert step_names(root, "toy") == ["clean", "dedup", "ingest", "scan"]


def test_dataset_versions_are_listed_from_the_oldest_commit_to_the_newest(tmp_path: Path) -> None:
    root = str(tmp_path)
    publish(root, "birds", "bbbb", at=300)
    publish(root, "birds", "aaaa", at=400)
    publish(root, "cars", "cccc", at=100)
    assert [str(one) for one in dataset_versions(root)] == ["cars/cccc", "birds/bbbb", "birds/aaaa"]
    assert [str(one) for one in dataset_versions(root, "birds")] == ["birds/bbbb", "birds/aaaa"]


def test_a_dataset_is_found_by_name_by_version_and_by_being_the_newest(tmp_path: Path) -> None:
    root = str(tmp_path)
    publish(root, "birds", "bbbb", at=300)
    publish(root, "birds", "aaaa", at=200)
    publish(root, "cars", "cccc", at=100)
    assert str(find_dataset(root, None)) == "birds/bbbb"
    assert str(find_dataset(root, "cars")) == "cars/cccc"
    assert str(find_dataset(root, "birds/aa")) == "birds/aaaa"
    with pytest.raises(
        ConfigError, match=r"no dataset 'birds/x' .*cars/cccc, birds/aaaa, birds/bbbb"
    ):
        find_dataset(root, "birds/x")
    with pytest.raises(ConfigError, match=r"There are: none. Make one with: mm run"):
        find_dataset(root + "/empty", None)
