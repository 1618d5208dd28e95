import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.media.near.digests import first_of_equal


def by_dict(digests: np.ndarray) -> list[int]:
    first: dict[tuple[int, ...], int] = {}
    return [first.setdefault(tuple(row), i) for i, row in enumerate(digests.tolist())]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=50))
def test_each_has_the_first_that_is_equal(rows: list[tuple[int, int]]) -> None:
    # the lowest bits of the upper word make way for the index: equal in the others is not equal
    digests = np.array(rows, np.uint64).reshape(-1, 2)
    assert first_of_equal(digests).tolist() == by_dict(digests)


def test_survivors_among_many_are_those_of_a_dict() -> None:
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 2**64, size=(50_000, 2), dtype=np.uint64)
    digests[rng.integers(0, 50_000, 2_500)] = digests[rng.integers(0, 50_000, 2_500)]
    digests[40_000:, 0] = digests[:10_000, 0]
    assert first_of_equal(digests).tolist() == by_dict(digests)
