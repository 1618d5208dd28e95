"""The estimate of common word runs against counting them."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.media.minhash import minhash, shingle_hashes, similarity, text_tokens


def shingles(tokens: list[str], num_words: int) -> set[tuple[str, ...]]:
    num_words = min(num_words, len(tokens))
    return {tuple(tokens[i : i + num_words]) for i in range(len(tokens) - num_words + 1)}


def signature(tokens: list[str], num_words: int = 2) -> np.ndarray:
    found = minhash(shingle_hashes(tokens, num_words=num_words))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The CAT, on a mat!", ["the", "cat", "on", "a", "mat"]),
        ("Stra\u00dfe \ufb01n", ["strasse", "fin"]),
        ("\u7ea2\u8272\u7684 star", ["\u7ea2", "\u8272", "\u7684", "star"]),
        ("a_b  c-d\n", ["a", "b", "c", "d"]),
        (" .,;!", []),
    ],
)
def test_words_are_compared_without_case_and_marks(text: str, tokens: list[str]) -> None:
    assert text_tokens(text) == tokens


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.lists(st.text("ab\u00e9\u7ea2", min_size=1, max_size=3), min_size=1, max_size=60),
    num_words=st.integers(1, 4),
)
def test_shingles_have_equal_hashes_if_they_are_equal(tokens: list[str], num_words: int) -> None:
    hashes = shingle_hashes(tokens, num_words=num_words)
    assert len(set(hashes.tolist())) == len(shingles(tokens, num_words))
    assert len(hashes) == max(1, len(tokens) - num_words + 1)
    moved = shingle_hashes(["x", *tokens], num_words=num_words)
    if len(tokens) >= num_words:
        assert hashes.tolist() == moved[1:].tolist()


@pytest.mark.parametrize("num_tokens", [6, 12, 40, 400, 3_000])
def test_estimate_is_near_the_count(num_tokens: int) -> None:
    rng = random.Random(num_tokens)
    errors = []
    for _ in range(30):
        tokens = [f"w{rng.randrange(2_000)}" for _ in range(num_tokens)]
        other = list(tokens)
        for _ in range(rng.randrange(1 + num_tokens // 5)):
            other[rng.randrange(num_tokens)] = f"v{rng.randrange(2_000)}"
        one_set, other_set = shingles(tokens, 2), shingles(other, 2)
        true = len(one_set & other_set) / len(one_set | other_set)
        errors.append(float(similarity(signature(tokens), signature(other))) - true)
    assert abs(np.mean(errors)) < 0.02
    assert np.sqrt(np.mean(np.square(errors))) < 0.045


def test_unrelated_texts_share_nothing() -> None:
    one = signature([f"a{i}" for i in range(300)])
    other = signature([f"b{i}" for i in range(300)])
    assert similarity(one, other) < 0.05


def test_repeating_a_text_changes_nothing_but_its_joints() -> None:
    tokens = [f"w{i}" for i in range(50)]
    assert similarity(signature(tokens), signature(tokens * 3)) > 0.93


def test_a_text_longer_than_the_tables_is_hashed() -> None:
    tokens = [f"word{i}" for i in range(5_000)]
    assert similarity(signature(tokens), signature(tokens[:-50])) > 0.95


def test_no_words_have_no_signature() -> None:
    assert minhash(shingle_hashes([], num_words=2)) is None
