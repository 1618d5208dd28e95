import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shards import coloured_samples, write_dataset, write_inputs

from mmcore.core.manifest import commit_manifest
from mmcore.core.step import Artifact, Inputs
from mmcore.errors import ConfigError
from mmcore.load.batches import MultimodalLoader, OpenMultimodal
from mmcore.load.mix import Curriculum, MixedDataset
from mmcore.sample import sha256_hex

OWN = coloured_samples({"train": 24, "val": 4})
OTHER = coloured_samples({"train": 12, "val": 9})
VERSION = "f" * 16
LOADER = MultimodalLoader(image_side=16, num_mels=8, max_tokens=6, workers=0)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return write_inputs(tmp_path / "own", OWN)


@pytest.fixture
def other(tmp_path: Path) -> str:
    artifact = write_dataset(tmp_path / "ds" / "other" / VERSION, OTHER)
    commit_manifest(artifact.url, artifact.manifest)
    return artifact.url


def keys(dataset: OpenMultimodal, *, epoch: int = 0, size: int = 6) -> list[str]:
    batches = dataset.epoch(
        "train", seed=0, epoch=epoch, global_batch_size=size, rank=0, num_ranks=1
    )
    return [key for batch in batches for key in batch.keys]


def test_an_epoch_draws_of_each_dataset_by_weight(inputs: Inputs, other: str) -> None:
    mix = {"own": MixedDataset(weight=3.0), "other": MixedDataset(url=other, weight=1.0)}
    dataset = replace(LOADER, mix=mix).open(inputs)
    assert dataset.num_steps("train", global_batch_size=6) == 6  # 36 samples are there
    read = keys(dataset)
    assert Counter(key.startswith("other/") for key in read) == {False: 27, True: 9}
    # over the epochs all of the other, none twice before all of them
    three = [k for e in range(4) for k in keys(dataset, epoch=e) if k.startswith("other/")]
    assert set(Counter(three).values()) == {3}


def test_repeats_read_a_dataset_so_often(inputs: Inputs, other: str) -> None:
    mix = {"own": MixedDataset(), "other": MixedDataset(url=other, repeats=2.0)}
    counts = Counter(keys(replace(LOADER, mix=mix).open(inputs)))
    assert {key: num for key, num in counts.items() if key.startswith("other/")} == {
        f"other/{sample.key}": 2 for sample in OTHER if sample.split == "train"
    }
    assert all(num == 1 for key, num in counts.items() if not key.startswith("other/"))


def test_a_sample_that_comes_twice_is_augmented_differently(inputs: Inputs) -> None:
    dataset = replace(LOADER, mix={"own": MixedDataset(repeats=2.0)}).open(inputs)
    pictures: dict[str, list[np.ndarray]] = {}
    for batch in dataset.epoch("train", seed=0, epoch=0, global_batch_size=6, rank=0, num_ranks=1):
        for key, image in zip(batch.keys, batch.arrays["image"], strict=True):
            pictures.setdefault(key, []).append(image)
    assert all((first != second).any() for first, second in pictures.values())


def test_what_a_model_is_judged_on_is_the_recipes_own(inputs: Inputs, other: str) -> None:
    dataset = replace(LOADER, mix={"other": MixedDataset(url=other)}).open(inputs)
    assert len(dataset.samples("val")) == 4
    assert sum(len(batch.keys) for batch in dataset.in_order("val", batch_size=3)) == 4
    assert len(dataset.samples("train")) == 12


def test_any_sample_of_a_mix_is_found_by_its_key(inputs: Inputs, other: str) -> None:
    dataset = replace(LOADER, mix={"other": MixedDataset(url=other)}).open(inputs)
    for info in dataset.samples("train"):
        sample = next(one for one in OTHER if f"other/{one.key}" == info.key)
        assert dataset.parts(info.key) == sample.parts
    assert dataset.parts("val-001") == next(one for one in OWN if one.key == "val-001").parts


def test_a_mix_is_read_alike_by_any_number_of_ranks(inputs: Inputs, other: str) -> None:
    mix = {"own": MixedDataset(weight=1.0), "other": MixedDataset(url=other, weight=1.0)}
    dataset = replace(LOADER, mix=mix, length_batches=3).open(inputs)
    alone = keys(dataset, epoch=2)
    arguments = {"seed": 0, "epoch": 2, "global_batch_size": 6, "num_ranks": 3}
    steps = [
        [list(batch.keys) for batch in dataset.epoch("train", rank=rank, **arguments)]
        for rank in range(3)
    ]
    together = [key for ranks in zip(*steps, strict=True) for rank in ranks for key in rank]
    assert together == alone


