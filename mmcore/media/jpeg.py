"""JPEG without its pixels: what the markers say, metadata cut out, and whether it decodes.

Deciding by the markers costs a hundredth of decoding; what conforms is passed on as it is.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import simplejpeg

from mmcore.media.array import Pixels

_MARKER = 0xFF
_SOS, _APP1, _END, _FILL = 0xDA, 0xE1, b"\xff\xd9", b"\xff\xff"
_FRAMES = (0xC0, 0xC1, 0xC2)
"""Start of frame: baseline, extended, progressive."""
_REFUSED = frozenset((*range(0xC3, 0xD0), *range(0xD0, 0xDA))) - {0xC4}
"""Arithmetic and lossless coding, and markers that have no place here."""
_NEEDED = frozenset((0xC4, 0xDA, 0xDB, 0xDD, 0xE0, 0xEE))
"""Tables, scans, restart interval, JFIF, Adobe: the rest is metadata."""
# What follows 0xFF in coded data: 0 or a restart marker (ISO 10918-1, section B.1.1.2)
_STUFFING = frozenset((0, *range(0xD0, 0xD8)))
_ORIENTATION_TAG = 0x0112

_last_header: tuple[bytes, tuple[int, int, int] | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegFacts:
    """What the markers of a whole JPEG say, from the first byte to the last."""

    width: int
    height: int
    num_components: int
    orientation: int
    """EXIF: 1 is upright."""
    metadata: tuple[tuple[int, int], ...]
    """Where segments lie that no decoder needs: EXIF, XMP, comments, colour profiles."""


def jpeg_facts(data: bytes, *, is_whole: bool = True) -> JpegFacts | None:
    """Return what the markers say; None unless it is one plain JPEG with nothing behind its end.

    Plain is 8-bit baseline or progressive of one or three components. Lengths must add up and the
    end-of-image marker must be the last two bytes; with `is_whole=False` only what stands before
    the pixels is looked at.
    """
    frames: list[tuple[int, int, int]] = []
    metadata: list[tuple[int, int]] = []
    orientation = 1
    try:
        for kind, first, end in _segments(data, is_whole):
            if kind in _FRAMES:
                bits, *frame = struct.unpack_from(">BHHB", data, first + 4)
                frames.append((frame[0], frame[1], frame[2] if bits == 8 else 0))
            elif kind not in _NEEDED:
                metadata.append((first, end))
                if kind == _APP1:
                    orientation = _orientation(data[first + 4 : end], orientation)
    except (ValueError, struct.error):
        return None
    if len(frames) != 1 or 0 in frames[0] or frames[0][2] not in (1, 3):
        return None
    height, width, num_components = frames[0]
    return JpegFacts(
        width=width,
        height=height,
        num_components=num_components,
        orientation=orientation,
        metadata=tuple(metadata),
    )


def without_metadata(data: bytes, facts: JpegFacts) -> bytes:
    """Return the file without EXIF, XMP, comments and profiles: the same pixels bit for bit."""
    if not facts.metadata:
        return data
    pieces, at = [], 0
    for first, last in facts.metadata:
        pieces.append(data[at:first])
        at = last
    return b"".join((*pieces, data[at:]))


def decodes(data: bytes) -> bool:
    """Return whether a JPEG decodes without a warning: at an eighth of its size, which shows it."""
    try:
        simplejpeg.decode_jpeg(data, min_width=1, min_height=1)
    except ValueError:
        return False
    return True


def decode_into(data: bytes, out: Pixels) -> bool:
    """Decode a plain upright JPEG of just the size of `out` [H, W, 3] into it, as `decode_image`
    would; False, and nothing promised of `out`, for whatever that one has to look at.
    """
    if _plain_shape(data) != out.shape:
        return False
    try:
        simplejpeg.decode_jpeg(data, colorspace="RGB", buffer=out)
    except ValueError:
        return False
    return True


def _plain_shape(data: bytes) -> tuple[int, int, int] | None:
    """Return the shape of a plain picture that nothing in the file can turn.

    A tenth of what `jpeg_facts` costs, which is a share of decoding a small picture. Pictures of
    one encoder and one size begin alike, up to the byte: then nothing has to be walked.
    """
    global _last_header
    known = _last_header
    if known is not None and data.startswith(known[0]):
        return known[1]
    found, at = None, 2
    try:
        while (kind := data[at + 1]) != _SOS:
            # EXIF or XMP may turn it
            if data[at] != _MARKER or kind == _APP1 or kind in _REFUSED:
                return None
            if kind in _FRAMES:
                bits, height, width, num_components = struct.unpack_from(">BHHB", data, at + 4)
                if bits != 8 or num_components not in (1, 3):
                    return None
                found = height, width, 3
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    except (IndexError, struct.error):
        return None
    # all that was looked at, the marker of the scan included
    _last_header = data[: at + 2], found
    return found


def _segments(data: bytes, is_whole: bool) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, where its segment begins, where it ends); ValueError unless all is whole."""
    if data[:2] != b"\xff\xd8":
        raise ValueError("no start of image")
    at = 2
    while data[at : at + 2] != _END:
        while data[at : at + 2] == _FILL:
            at += 1
        kind = data[at + 1] if data[at : at + 1] == b"\xff" and at + 1 < len(data) else 0
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        if kind < 0xC0 or kind in _REFUSED or length < 2 or end > len(data):
            raise ValueError("no segment that is taken")
        yield kind, at, end
        at = end
        if kind == _SOS:
            if not is_whole:
                return
            at = _next_marker(data, at)
    if at + 2 != len(data):
        raise ValueError("something behind the end of the image")


def _orientation(segment: bytes, known: int) -> int:
    """Return the orientation in the first directory of an EXIF segment (EXIF 2.32, 4.6.4)."""
    if segment[:6] != b"Exif\x00\x00" or segment[6:8] not in (b"II", b"MM"):
        # XMP may turn a picture too: whoever decodes it knows
        return 0 if b"Orientation" in segment else known
    order = "<" if segment[6:8] == b"II" else ">"
    tiff = segment[6:]
    try:
        (at,) = struct.unpack_from(order + "I", tiff, 4)
        (num_entries,) = struct.unpack_from(order + "H", tiff, at)
        for number in range(num_entries):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, at + 2 + 12 * number)
            if tag == _ORIENTATION_TAG:
                return int(value)
    except struct.error:
        return 0  # not to be trusted: not to be passed on
    return known


def _next_marker(data: bytes, at: int) -> int:
    """Return where the coded data of a scan ends; ValueError where it does not."""
    # of one scan, as most have: counting is ten times faster than looking at each
    if data.endswith(_END) and data.count(b"\xff", at) == data.count(b"\xff\x00", at) + 1:
        return len(data) - 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
        if data[at + 1] == 0xFF:
            at += 1
        elif data[at + 1] in _STUFFING:
            at += 2
        else:
            return at
    raise ValueError("no end of image")
