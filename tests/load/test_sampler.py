import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.errors import ConfigError
from mmcore.load.sampler import Shuffle, num_per_rank, permuted, shuffled


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 65, 1000, 4097])
def test_every_sample_has_one_place_in_an_epoch(size: int) -> None:
    order = permuted(np.arange(size), size=size, seed=3, epoch=5)
    assert sorted(order) == list(range(size))


def test_a_place_can_be_computed_alone() -> None:
    whole = permuted(np.arange(1000), size=1000, seed=1, epoch=2)
    assert permuted(np.array([321]), size=1000, seed=1, epoch=2) == whole[321]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        tuple(permuted(np.arange(500), size=500, seed=seed, epoch=epoch))
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


def test_the_order_never_changes_between_versions() -> None:
    found = permuted(np.arange(10), size=10, seed=0, epoch=0)
    assert list(found) == [1, 0, 5, 4, 2, 3, 6, 7, 8, 9]


def test_neighbours_are_spread_over_the_epoch() -> None:
    order = permuted(np.arange(10_000), size=10_000, seed=0, epoch=0)
    steps = np.abs(np.diff(order))
    # of two independent places the mean distance is a third of the range
    assert 3_000 < steps.mean() < 3_700
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05


def order(size: int, shuffle: Shuffle, *, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return shuffled(np.arange(size), size=size, seed=seed, epoch=epoch, shuffle=shuffle)


@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(0, 300),
    block=st.integers(1, 40),
    window=st.integers(1, 9),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 2**33),
)
def test_blocks_give_every_sample_one_place_in_an_epoch(
    size: int, block: int, window: int, seed: int, epoch: int
) -> None:
    shuffle = Shuffle(block_samples=block, window_blocks=window)
    assert sorted(order(size, shuffle, seed=seed, epoch=epoch)) == list(range(size))


def test_what_is_read_at_about_the_same_time_lies_in_a_few_stretches() -> None:
    shuffle = Shuffle(block_samples=50, window_blocks=4)
    whole = order(10_000, shuffle)
    for first in range(0, 10_000, 200):
        window = np.sort(whole[first : first + 200])
        assert (np.diff(window) > 1).sum() <= 4  # one more where the end meets the beginning
        assert (np.diff(whole[first : first + 200]) != 1).sum() > 150  # and not in that order


def test_windows_are_spread_over_the_dataset() -> None:
    whole = order(10_000, Shuffle(block_samples=50, window_blocks=4))
    means = whole.reshape(-1, 50).mean(axis=1)
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


def test_blocks_begin_elsewhere_in_every_epoch() -> None:
    shuffle = Shuffle(block_samples=50, window_blocks=1)
    blocks = [set(map(frozenset, order(1000, shuffle, epoch=e).reshape(-1, 50))) for e in range(3)]
    assert not blocks[0] & blocks[1]
    assert not blocks[1] & blocks[2]


def test_a_place_among_blocks_can_be_computed_alone() -> None:
    shuffle = Shuffle(block_samples=7, window_blocks=3)
    whole = order(500, shuffle, seed=4, epoch=9)
    some = np.array([499, 3, 250, 77])
    assert (shuffled(some, size=500, seed=4, epoch=9, shuffle=shuffle) == whole[some]).all()


def test_the_order_of_blocks_never_changes_between_versions() -> None:
    shuffle = Shuffle(block_samples=3, window_blocks=2)
    assert list(order(10, shuffle)) == [1, 6, 5, 7, 0, 9, 2, 8, 3, 4]


def test_a_batch_that_ranks_cannot_share_is_refused_with_a_size_that_works() -> None:
    assert num_per_rank(12, 4) == 3
    with pytest.raises(ConfigError, match=r"not divisible by 5 ranks.*for example 15"):
        num_per_rank(12, 5)


def test_a_block_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"loader.shuffle.block_samples=0. Use 1 or more"):
        Shuffle(block_samples=0)
