from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shards import artifact_of, coloured_samples, write_dataset

from mmcore.core.manifest import FileRecord
from mmcore.core.step import Artifact
from mmcore.errors import IntegrityError
from mmcore.load.dataset import ShardedDataset
from mmcore.load.reading import SampleReader, Wanted
from mmcore.sample import sha256_hex

SAMPLES = coloured_samples({"train": 7})
SHARD = "train/train-000000.tar"


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return write_dataset(tmp_path, SAMPLES)


def wanted(artifact: Artifact) -> list[Wanted]:
    dataset = ShardedDataset(artifact)
    return [dataset.wanted(entry) for entry in dataset.entries]


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_shard_is_refused_by_name(
    artifact: Artifact, place: float, bit: int
) -> None:
    shard = Path(artifact.url, SHARD)
    whole = shard.read_bytes()
    data = bytearray(whole)
    data[int(place * len(data))] ^= 1 << bit
    shard.write_bytes(data)
    reader = SampleReader()
    try:
        with pytest.raises(IntegrityError, match=rf"{SHARD} holds other bytes"):
            [reader.parts(one, ["jpg"]) for one in wanted(artifact)]
    finally:
        reader.close()
        shard.write_bytes(whole)


@pytest.mark.parametrize("num_bytes", [1, 512, 9_000, 20_000])
def test_a_shard_that_is_cut_is_refused(artifact: Artifact, num_bytes: int) -> None:
    shard = Path(artifact.url, SHARD)
    whole = shard.read_bytes()
    record = FileRecord(SHARD, len(whole), sha256_hex(whole), 5)
    known = artifact_of("shard", Path(artifact.url), record)
    for one in wanted(known):
        assert SampleReader().parts(one, ["txt"])
    shard.write_bytes(whole[:-num_bytes])
    with pytest.raises(IntegrityError, match=rf"{SHARD} has {len(whole) - num_bytes} bytes, not"):
        SampleReader().parts(wanted(known)[0], ["txt"])


def test_a_shard_without_the_end_of_a_tar_is_refused(artifact: Artifact) -> None:
    samples = [one for one in wanted(artifact) if one.shard == SHARD]
    shard = Path(artifact.url, SHARD)
    shard.write_bytes(shard.read_bytes()[: samples[-1].last + 1023])
    with pytest.raises(IntegrityError, match="other bytes"):
        [SampleReader().parts(one, ["txt"]) for one in samples]


def test_only_what_is_asked_for_is_given(artifact: Artifact) -> None:
    reader = SampleReader()
    (first, *_) = wanted(artifact)
    for extensions in (["jpg"], ["txt", "flac"], [], ["flac", "jpg", "txt"]):
        for _ in range(2):  # when it is checked, and when it has been
            found = reader.parts(first, extensions)
            assert found == {name: SAMPLES[0].parts[name] for name in extensions}


def test_a_file_that_changes_later_is_checked_again(artifact: Artifact) -> None:
    reader = SampleReader()
    samples = wanted(artifact)
    shard = Path(artifact.url, SHARD)
    for one in samples:
        reader.parts(one, ["jpg"])
    data = bytearray(shard.read_bytes())
    offset = next(part.offset for part in samples[2].parts if part.extension == "jpg")
    data[offset + 100] ^= 1
    shard.write_bytes(data)
    reader.begin_batch()
    assert reader.parts(samples[0], ["jpg"])
    with pytest.raises(IntegrityError, match=rf"other bytes at {offset} .* for train-002"):
        reader.parts(samples[2], ["jpg"])


def test_samples_that_count_no_more_may_stand_at_the_end_of_a_shard(artifact: Artifact) -> None:
    dataset = ShardedDataset(artifact, frozenset({"train-003", "train-004"}))
    last = dataset.wanted(dataset.entry("train-002"))
    assert last.is_last
    assert SampleReader().parts(last, ["txt"]) == {"txt": SAMPLES[2].parts["txt"]}


def test_many_shards_are_not_all_open_at_once(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("mmcore.load.reading._MAX_HANDLES", 1)
    reader = SampleReader()
    for _ in range(2):
        for one in wanted(artifact):
            reader.begin_batch()
            assert reader.parts(one, ["txt"])
            assert len(reader._handles) <= 2
