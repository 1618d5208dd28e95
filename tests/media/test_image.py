"""Pictures: every format that is taken, and what hostile or broken bytes become."""

import io
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from mmcore.errors import SampleError
from mmcore.media.image import (
    decode_image,
    decode_picture,
    encode_jpeg,
    encode_png,
    image_size,
    over_limit,
    picture_of,
)
from mmcore.sample import Part, Sample


def photo(height: int = 24, width: int = 40) -> np.ndarray:
    """A smooth picture whose four corners differ."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * x / width, 255 * y / height, 255 - 127 * (x / width + y / height)]
    return np.stack(channels, axis=2).astype(np.uint8)


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )


def reason_of(data: bytes, **limits: int) -> str:
    with pytest.raises(SampleError) as caught:
        decode_image(data, **limits)
    assert caught.value.detail
    assert "0x" not in caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_exactly(image_format: str) -> None:
    decoded = decode_image(encoded(Image.fromarray(photo()), image_format))
    np.testing.assert_array_equal(decoded, photo())
    assert decoded.dtype == np.uint8


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP"])
def test_lossy_formats_come_back_nearly(image_format: str) -> None:
    decoded = decode_image(encoded(Image.fromarray(photo()), image_format, quality=95))
    assert np.abs(decoded.astype(int) - photo()).mean() < 4


def test_of_an_animation_the_first_frame_is_taken() -> None:
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    data = encoded(red, "GIF", save_all=True, append_images=[blue])
    assert decode_image(data)[4, 4].tolist() == [255, 0, 0]


def test_gray_jpeg_becomes_three_equal_channels() -> None:
    decoded = decode_image(encoded(Image.fromarray(photo()).convert("L"), "JPEG"))
    assert decoded.shape == (24, 40, 3)
    assert (decoded[:, :, 0] == decoded[:, :, 2]).all()


def test_cmyk_jpeg_becomes_rgb() -> None:
    cmyk = Image.new("RGB", (16, 16), (250, 20, 20)).convert("CMYK")
    assert np.abs(decode_image(encoded(cmyk, "JPEG"))[8, 8].astype(int) - [250, 20, 20]).max() < 8


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (4, 0, 8, 8))
    decoded = decode_image(encoded(image.convert(mode), "PNG"))
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert decoded[0, 7].tolist() == [0, 0, 0]


def test_half_transparent_black_becomes_middle_gray() -> None:
    data = encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128)), "PNG")
    assert decode_image(data)[0, 0].tolist() == [127, 127, 127]


def test_sixteen_bits_become_eight() -> None:
    gray = np.array([[0, 0x7FFF, 0xFFFF]], np.uint16)
    decoded = decode_image(encoded(Image.fromarray(gray), "PNG"))
    assert decoded[0, :, 0].tolist() == [0, 127, 255]


def test_the_transparent_value_of_sixteen_bit_gray_becomes_white() -> None:
    gray = np.array([[0, 0x1234, 0x7FFF]], np.uint16)
    decoded = decode_image(encoded(Image.fromarray(gray), "PNG", transparency=0x1234))
    assert decoded[0, :, 0].tolist() == [0, 255, 127]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(photo()), image_format, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    decoded = decode_image(data)
    assert decoded.shape == (upright.height, upright.width, 3)
    assert np.abs(decoded.astype(int) - np.asarray(upright.convert("RGB"))).max() <= 4
    assert decoded.flags["C_CONTIGUOUS"]


def test_broken_exif_turns_nothing() -> None:
    data = encoded(Image.fromarray(photo()), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f")
    assert decode_image(data).shape == (24, 40, 3)


def test_stray_bytes_after_a_jpeg_are_forgiven() -> None:
    data = encoded(Image.fromarray(photo()), "JPEG")
    np.testing.assert_array_equal(decode_image(data + b"camera maker's note"), decode_image(data))


@pytest.mark.parametrize(
    "data",
    [b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"", b"hello", b"P6 1 1 255 abc", b"%!PS"],
)
def test_other_formats_are_refused(data: bytes) -> None:
    assert reason_of(data) == "image_format_refused"


def test_float_tiff_is_refused() -> None:
    data = encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF")
    assert reason_of(data) == "image_format_refused"


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_cut_files_are_undecodable(image_format: str) -> None:
    data = encoded(Image.fromarray(photo()), image_format)
    assert reason_of(data[: len(data) // 2]) == "image_undecodable"
    assert reason_of(data[:14]) in ("image_undecodable", "image_format_refused")


def test_jpeg_without_its_last_byte_is_undecodable() -> None:
    assert reason_of(encoded(Image.fromarray(photo()), "JPEG")[:-1]) == "image_undecodable"


@pytest.mark.parametrize(
    "size", [(20_000, 20_000), (10_000, 10_000), (30_000, 2), (60_000, 60_000)]
)
def test_size_is_refused_by_the_header(size: tuple[int, int]) -> None:
    assert reason_of(png_header(*size)) == "image_over_limit"


def test_size_at_the_limit_is_taken() -> None:
    data = encoded(Image.fromarray(photo(10, 20)), "PNG")
    assert decode_image(data, max_pixels=200, max_side=20).shape == (10, 20, 3)
    assert reason_of(data, max_pixels=199) == "image_over_limit"
    assert reason_of(data, max_side=19) == "image_over_limit"


def test_jpeg_size_is_limited_too() -> None:
    data = encoded(Image.fromarray(photo(10, 20)), "JPEG")
    assert reason_of(data, max_pixels=199) == "image_over_limit"


def test_png_comes_back_exactly_and_twice_the_same() -> None:
    data = encode_png(photo())
    np.testing.assert_array_equal(decode_image(data), photo())
    assert encode_png(photo().copy()) == data


def test_jpeg_comes_back_nearly_and_twice_the_same() -> None:
    data = encode_jpeg(photo())
    assert np.abs(decode_image(data).astype(int) - photo()).max() < 10
    assert encode_jpeg(np.asfortranarray(photo())) == data


def test_stages_share_one_decoded_picture_that_none_can_change() -> None:
    sample = Sample("a", parts={"png": Part(data=encode_png(photo()))})
    image = picture_of(sample).pixels
    assert picture_of(sample.with_scores(seen=1.0)).pixels is image
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0] = 0


def test_a_new_picture_is_decoded_anew() -> None:
    sample = Sample("a", parts={"png": Part(data=encode_png(photo()))})
    picture_of(sample)
    changed = sample.with_part("png", encode_png(np.zeros((2, 2, 3), np.uint8)))
    assert picture_of(changed).pixels.shape == (2, 2, 3)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_by_the_header_is_that_of_the_upright_picture(
    image_format: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(photo()), image_format, exif=exif)
    assert image_size(data) == decode_image(data).shape[1::-1]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP"])
def test_size_needs_the_header_alone(image_format: str) -> None:
    data = encoded(Image.fromarray(photo(200, 300)), image_format)
    assert image_size(data[: len(data) // 2]) == (300, 200)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "image_format_refused"),
        (b"<svg/>", "image_format_refused"),
        (b"\x89PNG\r\n\x1a\n", "image_undecodable"),
        (b"\xff\xd8\xff\xe0", "image_undecodable"),
        (png_header(20_000, 20_000), "image_over_limit"),
    ],
)
def test_size_of_what_has_no_header_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(SampleError) as caught:
        image_size(data)
    assert caught.value.reason == reason


def zeros_png(side: int) -> bytes:
    """A real PNG of black pixels, one bit each: a whole file, not a header alone."""

    def chunk(name: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    row = bytes(1 + side // 8)
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_bomb_of_400_megapixels_in_50_kilobytes_is_refused_undecoded() -> None:
    bomb = zeros_png(20_000)
    assert len(bomb) < 60_000
    assert reason_of(bomb) == "image_over_limit"
    tracemalloc.start()
    reason_of(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_bomb_below_the_alarm_of_the_library_is_refused_too() -> None:
    # 81 megapixels: Pillow itself would take it
    assert reason_of(zeros_png(9_000)) == "image_over_limit"


def test_gif_of_many_pixels_is_refused_by_its_header() -> None:
    data = encoded(Image.fromarray(photo()), "GIF")
    claimed = data[:6] + struct.pack("<HH", 60_000, 60_000) + data[10:]
    assert reason_of(claimed) == "image_over_limit"


def test_palette_gray_alpha_and_two_levels_become_rgb() -> None:
    for mode, fill, wanted in (
        ("P", 0, 0),
        ("L", 100, 100),
        ("LA", (100, 255), 100),
        ("LA", (100, 0), 255),
        ("1", 1, 255),
    ):
        decoded = decode_image(encoded(Image.new(mode, (5, 4), fill), "PNG"))
        assert decoded.shape == (4, 5, 3)
        assert (decoded == wanted).all(), mode


def test_cmyk_tiff_becomes_rgb() -> None:
    decoded = decode_image(encoded(Image.new("CMYK", (5, 4), (0, 255, 255, 0)), "TIFF"))
    assert decoded[0, 0].tolist() == [255, 0, 0]


def test_size_of_a_png_is_told_without_decoding_it() -> None:
    large = zeros_png(9_000)
    tracemalloc.start()
    assert image_size(large) == (9_000, 9_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Pillow's own memory is not traced: what shows is that no exception stood in its way
    assert peak < 1_000_000


def test_limit_is_said_in_words() -> None:
    assert over_limit(10, 10, 100, 10) is None
    assert over_limit(10, 11, 100, 20) == "11 x 10 px; at most 100 px in all and 20 px a side"


@pytest.mark.parametrize(
    "svg",
    [
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- drawn --><svg/>',
        b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
        b'<svg><image href="http://example.org/a.png"/><script>1</script></svg>',
    ],
)
def test_svg_is_refused_without_being_looked_into(svg: bytes) -> None:
    for look in (decode_image, image_size):
        with pytest.raises(SampleError) as refused:
            look(svg)
        assert refused.value.reason == "image_format_refused"
        assert refused.value.detail.startswith("SVG is not drawn")


def test_other_markup_is_not_taken_for_svg() -> None:
    with pytest.raises(SampleError) as refused:
        decode_image(b"<html><body></body></html>")
    assert refused.value.detail.startswith("starts with")


def large(width: int, height: int, **options: object) -> bytes:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], axis=2)
    return encoded(Image.fromarray(pixels.astype(np.uint8)), "JPEG", **options)


@pytest.mark.parametrize(
    ("width", "least", "decoded"),
    [
        (500, 0, 500),
        (1000, 0, 1000),  # a half is less than what everybody sees
        (1024, 0, 512),
        (1024, 512, 512),
        (1024, 513, 1024),
        (1100, 9999, 1100),
        (4096, 0, 512),
        (4096, 600, 1024),
    ],
)
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_has_what_is_needed(
    width: int, least: int, decoded: int
) -> None:
    for data in (large(width, 40), large(width, 40, progressive=True)):
        picture = decode_picture(data, lambda width, height: (least, 1))
        assert (picture.width, picture.height, picture.pixels.shape[1]) == (width, 40, decoded)


def test_a_scaled_picture_is_close_to_the_whole_one_made_smaller() -> None:
    data = large(2048, 1024, quality=95)
    small = decode_picture(data).pixels
    reference = cv2.resize(decode_image(data), small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert small.shape == (256, 512, 3)
    assert np.abs(small.astype(int) - reference).mean() < 2.0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_jpeg_is_decoded_at_the_scale_of_the_upright_one(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = large(2048, 1024, exif=exif)
    picture = decode_picture(data, lambda width, height: (0, 400))
    whole = decode_image(data)
    assert (picture.height, picture.width) == whole.shape[:2]
    part = 2 if orientation <= 4 else 4
    assert picture.pixels.shape[:2] == (whole.shape[0] // part, whole.shape[1] // part)
    small = cv2.resize(whole, picture.pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(picture.pixels.astype(int) - small).mean() < 2.0


def test_what_is_cut_off_is_refused_at_any_scale() -> None:
    data = large(4096, 2048)
    for cut in (len(data) // 2, len(data) - 40):
        with pytest.raises(SampleError, match="image_undecodable"):
            decode_picture(data[:cut])


def test_a_limit_holds_for_the_whole_picture_whatever_is_decoded_of_it() -> None:
    with pytest.raises(SampleError, match="image_over_limit"):
        decode_picture(large(1024, 64), max_side=1023)


def test_what_one_stage_sees_does_not_depend_on_what_another_needs() -> None:
    data = large(4096, 512)
    alone = Sample("a", parts={"jpg": Part(data=data)})
    among = Sample("a", parts={"jpg": Part(data=data)})
    more = picture_of(among, lambda width, height: (2000, 1)).pixels
    assert more.shape[1] == 2048
    np.testing.assert_array_equal(picture_of(among).pixels, picture_of(alone).pixels)
    np.testing.assert_array_equal(picture_of(alone, lambda width, height: (2000, 1)).pixels, more)


def test_a_stage_that_needs_no_more_takes_what_is_there() -> None:
    sample = Sample("a", parts={"jpg": Part(data=large(4096, 512))})
    seen = picture_of(sample)
    assert picture_of(sample, lambda width, height: (512, 1)) is seen
    assert picture_of(sample, lambda width, height: (513, 1)) is not seen
