import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML


@pytest.fixture
def dataset(published: Callable[..., Any], make_sample: Callable[..., Any]) -> Path:
    path: Path = published(
        [make_sample(i, split="val" if i % 5 == 0 else "train") for i in range(30)]
    ).path
    return path


def shards(dataset: Path) -> list[Path]:
    return sorted(dataset.rglob("*.tar"))


def test_dali_index_says_where_each_part_lies(dataset: Path) -> None:
    for path in shards(dataset):
        tar = path.read_bytes()
        header, *lines = path.with_suffix(".idx").read_text("ascii").splitlines()
        assert header == f"v1.2 {len(lines)}"
        for line in lines:
            fields = line.split(" ")
            parts = [fields[i : i + 4] for i in range(0, len(fields), 4)]
            assert [part[0] for part in parts] == ["json", "png", "txt"]
            for extension, offset, num_bytes, name in parts:
                assert tar[int(offset) - 512 :].startswith(f"{name}\0".encode())
                assert name.endswith(f".{extension}")
                if extension == "txt":
                    caption = tar[int(offset) : int(offset) + int(num_bytes)].decode()
                    assert caption == f"caption {int(name[1:4])}"


def test_open_clip_finds_the_size_of_each_shard_and_of_the_split(dataset: Path) -> None:
    sizes = json.loads((dataset / "train/sizes.json").read_text())
    assert sizes == {f"train-{i:06d}.tar": 8 for i in range(3)}
    assert int((dataset / "train/__len__").read_text()) == 24
    assert int((dataset / "val/__len__").read_text()) == 6


def test_wids_index_lists_shards_relative_to_itself(dataset: Path) -> None:
    for split, num_samples in (("train", 24), ("val", 6)):
        index = json.loads((dataset / f"wids/{split}.json").read_text())
        assert (index["__kind__"], index["wids_version"]) == ("wids-shard-index-v1", 1)
        assert sum(shard["nsamples"] for shard in index["shardlist"]) == num_samples
        for shard in index["shardlist"]:
            path = (dataset / "wids" / shard["url"]).resolve()
            assert path in shards(dataset)
            assert path.stat().st_size == shard["filesize"]


def test_card_says_where_each_split_lies(dataset: Path) -> None:
    _, front, text = (dataset / "README.md").read_text("ascii").split("---\n", 2)
    card = YAML(typ="safe").load(front)
    (config,) = card["configs"]
    assert config["data_files"] == [
        {"split": "train", "path": "train/train-*.tar"},
        {"split": "validation", "path": "val/val-*.tar"},
    ]
    assert card["license"] == "unknown"
    assert "| train | 24 | 3 |" in text
    assert "| val | 6 | 1 |" in text
    assert "train/train-{000000..000002}.tar" in text
