"""Tiny pictures and sounds, each told from the others by a number."""

import io

from PIL import Image


def png(number: int = 0, *, side: int = 8) -> bytes:
    """Return a small PNG."""
    out = io.BytesIO()
    Image.new("RGB", (side + number % 7, side), (number % 256, 7 * number % 256, 90)).save(
        out, "PNG"
    )
    return out.getvalue()


FLAC = b"fLaC" + bytes(38)
OGG = b"OggS" + bytes(24)
MP4 = bytes(4) + b"ftypisom" + bytes(16)
