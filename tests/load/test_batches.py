import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shards import Stored, coloured_samples, write_inputs

from mmcore.core.loader import Batch, Loader, OpenLoader
from mmcore.core.step import Inputs
from mmcore.errors import ConfigError, IntegrityError, StepError
from mmcore.load.augment import AudioAugment, ImageAugment, TextAugment
from mmcore.load.batches import MultimodalLoader
from mmcore.load.mix import Curriculum, MixedDataset
from mmcore.load.sampler import Shuffle

SAMPLES = coloured_samples({"test": 5, "train": 14, "val": 3})
LOADER = MultimodalLoader(image_side=16, num_mels=8, max_tokens=6, workers=0)
"""What a reader process makes of it is compared in `test_reader`."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return write_inputs(tmp_path_factory.mktemp("loader"), SAMPLES)


def one_epoch(
    loader: OpenLoader, *, num_ranks: int, seed: int = 0, epoch: int = 0
) -> list[list[Batch]]:
    """The batches of each rank."""
    return [
        list(
            loader.epoch(
                "train",
                seed=seed,
                epoch=epoch,
                global_batch_size=4,
                rank=rank,
                num_ranks=num_ranks,
            )
        )
        for rank in range(num_ranks)
    ]


def rows(batches: list[Batch], name: str) -> dict[str, np.ndarray]:
    return {
        key: row
        for batch in batches
        for key, row in zip(batch.keys, batch.arrays[name], strict=True)
    }


def test_it_is_what_training_and_evaluation_ask_for(inputs: Inputs) -> None:
    loader: Loader = LOADER
    dataset: OpenLoader = loader.open(inputs)
    assert dataset.labels == ["blue", "green", "red"]
    assert dataset.vocab_size > 4
    assert [info.key for info in dataset.samples("val")] == ["val-000", "val-001", "val-002"]
    assert dataset.parts("val-000")["txt"] == b"a blue circle 0"


def test_a_batch_has_the_shapes_and_types_of_the_contract(inputs: Inputs) -> None:
    (batch, *_) = LOADER.open(inputs).in_order("train", batch_size=4)
    found = {name: (array.dtype.name, array.shape) for name, array in batch.arrays.items()}
    num_tokens = batch.arrays["text_ids"].shape[1]
    num_frames = batch.arrays["audio_mel"].shape[1]
    assert found == {
        "image": ("uint8", (4, 16, 16, 3)),
        "has_image": ("bool", (4,)),
        "text_ids": ("int64", (4, num_tokens)),
        "text_mask": ("bool", (4, num_tokens)),
        "has_text": ("bool", (4,)),
        "audio_mel": ("float32", (4, num_frames, 8)),
        "audio_mask": ("bool", (4, num_frames)),
        "has_audio": ("bool", (4,)),
        "label": ("int64", (4,)),
        "group": ("int64", (4,)),
    }


def test_masks_cover_exactly_what_each_sample_holds(inputs: Inputs) -> None:
    (batch,) = LOADER.open(inputs).in_order("test", batch_size=10)
    # 1,600 samples and 160 more each, at a hop of 20 ms: 1 + n // 320 frames
    assert batch.arrays["audio_mask"].sum(axis=1).tolist() == [6, 6, 7, 7, 8]
    assert not batch.arrays["audio_mel"][~batch.arrays["audio_mask"]].any()
    assert not batch.arrays["text_ids"][~batch.arrays["text_mask"]].any()
    assert (batch.arrays["text_ids"][:, 0] == 2).all()  # [CLS]


def test_in_order_yields_every_sample_once_the_last_batch_short(inputs: Inputs) -> None:
    batches = list(LOADER.open(inputs).in_order("train", batch_size=4))
    assert [len(batch.keys) for batch in batches] == [4, 4, 4, 2]
    assert [key for batch in batches for key in batch.keys] == [
        sample.key for sample in SAMPLES if sample.split == "train"
    ]


def test_labels_and_groups_say_what_belongs_together(inputs: Inputs) -> None:
    (batch,) = LOADER.open(inputs).in_order("train", batch_size=20)
    captions = {sample.key: sample.meta for sample in SAMPLES}
    for first, group, label in zip(
        batch.keys, batch.arrays["group"], batch.arrays["label"], strict=True
    ):
        assert ["blue", "green", "red"][label] == captions[first]["label"]
        for second, other in zip(batch.keys, batch.arrays["group"], strict=True):
            same = captions[first]["caption_group"] == captions[second]["caption_group"]
            assert (group == other) == same


@pytest.mark.parametrize("num_ranks", [2, 4])
@pytest.mark.parametrize("name", ["image", "label", "group", "has_audio"])
def test_any_number_of_ranks_gives_the_same_augmented_samples(
    inputs: Inputs, num_ranks: int, name: str
) -> None:
    (alone,) = one_epoch(LOADER.open(inputs), num_ranks=1)
    together = one_epoch(LOADER.open(inputs), num_ranks=num_ranks)
    joined = {key: row for rank in together for key, row in rows(rank, name).items()}
    expected = rows(alone, name)
    assert joined.keys() == expected.keys()
    assert all((joined[key] == expected[key]).all() for key in expected)
    order = [[key for batch in step for key in batch.keys] for step in zip(*together, strict=True)]
    assert order == [list(batch.keys) for batch in alone]


def test_the_cache_changes_nothing(inputs: Inputs) -> None:
    small = replace(LOADER, max_cache_bytes=2_000)
    kept, forgotten = LOADER.open(inputs), small.open(inputs)
    for epoch in range(2):
        first = rows(one_epoch(kept, num_ranks=1, epoch=epoch)[0], "image")
        second = rows(one_epoch(forgotten, num_ranks=1, epoch=epoch)[0], "image")
        assert all((first[key] == second[key]).all() for key in first)
    assert small.identity() == LOADER.identity()


def test_the_cache_stays_within_its_limit(inputs: Inputs) -> None:
    dataset = replace(LOADER, max_cache_bytes=5_000).open(inputs)
    for _ in dataset.in_order("train", batch_size=4):
        assert dataset._decoder.num_kept_bytes <= 5_000
    kept = dataset._decoder._kept.values()
    assert 0 < dataset._decoder.num_kept_bytes == sum(one.num_bytes for one in kept)


def test_epochs_differ_in_order_and_in_augmentation(inputs: Inputs) -> None:
    dataset = LOADER.open(inputs)
    (first,), (second,) = (one_epoch(dataset, num_ranks=1, epoch=epoch) for epoch in (0, 1))
    assert [batch.keys for batch in first] != [batch.keys for batch in second]
    before, after = rows(first, "image"), rows(second, "image")
    both = before.keys() & after.keys()
    assert any((before[key] != after[key]).any() for key in both)


def test_training_goes_on_in_the_middle_of_an_epoch(inputs: Inputs) -> None:
    dataset = LOADER.open(inputs)
    arguments = {"seed": 0, "epoch": 0, "global_batch_size": 4, "rank": 0, "num_ranks": 1}
    whole = list(dataset.epoch("train", **arguments))
    rest = list(dataset.epoch("train", **arguments, first_step=2))
    assert [batch.keys for batch in rest] == [batch.keys for batch in whole[2:]]
    assert (rest[0].arrays["image"] == whole[2].arrays["image"]).all()


def test_a_missing_modality_is_zeros_under_a_false_mask(tmp_path: Path) -> None:
    samples = coloured_samples({"train": 3})
    without = {"jpg": "has_image", "txt": "has_text", "flac": "has_audio"}
    lacking = [
        Stored(s.key, s.split, {e: d for e, d in s.parts.items() if e != extension}, s.meta)
        for s, extension in zip(samples, without, strict=True)
    ]
    (batch,) = LOADER.open(write_inputs(tmp_path, lacking)).in_order("train", batch_size=3)
    assert batch.arrays["has_image"].tolist() == [False, True, True]
    assert batch.arrays["has_text"].tolist() == [True, False, True]
    assert batch.arrays["has_audio"].tolist() == [True, True, False]
    assert not batch.arrays["image"][0].any()
    assert not batch.arrays["text_mask"][1].any()
    assert not batch.arrays["audio_mask"][2].any()
    augmented = LOADER.open(write_inputs(tmp_path, lacking)).epoch(
        "train", seed=0, epoch=0, global_batch_size=3, rank=0, num_ranks=1
    )
    assert sum(int(b.arrays["has_image"].sum()) for b in augmented) == 2


def test_a_sample_without_label_or_group_stands_alone(tmp_path: Path) -> None:
    samples = coloured_samples({"train": 4})
    bare = [Stored(s.key, s.split, s.parts, {}) for s in samples[:2]] + samples[2:]
    (batch,) = LOADER.open(write_inputs(tmp_path, bare)).in_order("train", batch_size=4)
    assert batch.arrays["label"][:2].tolist() == [-1, -1]
    assert len(set(batch.arrays["group"].tolist())) == 4


def test_a_picture_of_another_size_is_resized(inputs: Inputs) -> None:
    loader = replace(LOADER, image_side=24)
    (batch, *_) = loader.open(inputs).in_order("val", batch_size=3)
    assert batch.arrays["image"].shape == (3, 24, 24, 3)


def test_long_captions_and_sounds_are_cut(inputs: Inputs) -> None:
    loader = replace(LOADER, max_tokens=4, max_seconds=0.05)
    (batch,) = loader.open(inputs).in_order("train", batch_size=20)
    assert batch.arrays["text_mask"].sum(axis=1).max() == 4
    assert batch.arrays["audio_mask"].sum(axis=1).max() == 1 + 800 // 320


def test_a_part_that_cannot_be_decoded_says_which(tmp_path: Path) -> None:
    (sample,) = coloured_samples({"train": 1})
    broken = Stored(sample.key, "train", {**sample.parts, "jpg": b"not a picture"}, sample.meta)
    dataset = LOADER.open(write_inputs(tmp_path, [broken]))
    with pytest.raises(IntegrityError, match=r"train-000 in train/train-000000.tar .* cannot be"):
        list(dataset.in_order("train", batch_size=1))


def test_every_setting_that_changes_batches_is_in_the_identity() -> None:
    changed = [
        replace(LOADER, image_side=32),
        replace(LOADER, max_seconds=1.0),
        replace(LOADER, image_augment=ImageAugment(flip=0)),
        replace(LOADER, audio_augment=AudioAugment(speed=0)),
        replace(LOADER, text_augment=TextAugment(token_dropout=0.1)),
        replace(LOADER, shuffle=Shuffle(block_samples=2)),
        replace(LOADER, requires=("audio",)),
        replace(LOADER, length_batches=4),
        replace(LOADER, pack_tokens=16),
        replace(LOADER, curriculum=Curriculum(score="sharpness", epochs=3)),
        replace(LOADER, mix={"own": MixedDataset(weight=1.0)}),
    ]
    identities = [json.dumps(one.identity(), sort_keys=True) for one in (LOADER, *changed)]
    assert len(set(identities)) == len(identities)


def test_where_it_is_read_is_in_no_identity() -> None:
    elsewhere = [
        replace(LOADER, workers=0),
        replace(LOADER, num_slots=9),
        replace(LOADER, max_cache_bytes=0),
        replace(LOADER, cache_directory="/somewhere", max_disk_cache_bytes=1 << 30),
    ]
    assert all(other.identity() == LOADER.identity() for other in elsewhere)
    ours, theirs = (
        replace(LOADER, mix={"a": MixedDataset(url=f"{root}/ds/birds/{'0' * 16}")}).identity()
        for root in ("s3://bucket", "/data")
    )
    assert ours == theirs


def test_a_size_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"loader.image_side=0"):
        MultimodalLoader(image_side=0)


def test_samples_without_what_is_required_are_passed_over(tmp_path: Path) -> None:
    mute = [
        replace(one, parts={name: data for name, data in one.parts.items() if name != "flac"})
        if index % 2
        else one
        for index, one in enumerate(SAMPLES)
    ]
    inputs = write_inputs(tmp_path, mute)
    with_sound = {one.key for one in mute if "flac" in one.parts}
    all_of_them = LOADER.open(inputs)
    loader = replace(LOADER, requires=("audio",)).open(inputs)
    for split in ("train", "val", "test"):
        wanted = [one.key for one in all_of_them.samples(split) if one.key in with_sound]
        assert [one.key for one in loader.samples(split)] == wanted
        batches = list(loader.in_order(split, batch_size=4))
        assert [key for batch in batches for key in batch.keys] == wanted
        assert all(batch.arrays["has_audio"].all() for batch in batches)
    assert loader.num_steps("train", global_batch_size=4) == 1
    (only,) = one_epoch(loader, num_ranks=1)
    assert {key for batch in only for key in batch.keys} <= with_sound
    # without it, what lacks is zeros
    (batch,) = all_of_them.in_order("val", batch_size=4)
    lacking = ~batch.arrays["has_audio"]
    assert lacking.any()
    assert not batch.arrays["audio_mel"][lacking].any()


def test_required_modalities_that_nobody_has_are_refused(inputs: Inputs) -> None:
    loader = replace(LOADER, requires=("video",)).open(inputs)
    with pytest.raises(StepError, match=r"none of the 14 samples .* has video"):
        loader.num_steps("train", global_batch_size=4)
    with pytest.raises(ConfigError, match="'sound', which is no modality"):
        replace(LOADER, requires=("sound",))
