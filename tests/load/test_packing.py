import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmcore.load.packing import packed


@given(lengths=st.lists(st.integers(0, 12), max_size=20))
def test_every_text_lies_whole_in_one_row_under_its_own_segment(lengths: list[int]) -> None:
    texts = [np.arange(length) + 100 * number + 1 for number, length in enumerate(lengths)]
    arrays = packed(texts, row_tokens=12)
    ids, segment = arrays["packed_ids"], arrays["packed_segment"]
    for number, text in enumerate(texts):
        rows, columns = np.nonzero(segment == number + 1)
        assert len(set(rows)) == (len(text) > 0)
        assert list(ids[rows, columns]) == list(text)
        assert list(arrays["packed_position"][rows, columns]) == list(range(len(text)))
    assert not ids[segment == 0].any()


def test_packing_needs_hardly_more_rows_than_there_are_tokens_for() -> None:
    lengths = np.random.default_rng(0).integers(3, 20, 64)
    arrays = packed([np.ones(length, np.int64) for length in lengths], row_tokens=64)
    assert len(arrays["packed_ids"]) <= -(-lengths.sum() // 64) + 1


def test_a_longer_text_is_cut() -> None:
    assert packed([np.arange(1, 9)], row_tokens=5)["packed_ids"].tolist() == [[1, 2, 3, 4, 5]]
