"""Recall of permuted sorts against looking at every pair."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.media.near import buckets, hamming
from mmcore.media.near.buckets import group_equal
from mmcore.media.near.clusters import components
from mmcore.media.near.hamming import distances, hamming_pairs


def brute_force(hashes: np.ndarray, max_distance: int) -> set[tuple[int, int]]:
    left, right = np.triu_indices(len(hashes), 1)
    near = distances(hashes[left], hashes[right]) <= max_distance
    return set(zip(left[near].tolist(), right[near].tolist(), strict=True))


def found(hashes: np.ndarray, max_distance: int) -> set[tuple[int, int]]:
    left, right = hamming_pairs(hashes, max_distance)
    pairs = list(zip(left.tolist(), right.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))
    return set(pairs)


def flipped(hashes: np.ndarray, num_bits: int, rng: np.random.Generator) -> np.ndarray:
    out = hashes.copy()
    for i in range(len(out)):
        for bit in rng.choice(64, size=num_bits, replace=False):
            out[i] ^= np.uint64(1) << np.uint64(bit)
    return out


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num=st.integers(0, 300),
    max_distance=st.integers(0, 8),
    few_bits=st.sampled_from([64, 20, 9]),
)
def test_every_near_pair_is_found_and_no_other(
    seed: int, num: int, max_distance: int, few_bits: int
) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, size=num, dtype=np.uint64)
    # pictures with little in them hash to words that differ in a few places only
    hashes &= np.uint64((1 << few_bits) - 1)
    hashes = np.unique(hashes)
    rng.shuffle(hashes)
    with pytest.MonkeyPatch.context() as patch:
        # so small a corpus would be compared without sorting
        patch.setattr(hamming, "_MAX_COMPARED", 4)
        patch.setattr(hamming, "_MAX_BUCKET", 6)
        patch.setattr(hamming, "_PAIRS_AT_ONCE", 50)
        assert found(hashes, max_distance) == brute_force(hashes, max_distance)


@pytest.mark.parametrize("max_distance", [3, 8])
def test_every_near_pair_of_a_crowded_corpus_is_found(max_distance: int) -> None:
    rng = np.random.default_rng(max_distance)
    centres = rng.integers(0, 2**64, size=60, dtype=np.uint64)
    hashes = np.unique(np.concatenate([flipped(centres, k % 7, rng) for k in range(70)]))
    assert len(hashes) > 3_000
    assert found(hashes, max_distance) == brute_force(hashes, max_distance)


@pytest.mark.parametrize("num", [20_000, 40_000])
def test_planted_pairs_are_all_found_in_a_corpus_of_many(num: int) -> None:
    rng = np.random.default_rng(num)
    hashes = rng.integers(0, 2**64, size=num, dtype=np.uint64)
    for distance in (0, 1, 2, 3):
        twins = flipped(hashes[:500], distance, rng)
        pairs = found(np.concatenate([hashes, twins]), 3)
        assert {(i, num + i) for i in range(500)} <= pairs


def test_a_hot_bucket_is_divided_and_nothing_in_it_is_missed() -> None:
    rng = np.random.default_rng(5)
    # the upper 40 bits are one: every key made of them holds all of the corpus
    hashes = np.unique(rng.integers(0, 2**24, size=3_000, dtype=np.uint64)) | np.uint64(
        0xABCDE << 44
    )
    assert found(hashes, 3) == brute_force(hashes, 3)


@settings(max_examples=80, deadline=None)
@given(values=st.lists(st.integers(0, 12), max_size=60), shift=st.integers(0, 3))
def test_copies_of_near_hashes_are_all_linked(values: list[int], shift: int) -> None:
    hashes = np.array([value << shift for value in values], np.uint64)
    one, other = hamming_pairs(hashes, 1)
    near = brute_force(hashes, 1)
    left, right = (np.array([pair[side] for pair in sorted(near)], np.int64) for side in (0, 1))
    assert found(hashes, 1) <= near
    roots = components(len(hashes), one, other)
    assert roots.tolist() == components(len(hashes), left, right).tolist()


@settings(max_examples=80, deadline=None)
@given(values=st.lists(st.integers(0, 12), max_size=60), shift=st.integers(0, 3))
def test_equal_values_lie_side_by_side(values: list[int], shift: int) -> None:
    words = np.array(values, np.uint64) << np.uint64(shift)
    with pytest.MonkeyPatch.context() as patch:
        # values that differ in their low bits alone now meet in one bucket
        patch.setattr(buckets, "_ODD", np.uint64(1))
        order, starts, lengths = group_equal(words)
    groups = [order[s : s + n].tolist() for s, n in zip(starts, lengths, strict=True)]
    expected = [[i for i, v in enumerate(values) if v == one] for one in set(values)]
    assert sorted(groups) == sorted(expected)


def test_many_equal_hashes_are_linked_as_a_star() -> None:
    rng = np.random.default_rng(6)
    hashes = np.concatenate([np.full(2_000, 77, np.uint64), rng.integers(0, 2**64, 500, np.uint64)])
    near = np.uint64(77 ^ 0b101)
    hashes = np.append(hashes, near)
    left, right = hamming_pairs(hashes, 3)
    assert len(left) < 3 * 2_000
    roots = components(len(hashes), left, right)
    assert (roots[:2_000] == 0).all()
    assert roots[-1] == 0
    assert (roots[2_000:2_500] == np.arange(2_000, 2_500)).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=60))
def test_components_are_those_of_a_walk_over_the_edges(
    num: int, edges: list[tuple[int, int]]
) -> None:
    edges = [(a % num, b % num) for a, b in edges]
    lowest = list(range(num))
    for _ in range(num):
        for a, b in edges:
            lowest[a] = lowest[b] = min(lowest[a], lowest[b])
    one, other = (np.array([edge[side] for edge in edges], np.int64) for side in (0, 1))
    assert components(num, one, other).tolist() == lowest


def test_a_long_chain_is_one_component() -> None:
    order = np.random.default_rng(0).permutation(5_000)
    assert len(set(components(5_000, order[:-1], order[1:]).tolist())) == 1
