"""What a candidate must agree in besides its hash."""

import numpy as np
import pytest

from mmcore.media.near.compare import COMPARISONS, near_vectors
from mmcore.media.near.prints import float_bytes, held

THUMBNAIL = bytes(range(256))


def rows(*prints: bytes) -> np.ndarray:
    return np.frombuffer(b"".join(prints), np.uint8).reshape(len(prints), -1)


def near(modality: str, prints: np.ndarray, limit: float) -> tuple:
    return COMPARISONS[modality].pairs(held(prints), limit)


def pairs(found: tuple) -> list[tuple[int, int]]:
    (left, right), values = found
    assert len(left) == len(right) == len(values)
    return list(zip(left.tolist(), right.tolist(), strict=True))


def picture(luma: bytes = THUMBNAIL, chroma: bytes = bytes(32)) -> bytes:
    return b"\xf0" * 8 + luma + chroma


def sound(
    peaks: tuple[float, float] = (300.0, 400.0), seconds: float = 2.0, bits: int = 0x5A
) -> bytes:
    return bytes([bits]) * 64 + float_bytes(*peaks, seconds)


def film(seconds: float, *hashes: int) -> bytes:
    return b"".join(value.to_bytes(8, "big") for value in hashes) + float_bytes(seconds)


def test_pictures_of_one_hash_must_agree_in_their_thumbnails() -> None:
    darker = bytes(value // 2 for value in THUMBNAIL)
    assert pairs(near("image", rows(picture(), picture(darker)), 3)) == [(0, 1)]
    assert pairs(near("image", rows(picture(), picture(THUMBNAIL[::-1])), 3)) == []
    patched = bytearray(THUMBNAIL)
    patched[200:210] = bytes(10)
    assert pairs(near("image", rows(picture(), picture(bytes(patched))), 3)) == []


def test_pictures_of_one_hash_must_agree_in_their_colours() -> None:
    for differing, expected in ((20, [(0, 1)]), (21, [])):
        other = picture(chroma=bytes(31) + bytes([differing]))
        assert pairs(near("image", rows(picture(), other), 3)) == expected


@pytest.mark.parametrize(
    ("other", "is_near"),
    [
        (sound((300.0, 500.0)), True),
        (sound((301.0, 900.0)), True),
        (sound((318.0, 424.0)), False),
        (sound(seconds=2.1), True),
        (sound(seconds=2.2), False),
        (sound(bits=0x5B), True),
        (sound(bits=0x5F), False),
    ],
)
def test_sounds_must_agree_in_pitch_length_and_most_bits(other: bytes, is_near: bool) -> None:
    # the first word of all is equal, so that they are looked at
    prints = rows(sound(), other).copy()
    prints[1, :8] = prints[0, :8]
    assert pairs(near("audio", prints, 0.7)) == ([(0, 1)] if is_near else [])


def test_films_must_agree_in_most_frames_and_in_length() -> None:
    seen = [0x0F0F_0000_1111_2222 + i for i in range(8)]
    other = [seen[0], *(value ^ 0xFFFF_FFFF for value in seen[1:])]
    blank = [*seen[:3], 0, 0, 0, 0, 0]
    assert pairs(near("video", rows(film(9.0, *seen), film(9.2, *seen)), 3)) == [(0, 1)]
    assert pairs(near("video", rows(film(9.0, *seen), film(9.9, *seen)), 3)) == []
    assert pairs(near("video", rows(film(9.0, *seen), film(9.0, *other)), 3)) == []
    assert pairs(near("video", rows(film(9.0, *seen), film(9.0, *blank)), 3)) == []


def test_vectors_are_compared_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmcore.media.near.compare._ROWS_AT_ONCE", 7)
    vectors = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    vectors[33] = vectors[2] * 3
    vectors[9] = 0
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    cosine = unit @ unit.T
    expected = {(i, j) for i in range(40) for j in range(i + 1, 40) if cosine[i, j] > 0.9}
    assert (2, 33) in expected
    assert set(pairs(near_vectors(held(vectors.view(np.uint8)), 0.9))) == expected
