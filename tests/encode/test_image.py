"""Encoding of pictures: square, renamed, the same bytes every time."""

import io

import numpy as np
import pytest
from PIL import Image

from mmcore.encode.image import EncodeImage
from mmcore.errors import ConfigError, SampleError
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


def photo(width: int, height: int, image_format: str = "JPEG", **options: object) -> Sample:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 / width, y * 255 / height, (x * y) % 256], axis=2).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return Sample("a", parts={"jpg": Part(data=buffer.getvalue())})


def opened(sample: Sample, extension: str = "jpg") -> Image.Image:
    return Image.open(io.BytesIO(sample.data(extension)))


def upside_down() -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = 3
    return made


def test_inside_keeps_proportions_and_enlarges_nothing() -> None:
    stage = EncodeImage(fit="inside", side=100)
    assert opened(encoded(stage, photo(400, 300))).size == (100, 75)
    assert opened(encoded(stage, photo(40, 30))).size == (40, 30)


def test_webp_is_written() -> None:
    outcome = encoded(EncodeImage(format="webp", side=32), photo(64, 64))
    assert list(outcome.parts) == ["webp"]
    image = opened(outcome, "webp")
    assert (image.format, image.size) == ("WEBP", (32, 32))


def test_a_jpeg_that_conforms_passes_through_byte_for_byte() -> None:
    for proof in ("decode", "markers"):
        stage = EncodeImage(fit="inside", side=400, pass_through=True, proof=proof)  # type: ignore[arg-type]
        for sample in (photo(400, 300), photo(40, 30, progressive=True)):
            assert encoded(stage, sample) is sample
    square = photo(64, 64)
    assert encoded(EncodeImage(side=64, pass_through=True), square) is square


def test_a_jpeg_that_passes_through_under_another_name_is_renamed() -> None:
    data = photo(64, 64).data("jpg")
    sample = Sample("a", parts={"photo.jpeg": Part(data=data)})
    outcome = encoded(EncodeImage(side=64, pass_through=True), sample)
    assert {name: part.data for name, part in outcome.parts.items()} == {"jpg": data}


def test_nothing_passes_through_unless_it_is_asked_for() -> None:
    sample = photo(64, 64)
    assert encoded(EncodeImage(side=64), sample).data("jpg") != sample.data("jpg")


def test_metadata_does_not_pass_through_and_the_rest_does() -> None:
    stage = EncodeImage(fit="inside", side=400, pass_through=True)
    exif = Image.Exif()
    exif[0x010F] = "maker"
    outcome = encoded(stage, photo(400, 300, exif=exif, comment=b"where I live"))
    assert outcome.data("jpg") == photo(400, 300).data("jpg")


@pytest.mark.parametrize(
    ("sample", "why"),
    [
        (photo(401, 300), "is too large"),
        (photo(400, 300, "PNG"), "is no JPEG"),
        (photo(400, 300, exif=upside_down()), "is turned"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_conform_is_encoded_anew(sample: Sample, why: str) -> None:
    stage = EncodeImage(fit="inside", side=400, pass_through=True)
    outcome = encoded(stage, sample)
    assert outcome.data("jpg") != sample.data("jpg")
    image = opened(outcome)
    assert (image.format, max(image.size), image.getexif().get(0x0112)) == ("JPEG", 400, None)
    if why == "is turned":
        before = np.asarray(opened(sample).convert("L"), int)[::-1, ::-1]
        assert np.abs(np.asarray(image.convert("L"), int) - before).mean() < 8


def test_a_jpeg_whose_markers_are_whole_and_whose_pixels_are_not_does_not_pass() -> None:
    data = bytearray(photo(400, 300).data("jpg"))
    at = data.index(b"\xff\xda") + 20
    del data[at : at + len(data) // 2]
    sample = Sample("a", parts={"jpg": Part(data=bytes(data))})
    markers = EncodeImage(fit="inside", side=400, pass_through=True, proof="markers")
    assert encoded(markers, sample) is sample  # what `proof: markers` says it does
    stage = EncodeImage(fit="inside", side=400, pass_through=True)
    # it is decoded as far as readers of the field do, and what comes of that is whole
    assert encoded(stage, sample).data("jpg") != sample.data("jpg")


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch", "inside"])
def test_scaled_decoding_is_close_to_decoding_all_of_it(fit: str) -> None:
    sample = photo(1000, 700, quality=95, subsampling=0)
    stage = EncodeImage(fit=fit, side=100, format="png")  # type: ignore[arg-type]
    small = np.asarray(opened(encoded(stage, sample), "png"), int)
    whole = Sample("a", parts={"png": Part(data=_as_png(sample))})
    reference = np.asarray(opened(encoded(stage, whole), "png"), int)
    assert small.shape == reference.shape
    assert np.abs(small - reference)[5:-5, 5:-5].mean() < 6


def test_settings_that_make_no_sense_are_refused() -> None:
    for fields in ({"side": 0}, {"quality": 101}, {"decode_factor": 0.5}):
        with pytest.raises(ConfigError, match="encode_image: side="):
            EncodeImage(**fields)  # type: ignore[arg-type]


def _as_png(sample: Sample) -> bytes:
    buffer = io.BytesIO()
    opened(sample).save(buffer, "PNG")
    return buffer.getvalue()


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
