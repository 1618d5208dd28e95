import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from ruamel.yaml import YAML


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def without_decoding(data: Any) -> Any:
    for name, feature in data.features.items():
        if isinstance(feature, datasets.Image | datasets.Audio | datasets.Video):
            data = data.cast_column(name, type(feature)(decode=False))
    return data


def raw(name: str, value: Any) -> bytes:
    """Return the bytes of a part as the tar holds them."""
    if name == "json":
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    if name == "txt":
        return str(value).encode()
    data: bytes = value["bytes"] if isinstance(value, dict) else value
    return data


def hashes_of(data: Any) -> dict[str, dict[str, str]]:
    return {
        row["__key__"]: {
            name: hashlib.sha256(raw(name, value)).hexdigest()
            for name, value in row.items()
            if not name.startswith("__")
        }
        for row in without_decoding(data)
    }


@pytest.mark.parametrize("streaming", [True, False])
def test_columns_are_inferred_and_every_split_gives_the_same_bytes(
    pictures: Any, tmp_path: Path, streaming: bool
) -> None:
    files = {split: f"{pictures.path}/{split}/{split}-*.tar" for split in pictures.hashes}
    loaded = datasets.load_dataset(
        "webdataset", data_files=files, streaming=streaming, cache_dir=str(tmp_path)
    )
    assert isinstance(loaded["train"].features["jpg"], datasets.Image)
    for split, expected in pictures.hashes.items():
        assert hashes_of(loaded[split]) == expected


@pytest.mark.parametrize("streaming", [True, False])
def test_sound_as_bytes_is_the_same_bytes(dataset: Any, tmp_path: Path, streaming: bool) -> None:
    """As bytes, because the reader's own audio column needs torchcodec even to pass them on."""
    with tarfile.open(dataset.tars("val")[0]) as archive:
        member = archive.extractfile(next(m for m in archive if m.name.endswith(".json")))
        assert member is not None
        known = datasets.Features.from_arrow_schema(
            pa.Table.from_pylist([{"json": json.loads(member.read())}]).schema
        )
    parts = {name: datasets.Value("binary") for name in ("effect.ogg", "jpg", "speech.wav")}
    text = {name: datasets.Value("string") for name in ("txt", "__key__", "__url__")}
    loaded = datasets.load_dataset(
        "webdataset",
        data_files={"val": f"{dataset.path}/val/val-*.tar"},
        features=datasets.Features({**known, **parts, **text}),
        streaming=streaming,
        cache_dir=str(tmp_path),
    )
    assert hashes_of(loaded["val"]) == dataset.hashes["val"]


def test_card_of_the_directory_is_enough(pictures: Any, tmp_path: Path) -> None:
    _, front, _ = (pictures.path / "README.md").read_text().split("---\n", 2)
    (config,) = YAML(typ="safe").load(front)["configs"]
    assert [entry["split"] for entry in config["data_files"]] == ["train", "validation", "test"]
    loaded = datasets.load_dataset(str(pictures.path), streaming=True, cache_dir=str(tmp_path))
    assert sorted(loaded) == ["test", "train", "validation"]
    assert hashes_of(loaded["validation"]) == pictures.hashes["val"]


def test_code_on_the_card_works(pictures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures.path)
    names: dict[str, Any] = {}
    exec(pictures.snippet("load_dataset"), names)
    assert hashes_of(names["splits"]["test"]) == pictures.hashes["test"]


@pytest.mark.parametrize("streaming", [True, False])
def test_optional_parts_that_a_sample_lacks_are_none(
    sparse: Any, tmp_path: Path, streaming: bool
) -> None:
    files = {"train": sparse.tars("train")}
    loaded = datasets.load_dataset(
        "webdataset", data_files=files, streaming=streaming, cache_dir=str(tmp_path)
    )
    captions = {row["__key__"]: row["txt"] for row in without_decoding(loaded["train"])}
    expected = sparse.hashes["train"]
    assert captions.keys() == expected.keys()
    for key, caption in captions.items():
        assert (caption is not None) == ("txt" in expected[key]), key
