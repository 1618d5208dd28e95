"""Which similar texts share a band."""

import random

import numpy as np
import pytest

from mmcore.media.minhash import minhash, shingle_hashes, similarity
from mmcore.media.near.banding import similar_pairs
from mmcore.media.near.clusters import components
from mmcore.media.near.prints import held


def signature(words: list[str]) -> np.ndarray:
    found = minhash(shingle_hashes(words, num_words=2))
    assert found is not None
    return found


def edited(words: list[str], share: float, rng: random.Random) -> list[str]:
    return [f"new{rng.randrange(10**6)}" if rng.random() < share else word for word in words]


@pytest.mark.parametrize(("share", "limit"), [(0.03, 0.85), (0.12, 0.6)])
def test_nearly_all_pairs_above_the_limit_are_found(share: float, limit: float) -> None:
    rng = random.Random(1)
    corpus = []
    for _ in range(300):
        words = [f"w{rng.randrange(500)}" for _ in range(120)]
        corpus += [signature(words), signature(edited(words, share, rng))]
    signatures = np.stack(corpus)
    (left, right), values = similar_pairs(held(signatures), limit)
    found = set(zip(left.tolist(), right.tolist(), strict=True))
    assert (values >= limit).all()
    twins = similarity(signatures[::2], signatures[1::2])
    wanted = {(2 * i, 2 * i + 1) for i in np.flatnonzero(twins >= limit).tolist()}
    assert len(wanted) > 80
    assert len(wanted - found) <= len(wanted) / 100
    assert all(other == one + 1 and one % 2 == 0 for one, other in found)


def test_a_text_many_times_over_is_linked_as_a_star() -> None:
    rng = random.Random(2)
    words = [f"w{i}" for i in range(100)]
    signatures = np.stack([signature([*words, f"n{rng.randrange(10**6)}"]) for _ in range(1_000)])
    (left, right), _ = similar_pairs(held(signatures), 0.9)
    assert len(left) < 32 * 2_000
    assert (components(1_000, left, right) == 0).all()


@pytest.mark.parametrize("num", [0, 1])
def test_no_pair_in_too_few(num: int) -> None:
    (left, right), values = similar_pairs(held(np.zeros((num, 256), np.uint8)), 0.8)
    assert len(left) == len(right) == len(values) == 0
