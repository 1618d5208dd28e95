"""Pictures made smaller and larger: every pixel that goes in counts, and none counts for long.

Area averaging by a whole number is fast, and by any other takes as long as decoding does. So a
picture is halved as often as that can be done, and what is left to do is interpolated: as close to
a slow filter of high quality as averaging is.
"""

import math
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np

from mmcore.media.array import Pixels

Fit = Literal["pad", "crop", "stretch"]
Needed = Callable[[int, int], tuple[int, int]]
"""From (width, height) of a whole picture to the least of them that it may be decoded at."""

WHITE = 255

_SMOOTH = 4 / 3
"""Up to this, no pixel is passed over by interpolation between two."""

_LITTLE = 8
"""Less than one in so many of a row or column that comes out."""


def needed_for(side: float, fit: Fit | Literal["inside"]) -> Needed:
    """Return what tells how many pixels of a picture are of use where it comes to fit so."""

    def needed(width: int, height: int) -> tuple[int, int]:
        if fit == "stretch":
            return math.ceil(side), math.ceil(side)
        scale = side / (min if fit == "crop" else max)(width, height)
        # what floats are above a whole number would ask for the next larger scale
        return math.ceil(width * scale - 1e-6), math.ceil(height * scale - 1e-6)

    return needed


def resize_square(image: Pixels, side: int, *, fit: Fit = "pad") -> Pixels:
    """Return a picture as uint8 [side, side, 3].

    `pad` keeps all of it on white, `crop` keeps the middle, `stretch` changes its proportions.
    """
    height, width = image.shape[:2]
    if fit == "stretch":
        return resize(image, side, side)
    if fit == "crop":
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        return resize(image[top : top + short, left : left + short], side, side)
    scale = side / max(height, width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    canvas = np.full((side, side, 3), WHITE, np.uint8)
    top, left = (side - new_height) // 2, (side - new_width) // 2
    canvas[top : top + new_height, left : left + new_width] = resize(image, new_height, new_width)
    return canvas


def fit_within(image: Pixels, side: int) -> Pixels:
    """Return a picture, of colours or gray, with at most `side` pixels a side; never enlarged."""
    height, width = image.shape[:2]
    if max(height, width) <= side:
        return image
    scale = side / max(height, width)
    return resize(image, max(1, round(height * scale)), max(1, round(width * scale)))


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """Return a picture, of colours or gray, with so many pixels; equal pixels give equal pixels."""
    if height > image.shape[0] or width > image.shape[1]:
        return _interpolated(image, height, width, cv2.INTER_CUBIC)
    image = halved(image, height, width)
    ratio = max(image.shape[0] / height, image.shape[1] / width)
    if ratio == 1:
        return image
    if ratio <= _SMOOTH:
        return _interpolated(image, height, width, cv2.INTER_LINEAR)
    if ratio >= 2:  # far narrower than it was, and hardly lower
        return _interpolated(image, height, width, cv2.INTER_AREA)
    return _half(_interpolated(image, 2 * height, 2 * width, cv2.INTER_LINEAR))


def halved(image: Pixels, height: int, width: int, *, times: int = 1) -> Pixels:
    """Return a picture that is to have so many pixels, halved while it has some times as many.

    Of an odd number of rows or columns the last is left out where that is too little to be seen,
    and else nothing is halved.
    """
    while image.shape[0] >= 2 * times * height and image.shape[1] >= 2 * times * width:
        rows, columns = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        is_little = image.shape[0] >= _LITTLE * height and image.shape[1] >= _LITTLE * width
        if (rows, columns) != image.shape[:2] and not is_little:
            break
        image = _half(image[:rows, :columns])
    return image


def _half(image: Pixels) -> Pixels:
    return _interpolated(image, image.shape[0] // 2, image.shape[1] // 2, cv2.INTER_AREA)


def _interpolated(image: Pixels, height: int, width: int, method: int) -> Pixels:
    resized = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=method)
    return np.asarray(resized, np.uint8)
