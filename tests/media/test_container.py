"""Containers of sound, by hand-made bytes."""

import struct

import pytest

from mmcore.media.container import format_of, missing_end, video_format_of


def page(flags: int, serial: int, body: bytes) -> bytes:
    """An Ogg page with one segment (RFC 3533, section 6)."""
    header = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, 0, serial, 0, 0, 1)
    return header + bytes([len(body)]) + body


def wav(num_declared: int, num_found: int) -> bytes:
    odd_chunk = struct.pack("<4sI", b"LIST", 3) + b"abc\0"
    head = b"RIFF" + bytes(4) + b"WAVE" + odd_chunk
    return head + struct.pack("<4sI", b"data", num_declared) + bytes(num_found)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"RIFF\0\0\0\0WAVE", "WAV"),
        (b"RIFF\0\0\0\0WEBP", None),
        (b"OggS", "OGG"),
        (b"fLaC", "FLAC"),
        (b"ID3\4", "MP3"),
        (b"\xff\xfb\x90", "MP3"),
        (b"\xff\xd8\xff", None),
        (b"", None),
    ],
)
def test_format_is_told_by_the_first_bytes(data: bytes, name: str | None) -> None:
    assert format_of(data) == name


def test_ogg_with_its_end_is_whole() -> None:
    assert missing_end("OGG", page(2, 1, b"head") + page(4, 1, b"tail")) is None


def test_ogg_needs_the_end_of_every_stream() -> None:
    data = page(2, 1, b"a") + page(2, 2, b"b") + page(4, 2, b"b")
    assert missing_end("OGG", data) == "the last page lacks the end-of-stream flag"
    assert missing_end("OGG", data + page(4, 1, b"a")) is None


def test_ogg_cut_anywhere_has_no_end() -> None:
    data = page(2, 1, b"head") + page(4, 1, b"tail")
    assert all(missing_end("OGG", data[:length]) for length in range(4, len(data)))


def test_wav_must_hold_what_it_declares() -> None:
    assert missing_end("WAV", wav(100, 100)) is None
    assert missing_end("WAV", wav(100, 102)) is None
    assert missing_end("WAV", wav(100, 99)) == "99 of 100 bytes of sound"


def test_wav_from_a_pipe_declares_nothing() -> None:
    assert missing_end("WAV", wav(0xFFFFFFFF, 99)) is None


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypmp42", "MP4"),
        (b"\0\0\0\x08wide", "MP4"),
        (b"\x1a\x45\xdf\xa3", "MATROSKA"),
        (b"RIFF\0\0\0\0AVI LIST", "AVI"),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"#EXTM3U\n", None),
        (b"ftyp", None),
        (b"", None),
    ],
)
def test_format_of_video_is_told_by_the_first_bytes(data: bytes, name: str | None) -> None:
    assert video_format_of(data) == name


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body


def test_mp4_must_hold_what_its_boxes_declare() -> None:
    data = box(b"ftyp", b"isom") + box(b"mdat", bytes(100))
    assert missing_end("MP4", data) is None
    assert missing_end("MP4", data[:-1]) == "107 of 108 bytes of the box 'mdat'"


def test_mp4_box_may_have_a_long_length_or_reach_to_the_end() -> None:
    long = struct.pack(">I4sQ", 1, b"mdat", 116) + bytes(100)
    assert missing_end("MP4", long) is None
    assert missing_end("MP4", long[:-1]) == "115 of 116 bytes of the box 'mdat'"
    assert missing_end("MP4", struct.pack(">I4s", 0, b"mdat") + bytes(9)) is None


def test_avi_must_hold_what_it_declares() -> None:
    data = struct.pack("<4sI4s", b"RIFF", 104, b"AVI ") + bytes(100)
    assert missing_end("AVI", data) is None
    assert missing_end("AVI", data[:-1]) == "103 of 104 bytes of RIFF"
