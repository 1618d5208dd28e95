import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shards import coloured_samples, write_inputs

from mmcore.core.loader import SampleInfo
from mmcore.errors import ConfigError, StepError
from mmcore.load.batches import MultimodalLoader
from mmcore.load.dataset import Entry
from mmcore.load.folds import Fold
from mmcore.sample import PartRef


def an_entry(number: int, *, split: str = "train", group: str = "", **meta: str) -> Entry:
    key = f"s{number:04d}"
    part = PartRef("shard", "train/0.tar", 0, 1, f"{number:064d}")
    meta = {"split_group": group or key, **meta}
    return Entry(SampleInfo(key, split, "train/0.tar", number, ("jpg",), meta), {"jpg": part})


def corpus(num: int = 200) -> list[Entry]:
    draw = random.Random(7)
    splits = ["train"] * 7 + ["val"] + ["test"] * 2
    entries = []
    for number in range(num):
        group = draw.randrange(num // 2)
        split = splits[group % 10]
        label = "rare" if group % 8 == 0 else "common"
        entries.append(an_entry(number, split=split, group=f"g{group}", label=label))
    return entries


def parts(entries: Sequence[Entry], of: int, **settings: str) -> list[list[Entry]]:
    folds = [Fold(number=number, of=of, **settings) for number in range(of)]
    return [[e for e in fold.apply(entries) if e.info.split == "fold"] for fold in folds]


def test_every_sample_is_held_out_once_and_no_group_is_in_two_folds() -> None:
    entries = corpus()
    found = parts(entries, 5)
    keys = sorted(entry.info.key for part in found for entry in part)
    assert keys == sorted(e.info.key for e in entries if e.info.split != "test")
    groups = [{entry.info.meta["split_group"] for entry in part} for part in found]
    assert sum(map(len, groups)) == len(set().union(*groups))


def test_within_a_fold_no_group_is_trained_on_watched_and_held_out_at_once() -> None:
    arranged = Fold(number=1, of=4).apply(corpus())
    splits: dict[str, set[str]] = {}
    for entry in arranged:
        splits.setdefault(str(entry.info.meta["split_group"]), set()).add(entry.info.split)
    assert all(len(found) == 1 for found in splits.values())
    counts = Counter(entry.info.split for entry in arranged)
    assert counts.keys() == {"train", "val", "fold"}
    assert 0.05 < counts["val"] / (counts["train"] + counts["val"]) < 0.25


def test_the_test_split_is_not_there() -> None:
    entries = corpus()
    held_out = {entry.info.key for entry in entries if entry.info.split == "test"}
    assert held_out
    assert not held_out & {entry.info.key for entry in Fold(number=0, of=3).apply(entries)}


def test_the_order_of_the_samples_changes_nothing_and_the_seed_does() -> None:
    entries = corpus()
    shuffled = random.Random(1).sample(entries, len(entries))
    first = {e.info.key: e.info.split for e in Fold(number=2, of=5).apply(entries)}
    assert first == {e.info.key: e.info.split for e in Fold(number=2, of=5).apply(shuffled)}
    other = {e.info.key: e.info.split for e in Fold(number=2, of=5, seed=1).apply(entries)}
    assert first != other


def test_classes_are_spread_over_the_folds_where_the_split_is_stratified() -> None:
    entries = [
        an_entry(number, label="rare" if number % 10 == 0 else "common") for number in range(200)
    ]
    rare = [
        sum(entry.info.meta["label"] == "rare" for entry in part)
        for part in parts(entries, 5, stratify="meta:label")
    ]
    assert rare == [4] * 5


def test_folds_are_of_one_size_where_every_class_has_a_single_sample() -> None:
    entries = [an_entry(number, label=str(number)) for number in range(40)]
    assert [len(part) for part in parts(entries, 4, stratify="meta:label")] == [10] * 4


def test_a_newcomer_that_shares_a_value_with_another_group_is_not_parted_from_it() -> None:
    entries = [an_entry(number) for number in range(30)]
    for bridge in range(0, 30, 3):
        for number in (bridge, bridge + 1):
            meta = {**entries[number].info.meta, "caption": f"c{bridge}"}
            entries[number] = replace(
                entries[number], info=replace(entries[number].info, meta=meta)
            )
    folds = parts(entries, 3, together=("meta:caption",))  # type: ignore[arg-type]
    captions = [{e.info.meta.get("caption") for e in part} - {None} for part in folds]
    assert sum(map(len, captions)) == 10
    same_picture = [replace(entry, parts=entries[0].parts) for entry in entries[:15]]
    with pytest.raises(StepError, match="hang together in 1 groups, too few for 3 folds"):
        parts(same_picture, 3, together=("image",))  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 12), min_size=8, max_size=60), st.integers(2, 5))
def test_no_group_is_parted_whatever_the_groups_are(groups: list[int], of: int) -> None:
    entries = [an_entry(number, group=f"g{group}") for number, group in enumerate(groups)]
    if len(set(groups)) < of:
        with pytest.raises(StepError, match="too few"):
            parts(entries, of)
        return
    found = [{e.info.meta["split_group"] for e in part} for part in parts(entries, of)]
    assert all(found)
    assert sum(map(len, found)) == len(set(groups))


def test_a_fold_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="of 3 folds the last is 2"):
        Fold(number=3, of=3)
    with pytest.raises(ConfigError, match="Use 2 or more"):
        Fold(number=0, of=1)


def test_a_loader_with_a_fold_reads_what_is_left_and_is_another_one(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path, coloured_samples({"train": 20, "val": 5, "test": 6}))
    plain = MultimodalLoader(workers=0)
    assert "fold" not in plain.identity()
    folded = replace(plain, fold=Fold(number=0, of=5))
    assert folded.identity() != plain.identity()
    opened = folded.open(inputs)
    sizes = {split: len(opened.samples(split)) for split in ("train", "val", "fold")}
    assert sizes == {"train": 16, "val": 4, "fold": 5}
    batches = list(opened.in_order("fold", batch_size=8))
    assert [len(batch.keys) for batch in batches] == [5]
    with pytest.raises(StepError, match="no split 'test', only fold, train, val"):
        opened.samples("test")
