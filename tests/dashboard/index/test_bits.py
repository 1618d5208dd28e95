"""Sets of ids in blocks."""

import numpy as np
import pytest

from mmcore.dashboard.index.bits import BLOCK_SIZE, add, count, decode, encode, intersect


def some(seed: int, num: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).choice(BLOCK_SIZE, num, replace=False)).astype(
        np.uint16
    )


@pytest.mark.parametrize("num", [0, 1, 100, 4095, 4096, 40_000, BLOCK_SIZE])
def test_a_set_comes_back_as_it_went_in(num: int) -> None:
    members = some(num, num)
    assert decode(encode(members)).tolist() == members.tolist()


def test_a_block_is_never_longer_than_a_bitmap() -> None:
    assert max(len(encode(some(n, n))) for n in (10, 4095, 4096, 60_000)) == BLOCK_SIZE // 8


@pytest.mark.parametrize("sizes", [(50, 60), (50, 30_000), (30_000, 40_000), (10, 5000, 60_000)])
def test_an_intersection_is_that_of_the_sets(sizes: tuple[int, ...]) -> None:
    sets = [some(seed, num) for seed, num in enumerate(sizes)]
    expected = sorted(set.intersection(*(set(one.tolist()) for one in sets)))
    blocks = [encode(one) for one in sets]
    assert intersect(blocks).tolist() == expected
    assert count(blocks) == len(expected)


def test_added_members_join_those_that_were_there() -> None:
    first, more = some(1, 4000), some(2, 4000)
    both = sorted(set(first.tolist()) | set(more.tolist()))
    assert decode(add(encode(first), more)).tolist() == both
    assert decode(add(None, more)).tolist() == more.tolist()