def test_another_version_than_the_named_one_is_refused(inputs: Inputs, other: str) -> None:
    mix = {"other": MixedDataset(url=other, version="0" * 16)}
    with pytest.raises(ConfigError, match=rf"loader.mix.other: at .* {VERSION}, not 0000"):
        replace(LOADER, mix=mix).open(inputs)
    nowhere = {"other": MixedDataset(url=f"{other}/{VERSION}")}
    with pytest.raises(ConfigError, match="there is no dataset version at"):
        replace(LOADER, mix=nowhere).open(inputs)


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({"a": MixedDataset(weight=1.0), "b": MixedDataset()}, "a has a weight and b has not"),
        ({"a": MixedDataset(weight=1.0, repeats=2.0)}, "a has a weight and a has not"),
        ({"a": MixedDataset(weight=0.0)}, "loader.mix.a: 0. Use more than 0"),
        ({"a": MixedDataset(repeats=-1.0)}, "loader.mix.a: -1. Use more"),
        ({"a/b": MixedDataset()}, "'a/b' is no name"),
        ({"a": MixedDataset(), "b": MixedDataset()}, "a and b are both the recipe's own"),
        ({"a": MixedDataset(url="s3://bucket/birds")}, "does not end in a version"),
    ],
)
def test_a_mix_that_says_nothing_or_contradicts_itself_is_refused(
    mix: dict[str, MixedDataset], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(LOADER, mix=mix)


def with_scores(inputs: Inputs, scores: dict[str, float]) -> Inputs:
    """The dataset with a score in its table, as stages store them."""
    table = Path(inputs["shard"].url, "manifest.parquet")
    rows = pq.read_table(table).to_pylist()
    kind = pa.map_(pa.string(), pa.float64())
    each = [[("size", scores[r["key"]])] if r["key"] in scores else [] for r in rows]
    found = pa.Table.from_pylist(rows).append_column("scores", pa.array(each, kind))
    pq.write_table(found, table)
    manifest = inputs["shard"].manifest
    (record,) = manifest.files
    record = replace(record, sha256=sha256_hex(table.read_bytes()))
    artifact = Artifact(inputs["shard"].url, replace(manifest, files=(record,)))
    return replace(inputs, artifacts={**inputs.artifacts, "shard": artifact})


@pytest.mark.parametrize("hard_is", ["high", "low"])
def test_easy_samples_come_first(inputs: Inputs, hard_is: str) -> None:
    ranked = [f"train-{n:03d}" for n in range(20)]  # four have no score
    sign = 1 if hard_is == "high" else -1
    scored = with_scores(inputs, {key: sign * number for number, key in enumerate(ranked)})
    curriculum = Curriculum(score="size", epochs=2, start=0.25, hard_is=hard_is)  # type: ignore[arg-type]
    dataset = replace(LOADER, curriculum=curriculum).open(scored)
    assert set(keys(dataset)) == set(ranked[:6])
    assert set(keys(dataset, epoch=1)) == set(ranked[:15])
    assert len(keys(dataset)) == len(keys(dataset, epoch=2)) == len(set(keys(dataset, epoch=2)))


def test_a_score_that_nobody_has_names_those_there_are(inputs: Inputs) -> None:
    scored = with_scores(inputs, {"train-001": 1.0})
    dataset = replace(LOADER, curriculum=Curriculum(score="length", epochs=1)).open(scored)
    with pytest.raises(ConfigError, match=r"no sample of .* has the score 'length'. It has size"):
        dataset.num_steps("train", global_batch_size=4)


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="a share above 0"):
        Curriculum(score="size", epochs=3, start=0.0)


def test_the_identity_of_a_mix_is_json() -> None:
    mix = {"a": MixedDataset(url=f"/data/{VERSION}", weight=2.0)}
    curriculum = Curriculum(score="size", epochs=2)
    loader = replace(LOADER, mix=mix, curriculum=curriculum)
    found = json.loads(json.dumps(loader.identity()))
    assert found["mix"] == {"a": {"version": VERSION, "weight": 2.0, "repeats": None}}
    assert found["curriculum"]["score"] == "size"
