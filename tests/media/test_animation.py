"""Frames are counted by containers that Pillow writes, and hostile ones end the count."""

import io
import struct
import time

import pytest
from PIL import Image

from mmcore.media.animation import MAX_FRAMES, count_frames

PICTURES = [Image.new("RGB", (8, 8), (40 * i, 0, 0)) for i in range(5)]


def file(image_format: str, num_frames: int) -> bytes:
    buffer = io.BytesIO()
    PICTURES[0].save(
        buffer, image_format, save_all=True, append_images=PICTURES[1:num_frames], lossless=True
    )
    return buffer.getvalue()


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_frames_of_every_format_are_counted(image_format: str, num_frames: int) -> None:
    assert count_frames(file(image_format, num_frames)) == num_frames


def test_big_endian_pages_are_counted() -> None:
    directory = struct.pack(">H", 0)
    data = b"MM\0*" + struct.pack(">I", 8) + directory + struct.pack(">I", 14) + directory
    assert count_frames(data + struct.pack(">I", 0)) == 2


@pytest.mark.parametrize("data", [b"", b"BM", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP"])
def test_what_says_nothing_is_one(data: bytes) -> None:
    assert count_frames(data) == 1


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_cut_files_are_counted_as_far_as_they_go(image_format: str) -> None:
    whole = file(image_format, 5)
    counts = [count_frames(whole[:length]) for length in range(len(whole))]
    assert min(counts) == 1
    assert max(counts) <= 5


def test_pages_that_point_at_themselves_end() -> None:
    data = b"II*\0" + struct.pack("<IHI", 8, 0, 8)
    assert count_frames(data) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"GIF89a" + bytes(7) + (b"\x2c" + bytes(9) + b"\x08\0") * 2_000_000,
        b"RIFF\0\0\0\0WEBP" + b"ANMF\0\0\0\0" * 2_000_000,
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sI", 8, b"acTL", 0xFFFFFFFF) + bytes(8),
    ],
)
def test_counting_ends_at_the_limit(data: bytes) -> None:
    started = time.process_time()
    assert count_frames(data) == MAX_FRAMES
    # bounded by the limit, not by the file: half a second on a slow machine
    assert time.process_time() - started < 5
