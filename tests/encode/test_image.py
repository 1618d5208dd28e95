"""Encoding of pictures: square, renamed, the same bytes every time."""

import io

import numpy as np
import pytest
from PIL import Image

from mmcore.encode.image import EncodeImage
from mmcore.errors import SampleError
from mmcore.sample import Part, Sample


def picture(image_format: str = "PNG", extension: str = "png") -> Sample:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20] = (200, 40, 40)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format)
    return Sample("a", parts={extension: Part(data=buffer.getvalue()), "txt": Part(data=b"Red.")})


def encoded(stage: EncodeImage, sample: Sample) -> Sample:
    outcome = stage.build()(sample)
    assert isinstance(outcome, Sample)
    return outcome


@pytest.mark.parametrize(("extension", "name"), [("jpg", "JPEG"), ("png", "PNG")])
def test_picture_becomes_square_and_is_named_by_its_format(extension: str, name: str) -> None:
    stage = EncodeImage(side=32, format=extension)  # type: ignore[arg-type]
    outcome = encoded(stage, picture("WEBP", "photo.webp"))
    assert sorted(outcome.parts) == sorted([extension, "txt"])
    image = Image.open(io.BytesIO(outcome.data(extension)))
    assert (image.format, image.size, image.mode) == (name, (32, 32), "RGB")


def test_png_replaces_a_png() -> None:
    sample = picture()
    outcome = encoded(EncodeImage(side=16, format="png"), sample)
    assert sorted(outcome.parts) == ["png", "txt"]
    assert outcome.data("png") != sample.data("png")


def test_jpeg_keeps_colours_at_full_resolution() -> None:
    image = Image.open(io.BytesIO(encoded(EncodeImage(), picture()).data("jpg")))
    assert [(part[1], part[2]) for part in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]


def test_fit_decides_about_the_margins() -> None:
    corners = {}
    for fit in ("pad", "crop", "stretch"):
        stage = EncodeImage(side=40, format="png", fit=fit)  # type: ignore[arg-type]
        image = Image.open(io.BytesIO(encoded(stage, picture()).data("png")))
        corners[fit] = image.getpixel((0, 0))
    assert corners == {"pad": (255, 255, 255), "crop": (200, 40, 40), "stretch": (200, 40, 40)}


def test_same_picture_gives_the_same_bytes() -> None:
    stage = EncodeImage()
    assert encoded(stage, picture()).parts == encoded(stage, picture()).parts


def test_broken_picture_is_quarantined() -> None:
    with pytest.raises(SampleError) as caught:
        EncodeImage().build()(Sample("a", parts={"png": Part(data=picture().data("png")[:60])}))
    assert caught.value.reason == "image_undecodable"


def test_sample_without_a_picture_passes_through() -> None:
    sample = Sample("a", parts={"txt": Part(data=b"Red.")})
    assert EncodeImage().build()(sample) is sample
