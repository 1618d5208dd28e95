"""Containers of sound, by hand-made bytes."""

import struct

import pytest

from mmcore.media.container import format_of, missing_end


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
