from pathlib import Path

import pytest
from shards import artifact_of, coloured_samples, write_dataset

from mmcore.core.manifest import FileRecord
from mmcore.core.step import Artifact
from mmcore.errors import IntegrityError, StepError
from mmcore.load.dataset import ShardedDataset

SAMPLES = coloured_samples({"test": 4, "train": 12, "val": 3})


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return write_dataset(tmp_path, SAMPLES)


def test_every_part_of_every_sample_is_read_back(artifact: Artifact) -> None:
    dataset = ShardedDataset(artifact)
    found = {entry.info.key: dataset.read(entry) for entry in dataset.entries}
    assert found == {sample.key: dict(sample.parts) for sample in SAMPLES}


def test_samples_come_in_the_order_of_the_shards(artifact: Artifact) -> None:
    places = [(e.info.shard, e.info.index) for e in ShardedDataset(artifact).split("train")]
    assert places == sorted(places)
    assert len(places) == 12


def test_what_is_known_of_a_sample_needs_no_bytes(artifact: Artifact) -> None:
    info = ShardedDataset(artifact).entry("val-001").info
    assert (info.split, info.shard, info.index) == ("val", "val/val-000000.tar", 1)
    assert info.extensions == ("flac", "jpg", "txt")
    assert info.meta["label"] == "green"


def test_changed_bytes_are_refused(artifact: Artifact) -> None:
    dataset = ShardedDataset(artifact)
    entry = dataset.entry("train-000")
    shard = Path(artifact.url) / entry.info.shard
    data = bytearray(shard.read_bytes())
    data[entry.parts["jpg"].offset] ^= 1
    shard.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"other bytes at \d+ .* train-000"):
        dataset.read(entry)


def test_a_cut_shard_is_refused(artifact: Artifact) -> None:
    dataset = ShardedDataset(artifact)
    entry = dataset.split("train")[-1]
    shard = Path(artifact.url) / entry.info.shard
    shard.write_bytes(shard.read_bytes()[: entry.parts["txt"].offset])
    with pytest.raises(IntegrityError, match="other bytes"):
        dataset.read(entry)


def test_a_table_that_is_not_the_committed_one_is_refused(artifact: Artifact) -> None:
    other = artifact_of(
        "shard", Path(artifact.url), FileRecord("manifest.parquet", 1, "0" * 64, None)
    )
    with pytest.raises(IntegrityError, match="SHA-256 differs"):
        ShardedDataset(other)


def test_an_unknown_split_names_those_there_are(artifact: Artifact) -> None:
    with pytest.raises(StepError, match=r"no split 'dev', only test, train, val"):
        ShardedDataset(artifact).split("dev")


def test_an_unknown_key_says_how_to_find_out_why(artifact: Artifact) -> None:
    with pytest.raises(StepError, match="mm explain nobody"):
        ShardedDataset(artifact).entry("nobody")


def test_what_is_to_be_forgotten_is_not_there_for_any_worker_that_was_told(
    artifact: Artifact,
) -> None:
    keys = {entry.info.key for entry in ShardedDataset(artifact).entries}
    opened = ShardedDataset(artifact, frozenset({"val-001", "nobody"}))
    assert {entry.info.key for entry in opened.entries} == keys - {"val-001"}
    assert "val-001" not in {entry.info.key for entry in opened.split("val")}
    with pytest.raises(StepError, match="holds no sample 'val-001'"):
        opened.entry("val-001")
