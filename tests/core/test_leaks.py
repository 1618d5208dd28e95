"""Leaks between newcomers and what the index of a split knows of old."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from mmcore.core.columns import digest_of, key_digest
from mmcore.core.leaks import GROUP, Known, Leak, leaks
from mmcore.core.linkage import LINKS, MEMBERS
from mmcore.core.shelf import Shelf
from mmcore.core.sorted_runs import SortedRuns
from mmcore.sample import Part, PartRef, Sample

Row = tuple[bytes, str]
TOGETHER = (GROUP, "image")


def newcomer(key: str, split: str, picture: str, group: str = "") -> Sample:
    part = Part(ref=PartRef("encode", "x", 0, 1, picture))
    return Sample(key, {"png": part}, {"split": split, "split_group": group or key})


@pytest.fixture
def known(tmp_path: Path) -> Callable[..., Known]:
    """Make the index of a split: rows of digest and label by name."""

    def make(**rows: Iterable[Row]) -> Known:
        shelf = Shelf(str(tmp_path / "shelf"), "known", tmp_path)
        for name, some in rows.items():
            digests = np.frombuffer(b"".join(one for one, _ in some), np.uint8).reshape(-1, 16)
            keys = np.ascontiguousarray(digests).view(">u8").astype(np.uint64)[:, 0]
            SortedRuns(shelf, name).add([label for _, label in some], [digests], 16, [keys], 1)
        return lambda name: SortedRuns(shelf, name)

    return make


def test_a_newcomer_that_equals_what_is_in_another_split_is_found(
    known: Callable[..., Known],
) -> None:
    index = known(**{LINKS: [(digest_of("image", "same"), "old\ttest\told")]})
    news = [newcomer("a", "train", "same"), newcomer("b", "train", "other")]
    assert leaks(news, TOGETHER, known=index) == [
        Leak("image", "same", (("test", "old"), ("train", "a")))
    ]
    assert leaks([newcomer("a", "test", "same")], TOGETHER, known=index) == []
    assert leaks(news, (GROUP, "text"), known=index) == []


def test_a_newcomer_of_a_group_that_is_in_another_split_is_found(
    known: Callable[..., Known],
) -> None:
    index = known(**{MEMBERS: [(key_digest("old"), "old\tval\told\t")]})
    assert leaks([newcomer("a", "train", "x", group="old")], TOGETHER, known=index) == [
        Leak(GROUP, "old", (("train", "a"), ("val", "old")))
    ]
    assert leaks([newcomer("a", "val", "x", group="old")], TOGETHER, known=index) == []


def test_a_group_that_its_first_member_has_left_says_nothing(known: Callable[..., Known]) -> None:
    index = known(**{MEMBERS: [(key_digest("old"), "old\tval\tanother\t")]})
    assert leaks([newcomer("a", "train", "x", group="old")], TOGETHER, known=index) == []
