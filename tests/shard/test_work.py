import json
import random
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mmcore.core.rows import read_rows
from mmcore.core.step import Artifact, Inputs, TaskContext
from mmcore.errors import AccountingError, ConfigError, IntegrityError
from mmcore.sample import Sample, sha256_hex
from mmcore.shard.reader import find_sample, read_part, read_samples
from mmcore.shard.work import ShardWork

MakeSample = Callable[..., Sample]
Publish = Callable[..., Any]
WORK = ShardWork(name="tiny", samples_per_shard=8)


@pytest.fixture
def samples(make_sample: MakeSample) -> list[Sample]:
    splits = ["train", "train", "train", "val", "test"]
    return [make_sample(i, split=splits[i % 5]) for i in range(40)]


def test_any_order_of_samples_and_tasks_gives_the_same_bytes(
    published: Publish, samples: list[Sample]
) -> None:
    one = published(samples[:15], samples[15:])
    shuffled = random.Random(7).sample(samples, k=len(samples))
    two = published(shuffled[:25], shuffled[25:], backwards=True)
    assert one.hashes() == two.hashes()
    assert one.manifest.facts == two.manifest.facts


def test_every_part_is_found_at_its_offset(published: Publish, samples: list[Sample]) -> None:
    dataset = published(samples)
    stored = read_samples(str(dataset.path))
    assert {sample.key for sample in stored} == {sample.key for sample in samples}
    for sample in samples:
        found = find_sample(str(dataset.path), sample.key)
        assert found is not None
        assert found.split == sample.meta["split"]
        assert found.meta == sample.meta
        assert found.scores == sample.scores
        for extension, part in sample.parts.items():
            data = read_part(str(dataset.path), found, extension)
            assert data == part.data
            assert sha256_hex(data) == next(
                part.sha256 for part in found.parts if part.extension == extension
            )
        known = json.loads(read_part(str(dataset.path), found, "json"))
        assert known == {**sample.meta, "scores": sample.scores}


def test_table_is_sorted_and_agrees_with_the_tars(
    published: Publish, samples: list[Sample]
) -> None:
    dataset = published(samples)
    table = pq.read_table(dataset.path / "manifest.parquet").to_pylist()
    places = [(row["shard"], row["index"]) for row in table]
    assert places == sorted(places)
    for shard in sorted({row["shard"] for row in table}):
        of_shard = [row for row in table if row["shard"] == shard]
        assert [row["index"] for row in of_shard] == list(range(len(of_shard)))
        with tarfile.open(dataset.path / shard) as archive:
            members = [(member.name, member.offset_data, member.size) for member in archive]
        assert members == [
            (f"{row['key']}.{part['extension']}", part["offset"], part["num_bytes"])
            for row in of_shard
            for part in row["parts"]
        ]


def test_parts_of_a_sample_lie_in_sorted_order(published: Publish, samples: list[Sample]) -> None:
    voiced = [sample.with_part("effect.ogg", b"boom") for sample in samples]
    dataset = published(voiced)
    for sample in read_samples(str(dataset.path)):
        extensions = [part.extension for part in sample.parts]
        assert extensions == ["effect.ogg", "json", "png", "txt"]


def test_facts_count_what_was_written(published: Publish, samples: list[Sample]) -> None:
    dataset = published(samples)
    tars = list(dataset.path.rglob("*.tar"))
    assert dataset.manifest.facts == {
        "num_samples": {"test": 8, "train": 24, "val": 8},
        "num_shards": 5,
        "num_bytes": sum(path.stat().st_size for path in tars),
        "extensions": ["json", "png", "txt"],
        "labels": {"class-0": 14, "class-1": 13, "class-2": 13},
        "schema": {
            "fields": {"label": "str", "split": "str", "split_group": "str"},
            "scores": ["sharpness"],
        },
        "increments": [
            {
                "dataset": "",  # this test runs the work alone, without a fingerprint
                "num_samples": {"test": 8, "train": 24, "val": 8},
                "num_shards": {"test": 1, "train": 3, "val": 1},
            }
        ],
    }
    assert (dataset.manifest.counts.found, dataset.manifest.counts.kept) == (40, 40)


def test_sample_that_does_not_fit_is_counted_and_can_be_explained(
    published: Publish, samples: list[Sample]
) -> None:
    mute = replace(samples[7].without_part("txt"), key="mute")
    nameless = replace(samples[8], key="not a name")
    dataset = published([mute, *samples, nameless])
    counts = dataset.manifest.counts
    assert (counts.found, counts.kept) == (42, 40)
    assert counts.dropped == {"parts_differ": 1}
    assert counts.quarantined == {"member_name_unfit": 1}
    rows = read_rows(Artifact(str(dataset.path), dataset.manifest))
    assert {(row.sample.key, row.status, row.rule) for row in rows} == {
        ("mute", "dropped", "same_parts"),
        ("not a name", "quarantined", "member_name"),
    }
    assert find_sample(str(dataset.path), "mute") is None


def test_scratch_tables_are_not_part_of_the_dataset(
    published: Publish, samples: list[Sample]
) -> None:
    paths = published(samples).hashes()
    assert [path for path in paths if path.endswith(".parquet")] == ["manifest.parquet"]


def test_planted_leak_is_refused_before_anything_is_written(
    encoded: Callable[..., Inputs], samples: list[Sample]
) -> None:
    inputs = encoded([*samples[:39], samples[39].with_meta(split_group="k000")])
    with pytest.raises(IntegrityError, match="k000 in train"):
        WORK.tasks(inputs)


