import io

import pytest
from media import FLAC, MP4, OGG, png
from PIL import Image

from mmcore.media.kind import extension_of


def encoded(form: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, form)
    return out.getvalue()


@pytest.mark.parametrize(
    ("form", "extension"),
    [
        ("JPEG", "jpg"),
        ("PNG", "png"),
        ("WEBP", "webp"),
        ("GIF", "gif"),
        ("BMP", "bmp"),
        ("TIFF", "tiff"),
        ("PPM", "ppm"),
    ],
)
def test_a_picture_is_known_by_its_first_bytes(form: str, extension: str) -> None:
    assert extension_of(encoded(form)) == extension


@pytest.mark.parametrize(
    ("data", "extension"),
    [
        (FLAC, "flac"),
        (OGG, "ogg"),
        (MP4, "mp4"),
        (bytes(4) + b"ftypM4A ", "m4a"),
        (b"RIFF0000WAVEfmt ", "wav"),
        (b"ID3\4", "mp3"),
        (b"\xff\xfb\x90\x64", "mp3"),
        (b"\x1aE\xdf\xa3" + bytes(8) + b"webm", "webm"),
        (b"<?xml version='1.0'?>\n<!-- x --><svg xmlns=''>", "svg"),
    ],
)
def test_sound_film_and_drawings_are_known(data: bytes, extension: str) -> None:
    assert extension_of(data) == extension


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<!DOCTYPE html><html>",
        b"{}",
        b"%PDF-1.7",
        b"\x1f\x8b",
        bytes(4) + b"ftypavif",
        png()[1:],
    ],
)
def test_anything_else_is_nothing(data: bytes) -> None:
    assert extension_of(data) is None
