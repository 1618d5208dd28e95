"""What a picture looks like, in few bytes that outlive another size, codec or brightness.

The hash finds what may be the same picture; the thumbnail beside it says whether it is. All of it
is integer arithmetic on a resized picture: equal pixels give equal bytes on any machine.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mmcore.media.array import Pixels
from mmcore.media.near.prints import CHROMA_SIDE, HASH_BITS, LUMA_SIDE
from mmcore.media.resize import halved

_SIDE = 32
_LOW = 8
_TIMES = 4
# of the brightest and darkest of 32 x 32 places: with less in it, the hash would be noise
_MIN_CONTRAST = 8

Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class PicturePrint:
    """A picture's hash and its thumbnail."""

    hash: int
    """64 bits; see `perceptual_hash`."""
    luma: bytes
    """16 x 16, row by row."""
    chroma: bytes
    """Cr and Cb, 4 x 4 of pairs, row by row."""

    def to_bytes(self) -> bytes:
        """Return 296 bytes: the hash (big-endian), luma, chroma."""
        return self.hash.to_bytes(HASH_BITS // 8, "big") + self.luma + self.chroma


def picture_print(image: Pixels) -> PicturePrint | None:
    """Return the print of uint8 RGB [H, W, 3], or None where there is nothing to be seen."""
    # resizing in RGB first: converting millions of pixels would cost more than all the rest
    small = _small(image)
    colours = cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb)
    luma = colours[..., 0]
    if _is_flat(luma):
        return None
    thumbnail = cv2.resize(luma, (LUMA_SIDE, LUMA_SIDE), interpolation=cv2.INTER_AREA)
    chroma = cv2.resize(colours[..., 1:], (CHROMA_SIDE, CHROMA_SIDE), interpolation=cv2.INTER_AREA)
    return PicturePrint(_hash_of(luma), thumbnail.tobytes(), chroma.tobytes())


def perceptual_hash(image: Pixels) -> int:
    """Return 64 bits that near pictures share all but a few of.

    A bit for each of the 8 x 8 lowest frequencies (DCT-II of 32 x 32 luma), by rows, the first one
    highest: whether it is above their median. Zauner, "Implementation and Benchmarking of
    Perceptual Image Hash Functions" (2010), section 3.2.1.
    """
    return _hash_of(cv2.cvtColor(_small(image), cv2.COLOR_RGB2YCrCb)[..., 0])


def frame_hash(luma: Pixels) -> int | None:
    """Return the perceptual hash of uint8 luma [H, W], or None where nothing is to be seen."""
    small = _averaged(luma)
    return None if _is_flat(small) else _hash_of(small)


def _small(image: Pixels) -> Pixels:
    # halving first is some times as fast, and what it leaves out of an odd number is little
    return _averaged(halved(image, _SIDE, _SIDE, times=_TIMES))


def _averaged(image: Pixels) -> Pixels:
    small = cv2.resize(np.ascontiguousarray(image), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def _is_flat(luma: Pixels) -> bool:
    return int(luma.max()) - int(luma.min()) < _MIN_CONTRAST


def _hash_of(luma: Pixels) -> int:
    low = _COSINES @ luma.astype(np.int64) @ _COSINES.T
    ordered = np.sort(low, axis=None)
    # twice the median: the mean of the middle two, in whole numbers
    middle = ordered[_LOW * _LOW // 2 - 1] + ordered[_LOW * _LOW // 2]
    return int.from_bytes(np.packbits(2 * low > middle).tobytes(), "big")


def _cosines() -> Ints:
    """Return the 8 lowest rows of the DCT-II of 32 points, times 2**16 and rounded."""
    frequency, place = np.arange(_LOW)[:, None], np.arange(_SIDE)[None]
    waves = np.cos(np.pi * (2 * place + 1) * frequency / (2 * _SIDE))
    return np.asarray(np.rint(waves * 2**16), np.int64)


_COSINES = _cosines()
