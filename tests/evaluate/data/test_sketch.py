"""Distributions are counted in bounded memory, and come out the same in whatever order."""

import numpy as np
import pytest

from mmcore.evaluate.data.sketch import MAX_EXACT, NUM_BINS, Sketch, axis_of, shift, union

MANY = np.random.default_rng(0).lognormal(1.0, 1.5, 20_000)


def sketch_of(values: object) -> Sketch:
    sketch = Sketch()
    sketch.add(np.asarray(values, np.float64))
    return sketch


def test_few_values_are_counted_exactly() -> None:
    sketch = sketch_of([0.1, 0.1, 5.0, -3.0])
    assert (sketch.num, sketch.values.tolist(), sketch.counts.tolist()) == (
        4,
        [-3.0, 0.1, 5.0],
        [1, 2, 1],
    )
    assert sketch.mean == pytest.approx(0.55)
    assert [sketch.quantile(share) for share in (0.05, 0.5, 0.75, 1.0)] == [-3.0, 0.1, 0.1, 5.0]


def test_many_values_are_known_to_a_thousandth_in_bounded_memory() -> None:
    sketch = sketch_of(MANY)
    assert sketch.num == len(MANY)
    assert not sketch.is_exact
    assert len(sketch.values) < len(MANY) / 2
    for share in (0.01, 0.5, 0.99):
        exact = np.quantile(MANY, share, method="inverted_cdf")
        assert sketch.quantile(share) == pytest.approx(exact, rel=2e-3)
    assert sketch.mean == pytest.approx(MANY.mean(), rel=1e-3)


@pytest.mark.parametrize("num", [100, MAX_EXACT, MAX_EXACT + 1, len(MANY)])
def test_no_order_and_no_division_changes_anything(num: int) -> None:
    values = MANY[:num]
    whole = sketch_of(values)
    pieces = Sketch()
    for piece in np.array_split(values[::-1], 7):
        pieces.add(piece)
    merged = union([sketch_of(values[num // 3 :]), sketch_of(values[: num // 3])])
    for other in (pieces, merged):
        assert other.is_exact == whole.is_exact == (num <= MAX_EXACT)
        assert other.values.tolist() == whole.values.tolist()
        assert other.counts.tolist() == whole.counts.tolist()


def test_what_is_no_number_is_not_counted() -> None:
    assert sketch_of([np.nan, np.inf, 1.0]).values.tolist() == [1.0]


def test_whole_numbers_stay_what_they_are_among_many_values() -> None:
    sketch = sketch_of([*MANY, *[64.0] * 50_000])
    assert sketch.quantile(0.9) == 64.0


def test_equal_distributions_are_not_apart_and_disjoint_ones_are() -> None:
    same = shift(sketch_of(MANY), sketch_of(MANY[::-1]))
    assert (same.ks, same.psi) == (0.0, pytest.approx(0.0))
    far = shift(sketch_of(MANY), sketch_of(-MANY))
    assert far.ks == 1.0
    assert far.psi > 1.0


def test_what_moves_below_a_value_that_nearly_all_had_is_seen() -> None:
    before = sketch_of([44_100.0] * 990 + [22_050.0] * 10)
    for elsewhere in (16_000.0, 48_000.0):
        assert shift(before, sketch_of([elsewhere] * 300)).psi > 1.0
    assert shift(before, before).psi == pytest.approx(0.0)


def test_the_distance_is_that_of_kolmogorov_and_smirnov() -> None:
    one, other = MANY[:1000], MANY[1000:2500] * 1.3
    values = np.sort(np.concatenate([one, other]))
    below = [np.searchsorted(np.sort(side), values, "right") / len(side) for side in (one, other)]
    expected = np.abs(below[0] - below[1]).max()
    assert shift(sketch_of(one), sketch_of(other)).ks == pytest.approx(expected)


def test_a_small_version_is_compared_with_a_large_one_by_the_same_rounding() -> None:
    assert shift(sketch_of([1 / 3] * 100), sketch_of([*[1 / 3] * 20_000, *MANY])).ks < 0.6


@pytest.mark.parametrize(
    ("values", "marks", "is_log"),
    [
        ([5.0], [], False),
        ([0.0, 0.0], [0.0], False),
        (list(range(30)), [10.0], False),
        (MANY, [], True),
        ([-1.0, 1.0, 3.5], [3.0], False),
    ],
)
def test_every_value_falls_in_a_bin_and_limits_stand_on_the_axis(
    values: list[float], marks: list[float], is_log: bool
) -> None:
    sketch = sketch_of(values)
    axis = axis_of(sketch, marks)
    assert axis.is_log == is_log
    assert sketch.within(axis.edges).sum() == sketch.num
    assert len(axis.edges) <= NUM_BINS + 2
    for mark in marks:
        place = axis.place(mark)
        assert place is not None
        assert 0 <= place <= 1


def test_whole_numbers_have_a_bin_each_while_they_are_few() -> None:
    sketch = sketch_of([1.0, 2.0, 2.0, 4.0])
    assert sketch.within(axis_of(sketch).edges).tolist() == [1, 2, 0, 1]


def test_a_limit_far_away_does_not_squeeze_the_values() -> None:
    axis = axis_of(sketch_of([0.5, 1.0, 1.5]), [600.0])
    assert axis.place(600.0) is None
    assert axis.high == 1.5
