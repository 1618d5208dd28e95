"""Sizes: what margins become of, and how close a fast way comes to a good one."""

import numpy as np
import pytest
from PIL import Image

from mmcore.media.array import Pixels
from mmcore.media.resize import fit_within, halved, needed_for, resize, resize_square


def test_padding_is_white_and_keeps_proportions() -> None:
    square = resize_square(np.zeros((10, 20, 3), np.uint8), 40)
    assert square.shape == (40, 40, 3)
    dark_rows = np.flatnonzero((square == 0).all(axis=(1, 2)))
    assert dark_rows.tolist() == list(range(10, 30))
    assert (square[0] == 255).all()


def test_crop_keeps_the_middle() -> None:
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 200
    assert (resize_square(image, 5, fit="crop") == 200).all()


def test_stretch_keeps_all() -> None:
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, :15] = 200
    square = resize_square(image, 10, fit="stretch")
    assert (square[:, :5] == 200).all()
    assert (square[:, 5:] == 0).all()


@pytest.mark.parametrize("shape", [(1, 1000), (1000, 1), (1, 1), (64, 64)])
@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_any_proportion_becomes_square(shape: tuple[int, int], fit: str) -> None:
    assert resize_square(np.zeros((*shape, 3), np.uint8), 16, fit=fit).shape == (16, 16, 3)


def textured(height: int, width: int) -> Pixels:
    y, x = np.mgrid[:height, :width]
    waves = 127 + 60 * np.sin(x / 3.1 + y / 7) + 60 * np.cos(y / 4.3 - x / 11)
    noise = np.random.default_rng(0).normal(0, 6, (height, width))
    gray = (waves + noise).clip(0, 255).astype(np.uint8)
    return np.stack([gray, gray[::-1], 255 - gray], axis=2)


@pytest.mark.parametrize("side", [30, 80, 160, 171, 230, 260, 300, 319])
def test_a_smaller_picture_is_as_close_to_a_good_filter_as_averaging_is(side: int) -> None:
    import cv2

    image = textured(320, 321)
    size = (side, side)
    good = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), float)
    averaged = cv2.resize(image, size, interpolation=cv2.INTER_AREA)

    def error(found: Pixels) -> float:
        return float(np.sqrt(np.mean((found - good) ** 2)))

    assert error(resize(image, side, side)) < 1.5 * error(averaged) + 0.5


def test_no_row_is_left_out_that_a_result_could_show() -> None:
    # every second row and column black: what is passed over would leave stripes, or nothing
    image = np.zeros((600, 600, 3), np.uint8)
    image[::2, ::2] = 255
    for side in (340, 310, 299, 200, 100, 37):
        small = resize(image, side, side).astype(int)
        assert np.abs(small - 64).max() <= 30, side
        assert abs(small.mean() - 64) < 3, side


@pytest.mark.parametrize(
    ("shape", "size"), [((400, 30), (40, 29)), ((30, 400), (29, 40)), ((9, 900), (9, 9))]
)
def test_proportions_may_change_a_lot(shape: tuple[int, int], size: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 90, np.uint8)
    small = resize(image, *size)
    assert small.shape == (*size, 3)
    assert (small == 90).all()


def test_an_odd_row_is_left_out_only_where_nobody_would_see_it() -> None:
    image = textured(161, 161)
    assert halved(image, 40, 40) is image
    assert halved(image, 20, 20).shape == (20, 20, 3)


def test_nothing_is_done_to_a_picture_of_the_size() -> None:
    image = textured(40, 60)
    assert resize(image, 40, 60) is image
    assert fit_within(image, 60) is image


def test_a_picture_is_halved_while_enough_is_left() -> None:
    assert halved(textured(160, 328), 40, 40).shape == (40, 82, 3)
    assert halved(textured(160, 328), 41, 1).shape == (80, 164, 3)
    assert halved(textured(160, 328), 10, 10, times=4).shape == (40, 82, 3)
    gray = textured(64, 64)[..., 0]
    assert halved(gray, 16, 16).shape == (16, 16)
    assert abs(float(halved(gray, 16, 16).mean()) - float(gray.mean())) < 1


@pytest.mark.parametrize(
    ("fit", "least"),
    [("inside", (100, 50)), ("pad", (100, 50)), ("crop", (200, 100)), ("stretch", (100, 100))],
)
def test_what_is_needed_is_what_comes_out_before_it_is_cut(
    fit: str, least: tuple[int, int]
) -> None:
    assert needed_for(100, fit)(800, 400) == least  # type: ignore[arg-type]


def test_equal_pixels_give_equal_pixels_however_they_lie_in_memory() -> None:
    image = textured(300, 200)
    for side in (50, 120, 190, 400):
        one = resize_square(image, side)
        np.testing.assert_array_equal(one, resize_square(np.asfortranarray(image), side))
