import json
import re
import sqlite3
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from ruamel.yaml import YAML

SPLIT_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")


@pytest.fixture
def dataset(published: Callable[..., Any], make_sample: Callable[..., Any]) -> Path:
    samples = [make_sample(i, split="test" if i % 5 == 0 else "train") for i in range(30)]
    path: Path = published(samples).path
    return path


def shard_names(dataset: Path) -> list[str]:
    return [str(path.relative_to(dataset)) for path in sorted(dataset.rglob("*.tar"))]


def prepared(dataset: Path) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return the rows that `energon prepare` derives from the tars themselves."""
    samples: list[tuple[Any, ...]] = []
    parts: list[tuple[Any, ...]] = []
    for tar_id, name in enumerate(shard_names(dataset)):
        with tarfile.open(dataset / name) as archive:
            members = archive.getmembers()
            end = archive.offset
        starts: list[tuple[str, int]] = []
        for member in members:
            matched = SPLIT_NAME.match(member.name)
            assert matched is not None
            key, extension = matched.groups()
            if not starts or starts[-1][0] != key:
                starts.append((key, member.offset))
            parts.append((tar_id, len(starts) - 1, extension, member.offset_data, member.size))
        ends = [*(offset for _, offset in starts[1:]), end]
        for index, ((key, offset), stop) in enumerate(zip(starts, ends, strict=True)):
            samples.append((tar_id, key, index, offset, stop - offset))
    return samples, parts


def test_rows_are_those_that_prepare_derives_from_the_tars(dataset: Path) -> None:
    samples, parts = prepared(dataset)
    with sqlite3.connect(dataset / ".nv-meta/index.sqlite") as database:
        assert list(database.execute("SELECT * FROM samples ORDER BY rowid")) == samples
        assert list(database.execute("SELECT * FROM sample_parts ORDER BY rowid")) == parts
        (state,) = database.execute("PRAGMA integrity_check").fetchone()
        names = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
    assert state == "ok"
    assert {
        "idx_samples_by_tar_and_idx",
        "idx_sample_parts_seq",
        "idx_sample_parts_full",
    } <= names


def test_keys_are_unique_in_the_index(dataset: Path) -> None:
    with sqlite3.connect(dataset / ".nv-meta/index.sqlite") as database:
        row = database.execute("SELECT * FROM samples").fetchone()
        with pytest.raises(sqlite3.IntegrityError):
            database.execute("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", row)


def test_tar_index_has_each_first_header_and_the_end(dataset: Path) -> None:
    samples, _ = prepared(dataset)
    for tar_id, name in enumerate(shard_names(dataset)):
        of_shard = [row for row in samples if row[0] == tar_id]
        expected = [row[3] for row in of_shard] + [of_shard[-1][3] + of_shard[-1][4]]
        data = (dataset / f"{name}.idx").read_bytes()
        assert list(struct.unpack(f"{len(data) // 8}Q", data)) == expected


def test_info_and_splits_name_every_shard_in_the_order_of_their_ids(dataset: Path) -> None:
    info = json.loads((dataset / ".nv-meta/.info.json").read_text())
    assert info.keys() == {"energon_version", "shard_counts"}
    assert list(info["shard_counts"]) == shard_names(dataset)
    assert sum(info["shard_counts"].values()) == 30
    splits = YAML(typ="safe").load(dataset / ".nv-meta/split.yaml")
    assert splits.keys() == {"split_parts", "exclude"}
    assert splits["exclude"] == []
    assert sorted(splits["split_parts"]) == ["test", "train"]
    assert [name for names in splits["split_parts"].values() for name in names] == (
        shard_names(dataset)
    )


def test_dataset_is_crude_and_its_id_is_a_uuid(dataset: Path) -> None:
    view = YAML(typ="safe").load(dataset / ".nv-meta/dataset.yaml")
    assert view == {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}
    assert UUID((dataset / ".nv-meta/index.uuid").read_text()).version == 5
