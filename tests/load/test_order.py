from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.load.order import Order, Stream, _interleaved
from mmcore.load.sampler import Shuffle, num_per_rank

SMALL = Shuffle(block_samples=5, window_blocks=3)
Sample = tuple[int, int, int]


def order(*streams: Stream, size: int = 12, **changes: object) -> Order:
    return Order(streams, 3, size, **{"shuffle": SMALL, **changes})  # type: ignore[arg-type]


def stream_of(one: Order, epoch: int = 0, *, num_ranks: int = 1) -> list[list[Sample]]:
    """The global batches of an epoch, put together from the slices of the ranks."""
    per_rank = num_per_rank(one.global_batch_size, num_ranks)
    batches = []
    for step in range(one.num_steps):
        batch: list[Sample] = []
        for rank in range(num_ranks):
            picks = one.batch(epoch, step, slice(rank * per_rank, (rank + 1) * per_rank))
            batch += zip(picks.sources, picks.indices, picks.visits, strict=True)
        batches.append([tuple(map(int, sample)) for sample in batch])  # type: ignore[misc]
    return batches


def indices(batches: list[list[Sample]], source: int = 0) -> list[int]:
    return [index for batch in batches for one, index, _ in batch if one == source]


def plain(num: int) -> Stream:
    return Stream(num, num)


@settings(deadline=None, max_examples=150)
@given(
    shards=st.lists(st.integers(1, 23), min_size=1, max_size=64),
    num_ranks=st.integers(1, 8),
    per_rank=st.integers(1, 6),
    epoch=st.integers(0, 1000),
    sorted_batches=st.sampled_from([0, 4]),
)
def test_any_number_of_shards_and_ranks_gives_equal_steps_and_nothing_twice(
    shards: list[int], num_ranks: int, per_rank: int, epoch: int, sorted_batches: int
) -> None:
    num = sum(shards)
    lengths = [np.arange(num) * 7919 % 50]
    one = order(
        plain(num), size=num_ranks * per_rank, lengths=lengths, num_sorted_batches=sorted_batches
    )
    together = stream_of(one, epoch, num_ranks=num_ranks)
    assert together == stream_of(one, epoch)
    assert len(together) == num // (num_ranks * per_rank)
    assert all(len(batch) == num_ranks * per_rank for batch in together)
    read = indices(together)
    assert len(set(read)) == len(read) == len(together) * num_ranks * per_rank


def test_a_sample_that_one_epoch_leaves_out_comes_in_another() -> None:
    one = order(plain(29))
    assert {index for epoch in range(20) for index in indices(stream_of(one, epoch))} == set(
        range(29)
    )


def test_a_step_is_computed_alone() -> None:
    streams = (Stream(40, 80, "a"), Stream(70, 35, "b"))
    one = order(*streams)
    whole = stream_of(one, 5)
    again = order(*streams)
    for step in (8, 0, 3):
        picks = again.batch(5, step)
        assert [int(index) for index in picks.indices] == [index for _, index, _ in whole[step]]


def test_sources_are_mixed_evenly_by_what_is_drawn_of_them() -> None:
    one = order(Stream(1000, 300, "a"), Stream(100, 600, "b"), Stream(50, 0, "c"))
    batches = stream_of(one)
    assert len(batches) == 75
    for batch in batches:
        counts = Counter(source for source, _, _ in batch)
        assert abs(counts[0] - 4) <= 1
        assert counts[0] + counts[1] == 12
    # each of the small source comes six times, told apart by its visits
    assert set(Counter(indices(batches, 1)).values()) == {6}
    seen = [(index, visit) for batch in batches for source, index, visit in batch if source == 1]
    assert len(set(seen)) == len(seen) == 600


def test_a_source_that_gives_less_than_it_has_goes_on_in_the_next_epoch() -> None:
    one = order(Stream(120, 30, "a"), Stream(30, 30, "b"), size=10)
    read = [indices(stream_of(one, epoch)) for epoch in range(4)]
    assert sorted(index for epoch in read for index in epoch) == list(range(120))


def test_sources_of_equal_length_are_not_in_the_same_order() -> None:
    batches = stream_of(order(Stream(60, 60, "a"), Stream(60, 60, "b")))
    assert indices(batches, 0) != indices(batches, 1)


def test_a_curriculum_begins_with_the_easiest_and_ends_with_all() -> None:
    easiest_first = np.random.default_rng(0).permutation(100)
    one = order(Stream(100, 100, easiest_first=easiest_first, shares=(0.29, 0.57)), size=10)
    for epoch, share in enumerate((0.29, 0.57, 1.0, 1.0)):
        batches = stream_of(one, epoch)
        assert len(batches) == 10  # as many steps as ever: easy ones come again
        allowed = set(easiest_first[: round(share * 100)].tolist())
        assert set(indices(batches)) == allowed
        counts = Counter(indices(batches))
        assert max(counts.values()) - min(counts.values()) <= 1
        seen = [sample for batch in batches for sample in batch]
        assert len(set(seen)) == len(seen)
    epochs = [{s for b in stream_of(one, epoch) for s in b} for epoch in range(4)]
    assert sum(map(len, epochs)) == len(set.union(*epochs)), "a visit is never the same twice"


def test_batches_of_like_length_need_less_padding_and_hold_the_same_samples() -> None:
    lengths = np.random.default_rng(0).integers(4, 200, 600)
    as_they_come = order(plain(600))
    by_length = order(plain(600), lengths=[lengths], num_sorted_batches=8)
    before, after = stream_of(as_they_come), stream_of(by_length)

    def padded(batches: list[list[Sample]]) -> int:
        return sum(12 * max(lengths[index] for _, index, _ in batch) for batch in batches)

    assert sorted(indices(before)) == sorted(indices(after))
    assert padded(after) < 0.8 * padded(before)
    # eight batches hold what the same eight held, and short ones are not always first
    for first in range(0, 48, 8):
        eight = slice(first, first + 8)
        assert sorted(indices(before[eight])) == sorted(indices(after[eight]))
    means = [np.mean([lengths[index] for _, index, _ in batch]) for batch in after[:8]]
    assert means != sorted(means)


def test_samples_of_one_length_stay_in_their_order() -> None:
    """On any processor: a sort that is not stable has another order on each."""
    lengths = np.arange(960) % 3
    as_they_come = indices(stream_of(order(plain(960)))[:8])
    after = stream_of(order(plain(960), lengths=[lengths], num_sorted_batches=8))[:8]
    expected = sorted(as_they_come, key=lambda index: lengths[index])
    found = sorted(after, key=lambda batch: expected.index(batch[0][1]))
    assert indices(found) == expected


def test_order_does_not_depend_on_how_large_numbers_are() -> None:
    huge = 5_000_000_000
    one = Order((Stream(huge, huge, "a"), Stream(huge, 2 * huge, "b")), 0, 1024)
    picks = one.batch(1, one.num_steps - 1)
    assert Counter(picks.sources.tolist())[1] in (682, 683, 684)
    assert ((picks.indices >= 0) & (picks.indices < huge)).all()
    last = range(3 * huge - 6, 3 * huge)
    sources, places = _interleaved(np.array(last), [huge, 2 * huge])
    assert places[sources == 0].tolist() == [huge - 2, huge - 1]
    assert places[sources == 1].tolist() == [2 * huge - at for at in (4, 3, 2, 1)]


@pytest.mark.parametrize("num", [0, 11])
def test_fewer_samples_than_a_batch_are_no_step(num: int) -> None:
    assert order(plain(num)).num_steps == 0
