"""Pictures: bytes to uint8 RGB under limits that hold before a pixel is decoded, and back.

Only formats of `_SIGNATURES` are opened, each by its own decoder: the many other parsers of the
imaging library never see data from outside.
"""

import io
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from mmcore.errors import SampleError
from mmcore.media.array import Pixels
from mmcore.media.jpeg import jpeg_facts
from mmcore.media.resize import WHITE, Needed
from mmcore.sample import Sample

Subsampling = Literal["444", "422", "420", "440", "411"]

MAX_PIXELS = 64_000_000
MAX_SIDE = 20_000
SEEN_SIDE = 512
"""A picture is decoded with at least so many pixels on its longer side, if it has them, whatever it
is wanted for: what is measured and what is encoded can come from one array."""

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
}
_SVG_BYTES = 4_096
_SHARED = "picture"
_ORIENTATION_TAG = 0x0112
# The orientations that change width and height
_TURNED = (5, 6, 7, 8)

# What Pillow raises for a broken file (PIL.ImageFile.ImageFile.__init__ names the second line
# itself). MemoryError is not among them: it may be this machine's fault, and then
# nothing may be dropped.
_DECODER_ERRORS = (
    OSError, ValueError, SyntaxError, NotImplementedError, OverflowError, zlib.error,
    IndexError, TypeError, KeyError, EOFError, struct.error,
)  # fmt: skip
_BOMB_ERRORS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

# warnings.catch_warnings swaps a list of the whole process
_warnings_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, maybe smaller than it is."""

    pixels: Pixels
    """uint8 RGB [H, W, 3], upright."""
    width: int
    """Of the whole picture, upright."""
    height: int

    def has(self, needed: Needed) -> bool:
        """Return whether it has the pixels that are needed, or all that there are."""
        height, width = self.pixels.shape[:2]
        least_width, least_height = needed(self.width, self.height)
        is_wide = bool(width >= min(least_width, self.width))
        return is_wide and bool(height >= min(least_height, self.height))


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS, max_side: int = MAX_SIDE) -> Pixels:
    """Return a picture as uint8 RGB [H, W, 3], upright, on white where it is transparent.

    JPEG, PNG, WebP, GIF (first frame), BMP and TIFF; 16 bits become 8. SampleError:
    `image_format_refused` for anything else, `image_over_limit` by the size in the header, before
    decoding, and `image_undecodable` for what is broken or cut off.
    """
    return _decoded(data, None, max_pixels, max_side).pixels


def decode_picture(
    data: bytes,
    needed: Needed | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    max_side: int = MAX_SIDE,
) -> Picture:
    """Return a picture as `decode_image` does, of a plain JPEG no more pixels than are of use.

    That is the smallest of a whole, a half, a quarter and an eighth that has `SEEN_SIDE` pixels on
    its longer side and those `needed`. All of the file is read for it, and what is broken refused.
    """

    def least(width: int, height: int) -> tuple[int, int]:
        seen_width, seen_height = (SEEN_SIDE, 0) if width >= height else (0, SEEN_SIDE)
        least_width, least_height = needed(width, height) if needed is not None else (0, 0)
        return max(seen_width, least_width), max(seen_height, least_height)

    return _decoded(data, least, max_pixels, max_side)


def _decoded(data: bytes, needed: Needed | None, max_pixels: int, max_side: int) -> Picture:
    image_format = _taken_format_of(data)
    if image_format == "JPEG":
        decoded = _decode_plain_jpeg(data, needed, max_pixels, max_side)
        if decoded is not None:
            return decoded
    with _pillow(image_format, data):
        pixels = _decode_with_pillow(data, image_format, max_pixels, max_side)
    return Picture(pixels, pixels.shape[1], pixels.shape[0])


def image_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) of the upright picture by the header alone; nothing is decoded.

    SampleError `image_format_refused`, `image_undecodable` for a broken header, and
    `image_over_limit` from the size on that Pillow takes for a bomb (89 megapixels).
    """
    image_format = _taken_format_of(data)
    if image_format == "JPEG":
        size = _plain_jpeg_size(data)
        if size is not None:
            return size
    with _pillow(image_format, data), Image.open(io.BytesIO(data), formats=[image_format]) as image:
        width, height = image.size
        try:
            # of a TIFF, Pillow says the upright size itself; of a PNG without EXIF in its head, it
            # would decode the picture to look behind it
            is_plain = image_format == "TIFF" or (
                image_format == "PNG" and "exif" not in image.info
            )
            is_turned = not is_plain and _orientation(image) in _TURNED
        except _DECODER_ERRORS:
            is_turned = False
    return (height, width) if is_turned else (width, height)


