"""The perceptual hash against its definition, and what it forgives."""

import math

import cv2
import numpy as np
import pytest

from mmcore.ingest import scenes
from mmcore.media.image import decode_image, encode_jpeg
from mmcore.media.near.prints import PICTURE_PRINT_BYTES
from mmcore.media.phash import frame_hash, perceptual_hash, picture_print

SCENE = scenes.Scene(shape="star", colour="red", size="large", field="teal")


def picture(seed: int = 0, side: int = 160) -> np.ndarray:
    return scenes.draw(SCENE, np.random.default_rng(seed), width=side, height=side)


def hash_by_definition(luma: np.ndarray) -> int:
    """The DCT-II as its sum is written, in Python's floats."""
    low = []
    for u in range(8):
        for v in range(8):
            total = 0.0
            for y in range(32):
                for x in range(32):
                    wave = math.cos(math.pi * (2 * y + 1) * u / 64) * math.cos(
                        math.pi * (2 * x + 1) * v / 64
                    )
                    total += float(luma[y, x]) * wave
            low.append(total)
    median = (sorted(low)[31] + sorted(low)[32]) / 2
    return int("".join("1" if value > median else "0" for value in low), 2)


def differing(one: int, other: int) -> int:
    return (one ^ other).bit_count()


@pytest.mark.parametrize("seed", range(4))
def test_hash_is_that_of_the_definition(seed: int) -> None:
    image = picture(seed, side=32)
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)[..., 0]
    assert perceptual_hash(image) == hash_by_definition(luma)
    assert frame_hash(luma) == hash_by_definition(luma)


@pytest.mark.parametrize(
    "changed",
    [
        lambda image: scenes.resized(image, width=90, height=90),
        lambda image: decode_image(encode_jpeg(image, quality=40, subsampling="420")),
        lambda image: np.clip(image.astype(int) + 20, 0, 255).astype(np.uint8),
        lambda image: (image * 0.85).astype(np.uint8),
        lambda image: scenes.resized(image, width=120, height=170),
    ],
    ids=["smaller", "recompressed", "brighter", "darker", "stretched"],
)
def test_copies_stay_within_a_few_bits(changed) -> None:
    for seed in range(20):
        image = picture(seed)
        assert differing(perceptual_hash(image), perceptual_hash(changed(image))) <= 6


def test_pictures_of_one_scene_are_far_apart() -> None:
    hashes = [perceptual_hash(picture(seed)) for seed in range(20)]
    nearest = min(differing(a, b) for i, a in enumerate(hashes) for b in hashes[:i])
    assert nearest > 8


def test_print_begins_with_the_hash() -> None:
    image = picture()
    found = picture_print(image)
    assert found is not None
    data = found.to_bytes()
    assert len(data) == PICTURE_PRINT_BYTES
    assert int.from_bytes(data[:8], "big") == found.hash == perceptual_hash(image)


@pytest.mark.parametrize("side", [1, 7, 500])
def test_picture_of_one_colour_has_no_print(side: int) -> None:
    flat = np.full((side, side, 3), 200, np.uint8)
    assert picture_print(flat) is None
    assert frame_hash(flat[..., 0]) is None
