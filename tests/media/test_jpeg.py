"""JPEG by its markers: what conforms, and what is cut out of it."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from mmcore.media.image import decode_image
from mmcore.media.jpeg import decode_into, decodes, jpeg_facts, without_metadata


def photo(width: int = 400, height: int = 300, *, mode: str = "RGB", **options: object) -> bytes:
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    pixels = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], axis=2) + noise
    buffer = io.BytesIO()
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"quality": 30, "subsampling": 2}, {"restart_marker_rows": 1}],
)
def test_a_plain_jpeg_says_its_size_without_being_decoded(options: dict[str, object]) -> None:
    facts = jpeg_facts(photo(**options))
    assert facts is not None
    assert (facts.width, facts.height, facts.num_components) == (400, 300, 3)
    assert (facts.orientation, facts.metadata) == (1, ())


def test_gray_has_one_component_and_cmyk_is_not_plain() -> None:
    facts = jpeg_facts(photo(mode="L"))
    assert facts is not None
    assert facts.num_components == 1
    assert jpeg_facts(photo(mode="CMYK")) is None


def test_a_file_that_is_cut_or_longer_or_two_is_not_whole() -> None:
    data = photo()
    for cut in (0, 1, 3, 20, 300, len(data) // 2, len(data) - 1):
        assert jpeg_facts(data[:cut]) is None, cut
    assert jpeg_facts(data + b"<script>") is None
    assert jpeg_facts(data + data) is None
    assert jpeg_facts(b"\x89PNG" + data) is None


def test_no_damage_of_the_markers_raises() -> None:
    data = bytearray(photo(64, 48))
    draw = np.random.default_rng(1)
    for _ in range(3000):
        broken = bytearray(data)
        for at in draw.integers(0, 700, 3):
            broken[at] = draw.integers(0, 256)
        facts = jpeg_facts(bytes(broken))
        if facts is not None:
            without_metadata(bytes(broken), facts)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_metadata_is_cut_out_and_the_pixels_stay_bit_for_bit(orientation: int) -> None:
    data = photo(exif=exif(orientation), comment=b"where I live", icc_profile=b"x" * 200)
    facts = jpeg_facts(data)
    assert facts is not None
    assert (facts.orientation, len(facts.metadata)) == (orientation, 3)
    bare = without_metadata(data, facts)
    assert b"Exif" not in bare
    assert b"where I live" not in bare
    assert (simplejpeg.decode_jpeg(bare) == simplejpeg.decode_jpeg(data)).all()
    again = jpeg_facts(bare)
    assert again is not None
    assert without_metadata(bare, again) is bare


def test_an_orientation_that_cannot_be_read_is_not_upright() -> None:
    data = photo(exif=exif(6))
    at = data.index(b"Exif")
    facts = jpeg_facts(data[: at + 10] + b"\xff\xff\xff\xff" + data[at + 14 :])
    assert facts is not None
    assert facts.orientation == 0


def test_a_jpeg_decodes_unless_something_is_wrong_with_it() -> None:
    assert decodes(photo())
    assert decodes(photo(progressive=True))
    assert not decodes(photo()[:3000])
    assert not decodes(b"\xff\xd8\xff")


def test_fill_bytes_before_a_marker_are_taken() -> None:
    data = photo()
    at = data.index(b"\xff\xdb")
    facts = jpeg_facts(data[:at] + b"\xff\xff" + data[at:])
    assert facts is not None
    assert facts.width == 400


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}])
def test_a_plain_jpeg_is_decoded_into_an_array_as_it_is_without_one(
    mode: str, options: dict[str, object]
) -> None:
    data = photo(mode=mode, **options)
    out = np.full((300, 400, 3), 7, np.uint8)
    assert decode_into(data, out)
    assert (out == decode_image(data)).all()


@pytest.mark.parametrize(
    "data",
    [
        photo(exif=exif(6)),
        photo(mode="CMYK"),
        photo(401),
        photo()[:5000],
        photo()[:30],
        photo()[:2],
        b"\x89PNG\r\n\x1a\n",
        b"",
    ],
    ids=["turned", "cmyk", "wider", "cut", "cut in its head", "a marker", "png", "nothing"],
)
def test_what_needs_another_look_is_not_decoded_into_an_array(data: bytes) -> None:
    assert not decode_into(data, np.zeros((300, 400, 3), np.uint8))


def test_what_one_header_said_is_not_believed_of_another() -> None:
    plain = photo(64, 48, quality=90)
    later = photo(64, 48, quality=80)
    turned = photo(64, 48, quality=90, exif=exif(6))
    larger = photo(80, 48, quality=90)
    cut = plain[:100]
    wanted = {plain: True, later: True, turned: False, larger: False, cut: False}
    for before in wanted:
        for after, is_decoded in wanted.items():
            out = np.zeros((48, 64, 3), np.uint8)
            decode_into(before, out)
            assert decode_into(after, out) == is_decoded
            if is_decoded:
                assert np.array_equal(out, decode_image(after))