@contextmanager
def _pillow(image_format: str, data: bytes) -> Iterator[None]:
    """Turn what Pillow raises for a broken file into a SampleError."""
    try:
        with _warnings_lock, warnings.catch_warnings():
            # odd metadata is no reason to refuse a picture, and one line per file would drown a log
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except _BOMB_ERRORS as error:
        raise SampleError("image_over_limit", f"{image_format}: {error}") from error
    except UnidentifiedImageError as error:
        # its own words name an address in memory, and details are stored: equal input, equal bytes
        detail = f"{image_format} of {len(data)} bytes: its header is broken"
        raise SampleError("image_undecodable", detail) from error
    except _DECODER_ERRORS as error:
        detail = f"{image_format} of {len(data)} bytes: {error}"
        raise SampleError("image_undecodable", detail) from error


def picture_of(sample: Sample, needed: Needed | None = None) -> Picture:
    """Return the picture of a sample that has one, decoded once for all stages of a step.

    It is what `decode_picture` returns, whoever else looks at it. What is shared is read-only.
    """
    extension = sample.extension("image")
    assert extension is not None, f"{sample.key} has no image"
    shared: Picture | None = sample.scratch.get((extension, _SHARED))
    if shared is not None and (needed is None or shared.has(needed)):
        return shared
    picture = decode_picture(sample.data(extension), needed)
    if needed is None:
        share_picture(sample, picture)
    return picture


def share_picture(sample: Sample, picture: Picture) -> None:
    """Keep what `decode_picture` returned, nothing more being needed, for the stages to come."""
    extension = sample.extension("image")
    assert extension is not None, f"{sample.key} has no image"
    picture.pixels.flags.writeable = False
    sample.scratch[(extension, _SHARED)] = picture


def encode_jpeg(image: Pixels, *, quality: int = 95, subsampling: Subsampling = "444") -> bytes:
    """Return uint8 RGB [H, W, 3] as JPEG; equal pixels give equal bytes."""
    data: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorsubsampling=subsampling
    )
    return data


def encode_png(image: Pixels) -> bytes:
    """Return uint8 RGB [H, W, 3] as PNG; equal pixels give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def encode_webp(image: Pixels, *, quality: int = 95) -> bytes:
    """Return uint8 RGB [H, W, 3] as lossy WebP; equal pixels give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="WEBP", quality=quality, method=4)
    return buffer.getvalue()


def _taken_format_of(data: bytes) -> str:
    image_format = _format_of(data)
    if image_format is None:
        found = f"starts with {data[:12]!r}"
        if _is_svg(data):
            # drawing one means to follow what it names: files, addresses, entities, scripts
            found = "SVG is not drawn: make a PNG of it"
        taken = "taken are JPEG, PNG, WebP, GIF, BMP and TIFF"
        raise SampleError("image_format_refused", f"{found}; {taken}")
    return image_format


def _is_svg(data: bytes) -> bool:
    """Whether it looks like one; it is not parsed."""
    start = data[:_SVG_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<svg", b"<?xml", b"<!")) and b"<svg" in start


def _format_of(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for start, name in _SIGNATURES.items() if data.startswith(start)), None)


