import numpy as np
import pytest

from mmcore.errors import ConfigError
from mmcore.load.sampler import permuted, rank_batches


def stream(num_samples: int, *, num_ranks: int, epoch: int = 0, seed: int = 0) -> list[list[int]]:
    """The global batches of an epoch, put together from the slices of the ranks."""
    ranks = [
        rank_batches(
            num_samples,
            seed=seed,
            epoch=epoch,
            global_batch_size=12,
            rank=rank,
            num_ranks=num_ranks,
        )
        for rank in range(num_ranks)
    ]
    return [list(np.concatenate(slices)) for slices in zip(*ranks, strict=True)]


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


@pytest.mark.parametrize("num_ranks", [2, 3, 4, 6, 12])
def test_any_number_of_ranks_reads_the_same_global_stream(num_ranks: int) -> None:
    assert stream(100, num_ranks=num_ranks) == stream(100, num_ranks=1)


def test_each_sample_comes_at_most_once_in_an_epoch_and_the_incomplete_batch_is_left_out() -> None:
    batches = stream(100, num_ranks=4)
    read = [sample for batch in batches for sample in batch]
    assert len(batches) == 8
    assert len(set(read)) == len(read) == 96


def test_reading_goes_on_in_the_middle_of_an_epoch() -> None:
    arguments = {"seed": 0, "epoch": 1, "global_batch_size": 12, "rank": 1, "num_ranks": 3}
    whole = [list(batch) for batch in rank_batches(100, **arguments)]
    rest = [list(batch) for batch in rank_batches(100, **arguments, first_step=5)]
    assert rest == whole[5:]


def test_a_batch_that_ranks_cannot_share_is_refused_with_a_size_that_works() -> None:
    with pytest.raises(ConfigError, match=r"not divisible by 5 ranks.*for example 15"):
        list(rank_batches(100, seed=0, epoch=0, global_batch_size=12, rank=0, num_ranks=5))
