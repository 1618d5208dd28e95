"""A dataset that has grown and shrunk, as the readers of the field see it."""

import gc
import json
import sqlite3
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import webdataset
from command import run_mm
from corpus import write_corpus, write_recipe, write_sample
from ruamel.yaml import YAML

from mmcore.shard.reader import read_samples
from mmcore.shard.table import from_parquet

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
NUM_TRAIN_DEAD = 2


@dataclass(frozen=True)
class Grown:
    """A version with tombstones; the keys of the dead by split."""

    path: Path
    dead: dict[str, set[str]]

    @property
    def live(self) -> set[str]:
        return {one.key for one in read_samples(str(self.path)) if one.split == "train"}

    def snippet(self) -> str:
        blocks = (self.path / "README.md").read_text("ascii").split("```python\n")[1:]
        return next(block for block in blocks if "import webdataset" in block).split("```")[0]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Let the files go while the warning about them is still expected."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    directory = tmp_path_factory.mktemp("tombstones")
    corpus = write_corpus(directory / "corpus")
    recipe = str(write_recipe(directory / "tiny.yaml", corpus))
    root = str(directory / "root")
    run_mm("run", recipe, "--root", root, "--workers", "1", "--until", "shard")
    (first,) = (directory / "root/ds/tiny").iterdir()
    of_split: dict[str, list[str]] = {}
    for one in read_samples(str(first)):
        of_split.setdefault(one.split, []).append(one.key)
    changed, removed = of_split["train"][:NUM_TRAIN_DEAD]
    write_sample(corpus / changed.replace("__", "/"), 999)
    for key in (removed, *of_split["val"]):
        for extension in ("png", "txt", "flac"):
            (corpus / key.replace("__", "/")).with_suffix(f".{extension}").unlink()
    run_mm("run", recipe, "--root", root, "--workers", "1", "--until", "shard")
    second = next(one for one in (directory / "root/ds/tiny").iterdir() if one != first)
    return Grown(second, {"train": {changed, removed}, "val": set(of_split["val"])})


def test_code_on_the_card_passes_over_the_dead_and_gives_what_changed_once(
    grown: Grown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(grown.path)
    names: dict[str, Any] = {"__name__": "card"}
    exec(grown.snippet(), names)
    keys = [sample["__key__"] for sample in names["samples"]]
    assert len(keys) == len(set(keys))
    assert set(keys) == grown.live


def test_code_on_the_card_passes_over_what_was_forgotten_since(
    grown: Grown, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = min(grown.live)
    root = str(grown.path.parents[2])
    assert run_mm("forget", key, "--why", "a wish", "--root", root).code == 0
    monkeypatch.chdir(grown.path)
    names: dict[str, Any] = {"__name__": "card"}
    exec(grown.snippet(), names)
    keys = {sample["__key__"] for sample in names["samples"]}
    assert key not in keys
    assert keys == grown.live


def test_without_the_list_a_plain_reader_sees_the_dead_as_the_card_says(grown: Grown) -> None:
    tars = sorted(str(path) for path in (grown.path / "train").glob("*.tar"))
    keys = [one["__key__"] for one in webdataset.WebDataset(tars, shardshuffle=False)]
    assert grown.dead["train"] <= set(keys)
    sizes = json.loads((grown.path / "train/sizes.json").read_text())
    assert sum(sizes.values()) == len(keys) == int((grown.path / "train/__len__").read_text())
    assert "4 more samples lie in the shards and count no more" in (
        grown.path / "README.md"
    ).read_text().replace("\n", " ")


def test_energon_is_told_to_exclude_the_dead_by_shard_and_key(grown: Grown) -> None:
    split = YAML(typ="safe").load(grown.path / ".nv-meta/split.yaml")
    named = {name.rsplit(".tar", 1)[-1].lstrip("/") for name in split["exclude"]}
    assert named == {*grown.dead["train"], ""}
    assert [name for name in split["exclude"] if name.endswith(".tar")] == ["val/val-000000.tar"]
    assert "val" not in split["split_parts"]  # nothing in it counts, and empty ones are refused
    counts = json.loads((grown.path / ".nv-meta/.info.json").read_text())["shard_counts"]
    assert set(counts) == {str(path.relative_to(grown.path)) for path in grown.path.rglob("*.tar")}
    for name, number in counts.items():
        index = (grown.path / f"{name}.idx").read_bytes()
        assert len(index) // 8 == number + 1


def test_energon_finds_the_living_at_their_place_in_the_shard(grown: Grown) -> None:
    with sqlite3.connect(grown.path / ".nv-meta/index.sqlite") as database:
        rows = database.execute("SELECT * FROM samples ORDER BY rowid").fetchall()
    shards = list(json.loads((grown.path / ".nv-meta/.info.json").read_text())["shard_counts"])
    every = {one.key for one in read_samples(str(grown.path))}
    assert every <= {row[1] for row in rows}
    for tar_id, key, index, offset, _ in rows:
        with tarfile.open(grown.path / shards[tar_id]) as archive:
            heads = [(one.name.split(".")[0], one.offset) for one in archive.getmembers()[::4]]
        assert heads[index] == (key, offset)


def test_an_index_that_grew_has_the_rows_that_its_shards_would_give(grown: Grown) -> None:
    table = from_parquet((grown.path / "manifest.parquet").read_bytes())
    stored = {one.key: one for one in table}
    shards = list(json.loads((grown.path / ".nv-meta/.info.json").read_text())["shard_counts"])
    with sqlite3.connect(grown.path / ".nv-meta/index.sqlite") as database:
        samples = database.execute("SELECT tar_file_id, sample_index, sample_key FROM samples")
        places = {(shards[tar], index): key for tar, index, key in samples}
        parts = database.execute("SELECT * FROM sample_parts").fetchall()
        (state,) = database.execute("PRAGMA integrity_check").fetchone()
    assert state == "ok"
    assert places == {(one.shard, one.index): key for key, one in stored.items()}
    found = sorted((shards[tar], *rest) for tar, *rest in parts)
    assert found == sorted(
        (one.shard, one.index, part.extension, part.offset, part.num_bytes)
        for one in stored.values()
        for part in one.parts
    )


def test_what_is_taken_out_of_an_index_leaves_no_trace(grown: Grown) -> None:
    living = {one.key for one in from_parquet((grown.path / "manifest.parquet").read_bytes())}
    data = (grown.path / ".nv-meta/index.sqlite").read_bytes()
    gone = {key for keys in grown.dead.values() for key in keys} - living
    assert gone
    assert not [key for key in gone if key.encode() in data]