def over_limit(height: int, width: int, max_pixels: int, max_side: int) -> str | None:
    """Return what is wrong with a size, or None."""
    if height * width <= max_pixels and max(height, width) <= max_side:
        return None
    return f"{width} x {height} px; at most {max_pixels} px in all and {max_side} px a side"


def _check_size(height: int, width: int, max_pixels: int, max_side: int) -> None:
    detail = over_limit(height, width, max_pixels, max_side)
    if detail is not None:
        raise SampleError("image_over_limit", detail)


def _decode_plain_jpeg(
    data: bytes, needed: Needed | None, max_pixels: int, max_side: int
) -> Picture | None:
    """Decode what libjpeg-turbo takes as it is; None for everything that needs a second look."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(height, width, max_pixels, max_side)
        if colorspace not in ("YCbCr", "RGB", "Gray"):
            return None
        orientation = _jpeg_orientation(data)
        is_turned = orientation in _TURNED
        upright = (height, width) if is_turned else (width, height)
        least_width, least_height = (0, 0)
        if needed is not None:
            least = needed(*upright)[::-1] if is_turned else needed(*upright)
            least_width, least_height = _scaled(width, height, *least)
        image: Pixels = simplejpeg.decode_jpeg(
            data, colorspace="RGB", min_width=least_width, min_height=least_height
        )
    # Pillow forgives what readers of the field forgive (stray bytes) and refuses what is cut off
    except ValueError:
        return None
    return Picture(_upright(image, orientation), *upright)


def _scaled(width: int, height: int, least_width: int, least_height: int) -> tuple[int, int]:
    """Return the size at the smallest scale that has so many pixels; 0, 0 for that of all.

    libjpeg-turbo has the eighths in between too; each takes it longer than the next of these.
    """
    for eighths in (1, 2, 4):
        size = math.ceil(width * eighths / 8), math.ceil(height * eighths / 8)
        if size[0] >= least_width and size[1] >= least_height:
            return size
    return 0, 0


def _plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    is_turned = _jpeg_orientation(data) in _TURNED
    return (height, width) if is_turned else (width, height)


def _jpeg_orientation(data: bytes) -> int:
    # Most pictures carry neither EXIF nor XMP: those are spared a second parser
    facts = jpeg_facts(data, is_whole=False)
    told = [data] if facts is None else [data[first:end] for first, end in facts.metadata]
    if not any(b"Exif\x00\x00" in one or b"Orientation" in one for one in told):
        return 1
    try:
        with _warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                return _orientation(image)
    except (*_DECODER_ERRORS, *_BOMB_ERRORS):
        # metadata that cannot be read turns nothing
        return 1


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(_ORIENTATION_TAG, 1)
    return value if isinstance(value, int) else 1


def _decode_with_pillow(data: bytes, image_format: str, max_pixels: int, max_side: int) -> Pixels:
    with Image.open(io.BytesIO(data), formats=[image_format]) as image:
        _check_size(image.height, image.width, max_pixels, max_side)
        image.load()
        pixels = _to_rgb(image)
        try:
            orientation = _orientation(image)
        except _DECODER_ERRORS:
            orientation = 1
    return _upright(pixels, orientation)


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I;16"):
        # the high byte, as Pillow takes it where a picture of 16 bits has colours
        gray = np.asarray(image).astype(np.uint16)
        high = (gray >> 8).astype(np.uint8)
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            high[gray == clear] = WHITE
        return np.repeat(high[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise SampleError(
            "image_format_refused", f"32-bit {image.format}: no value in it is known to be white"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (WHITE, WHITE, WHITE, WHITE))
        image = Image.alpha_composite(white, image)
    # a copy that is not made: of a large picture it would be a quarter of a gigabyte
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _upright(image: Pixels, orientation: int) -> Pixels:
    """Undo the orientation of EXIF tag 0x0112 (EXIF 2.32, section 4.6.4)."""
    if orientation in _TURNED:
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
