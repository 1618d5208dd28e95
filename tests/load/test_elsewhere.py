"""Shards in a bucket: through the cache, through bad weather, and refused when they are damaged."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from shards import coloured_samples, write_inputs
from weather import weather_before

from mmcore import storage
from mmcore.core.loader import Batch
from mmcore.core.step import Artifact, Inputs
from mmcore.errors import IntegrityError
from mmcore.load.batches import MultimodalLoader, OpenMultimodal

SAMPLES = coloured_samples({"train": 40, "val": 4})


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return write_inputs(tmp_path_factory.mktemp("elsewhere"), SAMPLES)


@pytest.fixture
def loader(tmp_path: Path) -> MultimodalLoader:
    return MultimodalLoader(
        image_side=16, num_mels=8, max_tokens=6, cache_directory=str(tmp_path / "cache"), workers=0
    )


@pytest.fixture
def there(here: Inputs, bucket: str) -> Inputs:
    """The same dataset in a bucket."""
    source = here["shard"].url
    for file in storage.list_files(source):
        storage.write(storage.join(bucket, file.path), Path(source, file.path).read_bytes())
    return replace(
        here,
        artifacts={**here.artifacts, "shard": Artifact(bucket, here["shard"].manifest)},
    )


def batches(dataset: OpenMultimodal, *, epoch: int = 0) -> Iterator[Batch]:
    return dataset.epoch("train", seed=1, epoch=epoch, global_batch_size=8, rank=0, num_ranks=1)


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return all(
        list(one.keys) == list(other.keys)
        and all((one.arrays[name] == other.arrays[name]).all() for name in one.arrays)
        for one, other in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bucket_gives_the_batches_of_a_disk(
    here: Inputs, there: Inputs, loader: MultimodalLoader, workers: int
) -> None:
    expected = [list(batches(loader.open(here), epoch=epoch)) for epoch in (0, 1)]
    dataset = replace(loader, workers=workers).open(there)
    for epoch in (0, 1):
        assert equal(list(batches(dataset, epoch=epoch)), expected[epoch])
    assert equal(
        list(dataset.in_order("val", batch_size=3)),
        list(loader.open(here).in_order("val", batch_size=3)),
    )
    dataset.close()
    assert any(not name.startswith(".lock-") for name in os.listdir(loader.cache_directory))


def test_bad_weather_changes_nothing(
    here: Inputs,
    there: Inputs,
    loader: MultimodalLoader,
    s3_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two shards are fetched a second time: one was refused, of one half arrived."""
    bad = {"train-000001.tar": "busy", "train-000003.tar": "cut"}

    def weather(number: int, path: str) -> str:
        return bad.pop(path.rpartition("/")[2], "fair")

    expected = list(batches(loader.open(here)))
    with weather_before(s3_server, weather) as (endpoint, happened):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        storage._filesystem_of.cache_clear()
        try:
            dataset = replace(loader, workers=1).open(there)
            found = list(batches(dataset))
            dataset.close()
        finally:
            storage._filesystem_of.cache_clear()
    assert equal(found, expected)
    assert sorted(happened)[:2] == ["busy", "cut"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_flipped_byte_in_a_bucket_is_refused_by_name(
    there: Inputs, loader: MultimodalLoader, workers: int
) -> None:
    url = storage.join(there["shard"].url, "train/train-000002.tar")
    data = bytearray(storage.read(url))
    data[data.index(SAMPLES[12].parts["jpg"]) + 99] ^= 16
    storage.write(url, bytes(data))
    dataset = replace(loader, workers=workers).open(there)
    with pytest.raises(IntegrityError, match=r"train-000002.tar holds other bytes"):
        list(batches(dataset))
    dataset.close()


def test_a_copy_that_has_gone_bad_is_fetched_again(
    here: Inputs, there: Inputs, loader: MultimodalLoader
) -> None:
    first = loader.open(there)
    list(batches(first))
    first.close()
    for name in os.listdir(loader.cache_directory):
        if not name.startswith(".lock-"):
            path = Path(loader.cache_directory, name)
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
    again = loader.open(there)
    assert equal(list(batches(again)), list(batches(loader.open(here))))
    again.close()


def test_a_small_cache_stays_within_its_bound(
    here: Inputs, there: Inputs, loader: MultimodalLoader
) -> None:
    largest = max(
        os.path.getsize(Path(here["shard"].url, f"train/train-{n:06d}.tar")) for n in range(8)
    )
    small = replace(loader, max_disk_cache_bytes=2 * largest, max_cache_bytes=0)
    dataset = small.open(there)
    expected = list(batches(loader.open(here)))
    for number, batch in enumerate(batches(dataset)):
        assert equal([batch], [expected[number]])
        sizes = [entry.stat().st_size for entry in os.scandir(loader.cache_directory)]
        assert sum(sizes) <= 2 * largest
    dataset.close()
