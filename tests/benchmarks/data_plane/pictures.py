"""Pictures to measure with: noisy photographs of known sizes, and the bare loop over them."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

SIDE = 341
"""The longer side of what comes out: of 4 to 3, the shorter one then has 256 pixels."""
QUALITY = 95
SMALL, _MEDIUM, _LARGE = (320, 448, 512), (640, 960, 1280, 1600), (2048, 2592, 3264, 4096)
_KINDS = "smlmsmsmlmsmslmsmlms"
"""Of twenty, seven are small, nine medium and four large."""


def write_pictures(directory: Path, *, num_pictures: int, width: int) -> list[bytes]:
    """Write JPEGs of 4 to 3, two bits a pixel, no two alike; return their bytes."""
    draw = _Draw(width)
    return _written(directory, (draw.jpeg(number, quality=92) for number in range(num_pictures)))


def write_mix(directory: Path, *, num_pictures: int) -> list[bytes]:
    """Write what is found on the web: 300 to 4000 px, quality 75 to 95, every seventh progressive."""
    sizes = {"s": SMALL, "m": _MEDIUM, "l": _LARGE}
    draws = {width: _Draw(width) for some in sizes.values() for width in some}

    def jpegs() -> Iterator[bytes]:
        for number in range(num_pictures):
            some = sizes[_KINDS[number % len(_KINDS)]]
            draw = draws[some[number // 7 % len(some)]]
            yield draw.jpeg(number, quality=75 + number * 3 % 21, progressive=number % 7 == 3)

    return _written(directory, jpegs())


def _written(directory: Path, pictures: Iterable[bytes]) -> list[bytes]:
    directory.mkdir(parents=True, exist_ok=True)
    found = list(pictures)
    for number, data in enumerate(found):
        (directory / f"p{number:06d}.jpg").write_bytes(data)
    return found


class _Draw:
    """Photographs of one width: soft shapes, others each time, under the noise of a camera."""

    def __init__(self, width: int) -> None:
        self.width, self.height = width, width * 3 // 4
        more = (self.height + 97, self.width + 89, 3)
        self._noise = np.random.default_rng(width).normal(0, 4, more).astype(np.int16)

    def jpeg(self, number: int, *, quality: int, progressive: bool = False) -> bytes:
        soft = np.random.default_rng(number).integers(0, 256, (12, 16, 3)).astype(np.uint8)
        base = cv2.resize(soft, (self.width, self.height), interpolation=cv2.INTER_CUBIC)
        top, left = number % 97, number * 7 % 89
        noise = self._noise[top : top + self.height, left : left + self.width]
        pixels = (base.astype(np.int16) + noise).clip(0, 255).astype(np.uint8)
        if progressive:
            how = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
            return bytes(cv2.imencode(".jpg", pixels, how)[1].tobytes())
        return bytes(simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling="420"))


def bare(pictures: list[bytes], side: int = SIDE) -> int:
    """Decode, resize and encode, and nothing else; return how many bytes came out."""
    num_bytes = 0
    for data in pictures:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        scale = side / max(height, width)
        size = round(width * scale), round(height * scale)
        pixels = simplejpeg.decode_jpeg(data, min_width=size[0], min_height=size[1])
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        num_bytes += len(simplejpeg.encode_jpeg(small, quality=QUALITY, colorsubsampling="420"))
    return num_bytes
