"""What bytes are, by how they begin: names and headers of strangers are not believed."""

import re

_BEGINNINGS = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"ID3", "mp3"),
)
_RIFF = {b"WEBP": "webp", b"WAVE": "wav", b"AVI ": "avi"}
_BRANDS = {b"M4A ": "m4a", b"M4B ": "m4a", b"qt  ": "mov"}
_SVG = re.compile(
    rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*|<!DOCTYPE[^>\[]*>\s*)*<svg[\s>]", re.DOTALL
)
_LOOKED_AT = 1024


def extension_of(data: bytes) -> str | None:
    """Return the extension that bytes of a picture, sound or film should have, or None.

    >>> extension_of(b"fLaC" + bytes(38)), extension_of(b"<html>")
    ('flac', None)
    """
    for beginning, extension in _BEGINNINGS:
        if data.startswith(beginning):
            return extension
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12])
    if data[4:8] == b"ftyp":
        is_picture = data[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
        return None if is_picture else _BRANDS.get(data[8:12], "mp4")
    if data[:4] == b"\x1aE\xdf\xa3":
        return "webm" if b"webm" in data[:64] else "mkv"
    if data[:2] in (b"P3", b"P6") and data[2:3].isspace():
        return "ppm"
    # a frame header of layer III (ISO 11172-3, section 2.4.1.3)
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2:
        return "mp3"
    return "svg" if _SVG.match(data[:_LOOKED_AT]) else None