def test_equal_bytes_on_both_sides_are_refused_where_asked_for(
    encoded: Callable[..., Inputs], make_sample: MakeSample
) -> None:
    inputs = encoded([make_sample(1, text="same"), make_sample(2, text="same", split="test")])
    WORK.tasks(inputs)
    with pytest.raises(IntegrityError, match="leak between splits"):
        replace(WORK, together=("text",)).tasks(inputs)


def test_samples_of_two_splits_that_encoding_made_equal_are_left_out_but_for_one(
    encoded: Callable[..., Inputs], make_sample: MakeSample
) -> None:
    splits = ["val", "train", "test", "test", "train"]
    came = [
        make_sample(number, text="same", split=split).with_meta(original_sha256={"ogg": "x", "txt": number})
        for number, split in enumerate(splits)
    ]  # fmt: skip
    tasks = replace(WORK, together=("text",)).tasks(encoded([*came, make_sample(9, text="other")]))
    left_out: Any = next(task.payload for task in tasks if "left-out" in task.name)
    said = [(one["key"], one["reason"], one["detail"]) for one in left_out["left_out"]]
    assert said == [
        (f"k{number:03d}", "equal_after_encoding", "its text is that of k000 in val")
        for number in (1, 2, 3, 4)
    ]


def test_samples_of_two_splits_that_were_one_file_are_a_leak(
    encoded: Callable[..., Inputs], make_sample: MakeSample
) -> None:
    came = [
        make_sample(number, text="same", split=split).with_meta(original_sha256={"txt": "x"})
        for number, split in enumerate(["val", "train"])
    ]
    with pytest.raises(IntegrityError, match="leak between splits"):
        replace(WORK, together=("text",)).tasks(encoded(came))


def test_finish_refuses_a_leak_in_what_was_written(
    encoded: Callable[..., Inputs], samples: list[Sample], tmp_path: Path
) -> None:
    inputs = encoded([samples[0], samples[3].with_meta(split_group="k000")])
    context = TaskContext(inputs=inputs, output_url=str(tmp_path / "out"), root=str(tmp_path))
    careless = replace(WORK, samples_per_shard=4)
    sound = encoded([samples[0], samples[3]])
    tasks = careless.tasks(sound)
    planted = [
        replace(task, payload=json.loads(json.dumps(task.payload).replace("k003", "k000")))
        for task in tasks
    ]
    sound_context = replace(context, inputs=sound)
    reports = [careless.run(task, sound_context) for task in planted]
    with pytest.raises(IntegrityError, match="leak between splits"):
        careless.finish(reports, sound_context)


def test_finish_refuses_a_table_that_lost_a_sample(
    encoded: Callable[..., Inputs], samples: list[Sample], tmp_path: Path
) -> None:
    inputs = encoded(samples)
    context = TaskContext(inputs=inputs, output_url=str(tmp_path / "out"), root=str(tmp_path))
    reports = [WORK.run(task, context) for task in WORK.tasks(inputs)]
    table = tmp_path / "out/_tasks/train-000000.parquet"
    pq.write_table(pq.read_table(table).slice(1), table)
    with pytest.raises(AccountingError, match=r"train-000000\.tar holds 8 samples and its table 7"):
        WORK.finish(reports, context)


def test_changed_input_bytes_are_an_error(
    encoded: Callable[..., Inputs], samples: list[Sample], tmp_path: Path
) -> None:
    inputs = encoded(samples)
    task = WORK.tasks(inputs)[0]
    blob = Path(inputs["encode"].url) / "part-000000.bin"
    blob.write_bytes(blob.read_bytes()[::-1])
    context = TaskContext(inputs=inputs, output_url=str(tmp_path / "out"), root=str(tmp_path))
    with pytest.raises(IntegrityError, match="other bytes"):
        WORK.run(task, context)


def test_changed_shard_bytes_are_an_error(published: Publish, samples: list[Sample]) -> None:
    dataset = published(samples)
    found = find_sample(str(dataset.path), "k020")
    assert found is not None
    shard = dataset.path / found.shard
    shard.write_bytes(shard.read_bytes().replace(b"caption 20", b"caption 21"))
    with pytest.raises(IntegrityError, match=r"k020\.txt"):
        read_part(str(dataset.path), found, "txt")


def test_key_that_is_not_there_is_none(published: Publish, samples: list[Sample]) -> None:
    assert find_sample(str(published(samples).path), "k999") is None


@pytest.mark.parametrize("field", ["samples_per_shard", "max_shard_bytes"])
def test_shard_of_nothing_is_a_config_error(field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        replace(WORK, **{field: 0})  # type: ignore[arg-type]


def test_samples_may_lack_optional_parts_and_the_dataset_says_which(
    published: Publish, samples: list[Sample]
) -> None:
    sparse = [one.with_part("wav", b"sound") if i % 3 else one for i, one in enumerate(samples)]
    dataset = published(sparse, work=replace(WORK, optional=("audio",)))
    facts = dataset.manifest.facts
    assert facts["extensions"] == ["json", "png", "txt", "wav"]
    assert facts["optional_extensions"] == ["wav"]
    stored = {
        one.key: {part.extension for part in one.parts} for one in read_samples(str(dataset.path))
    }
    assert stored == {one.key: {*one.parts, "json"} for one in sparse}
    card = (dataset.path / "README.md").read_text()
    assert "Every sample has the parts json, png, txt; some lack wav." in card


def test_optional_parts_that_nobody_declares_are_no_part_of_the_identity() -> None:
    assert "optional" not in WORK.identity()
    assert replace(WORK, optional=("audio",)).identity()["optional"] == ["audio"]
    with pytest.raises(ConfigError, match="'sound', which is no modality"):
        replace(WORK, optional=("sound",))
