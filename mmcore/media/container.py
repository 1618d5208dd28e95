"""What the outside of a sound or video file says: its format, and whether its end is there.

Decoders play a cut WAV, OGG or MP4 as if it were a shorter one; only the container knows better.
"""

import struct

_OGG_HEADER_BYTES = 27
_OGG_END_OF_STREAM = 0x04
# what a writer that cannot seek back puts where the length belongs
_UNKNOWN_LENGTHS = (0, 0xFFFFFFFF)
# what MP4 and QuickTime files begin with
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def format_of(data: bytes) -> str | None:
    """Return `WAV`, `FLAC`, `OGG` or `MP3` by the first bytes, or None.

    >>> format_of(b"fLaC" + bytes(38))
    'FLAC'
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "WAV"
    if data[:4] == b"fLaC":
        return "FLAC"
    if data[:4] == b"OggS":
        return "OGG"
    # an ID3v2 tag, or a frame header of layer III (ISO 11172-3, section 2.4.1.3)
    is_frame = len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2
    return "MP3" if data[:3] == b"ID3" or is_frame else None


def video_format_of(data: bytes) -> str | None:
    """Return `MP4` (and MOV), `MATROSKA` (and WebM) or `AVI` by the first bytes, or None.

    Playlists and other lists of places (m3u8, ffconcat, sdp, mpd) are none of them.

    >>> video_format_of(b"RIFF....AVI LIST")
    'AVI'
    """
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "AVI"
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return "MATROSKA"
    return "MP4" if data[4:8] in _FIRST_BOXES else None


def missing_end(name: str, data: bytes) -> str | None:
    """Return what shows that the end of a file is missing, or None where nothing does."""
    if name == "OGG":
        return _missing_ogg_end(data)
    if name == "WAV":
        return _missing_wav_end(data)
    if name == "AVI":
        return _missing_avi_end(data)
    if name == "MP4":
        return _missing_mp4_end(data)
    return None


def _missing_ogg_end(data: bytes) -> str | None:
    """Walk the pages (RFC 3533, section 6): every stream must have its end-of-stream page."""
    open_streams: dict[int, None] = {}
    at = 0
    while data[at : at + 4] == b"OggS":
        header = data[at : at + _OGG_HEADER_BYTES]
        if len(header) < _OGG_HEADER_BYTES:
            return "the last page is cut"
        num_segments = header[26]
        lacing = data[at + _OGG_HEADER_BYTES : at + _OGG_HEADER_BYTES + num_segments]
        end = at + _OGG_HEADER_BYTES + num_segments + sum(lacing)
        if len(lacing) < num_segments or end > len(data):
            return "the last page is cut"
        (serial,) = struct.unpack_from("<I", header, 14)
        if header[5] & _OGG_END_OF_STREAM:
            open_streams.pop(serial, None)
        else:
            open_streams[serial] = None
        at = end
    return "the last page lacks the end-of-stream flag" if open_streams else None


def _missing_wav_end(data: bytes) -> str | None:
    """Walk the RIFF chunks up to `data`: it must hold as many bytes as it says."""
    at = 12
    while at + 8 <= len(data):
        name = data[at : at + 4]
        (num_bytes,) = struct.unpack_from("<I", data, at + 4)
        found = len(data) - at - 8
        if name == b"data":
            is_cut = num_bytes > found and num_bytes not in _UNKNOWN_LENGTHS
            return f"{found} of {num_bytes} bytes of sound" if is_cut else None
        at += 8 + num_bytes + num_bytes % 2
    return None


def _missing_avi_end(data: bytes) -> str | None:
    """Hold the first RIFF chunk against the file; longer videos have several (OpenDML)."""
    (num_bytes,) = struct.unpack_from("<I", data, 4)
    found = len(data) - 8
    is_cut = num_bytes > found and num_bytes not in _UNKNOWN_LENGTHS
    return f"{found} of {num_bytes} bytes of RIFF" if is_cut else None


def _missing_mp4_end(data: bytes) -> str | None:
    """Walk the boxes (ISO 14496-12, section 4.2): each must hold as many bytes as it says."""
    at = 0
    while at + 8 <= len(data):
        num_bytes, name = struct.unpack_from(">I4s", data, at)
        if num_bytes == 1 and at + 16 <= len(data):
            (num_bytes,) = struct.unpack_from(">Q", data, at + 8)
        found = len(data) - at
        # 0 means up to the end of the file; what is less than a header is no box, but padding
        if num_bytes < 8:
            return None
        if num_bytes > found:
            return f"{found} of {num_bytes} bytes of the box {name.decode('latin-1')!r}"
        at += num_bytes
    return None
