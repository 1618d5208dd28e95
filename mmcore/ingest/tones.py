"""Sounds of the generated corpus: the pitch tells the shape, the timbre tells the colour."""

import io
from typing import Any

import numpy as np
import soundfile as sf

from mmcore.ingest.scenes import COLOURS, SHAPES, Scene

SAMPLE_RATE_HZ = 16_000
Wave = np.ndarray[Any, np.dtype[np.float64]]
"""Mono, -1 to 1."""

_OVERTONES = {
    "red": (1.0,),
    "green": (1.0, 0.0, 0.5, 0.0, 0.3),
    "blue": (1.0, 0.6, 0.4, 0.3, 0.2),
    "yellow": (0.3, 1.0),
    "purple": (0.5, 0.0, 1.0),
    "orange": (0.6, 0.3, 0.0, 1.0),
}
_FORMATS = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS")}


def play(scene: Scene, rng: np.random.Generator) -> Wave:
    """Return half a second to one second of a decaying tone, with a little noise."""
    seconds = float(rng.uniform(0.5, 1.0))
    time = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    # five semitones apart: a mel filter bank of 40 bands or more tells them apart
    pitch_hz = 160.0 * 2 ** (5 * SHAPES.index(scene.shape) / 12) * float(rng.uniform(0.985, 1.015))
    phases = rng.uniform(0, 2 * np.pi, size=8)
    tone = np.zeros_like(time)
    for number, strength in enumerate(_OVERTONES[scene.colour], start=1):
        tone += strength * np.sin(2 * np.pi * pitch_hz * number * time + phases[number])
    envelope = np.minimum(time / 0.02, 1.0) * np.exp(-2.0 * time)
    loudness = float(rng.uniform(0.3, 0.7)) / np.abs(tone).max()
    noise = rng.uniform(-0.004, 0.004, size=time.shape)
    return np.asarray(tone * envelope * loudness + noise, dtype=np.float64)


def silence(rng: np.random.Generator) -> Wave:
    """Return half a second to one second of nothing at all."""
    return np.zeros(int(float(rng.uniform(0.5, 1.0)) * SAMPLE_RATE_HZ))


def encoded(wave: Wave, extension: str) -> bytes:
    """Return a sound as `wav`, `flac` or `ogg`; equal sounds give equal bytes."""
    out = io.BytesIO()
    container, subtype = _FORMATS[extension]
    sf.write(out, wave, SAMPLE_RATE_HZ, format=container, subtype=subtype)
    data = out.getvalue()
    return _with_fixed_serial(data) if extension == "ogg" else data


def _with_fixed_serial(data: bytes) -> bytes:
    """Return an Ogg stream whose serial number, which libsndfile draws by the clock, is 1.

    RFC 3533 section 6: serial at byte 14 of each page, checksum at 22, segment table at 27.
    """
    out = bytearray(data)
    at = 0
    while at < len(out):
        num_segments = out[at + 26]
        length = 27 + num_segments + sum(out[at + 27 : at + 27 + num_segments])
        out[at + 14 : at + 18] = (1).to_bytes(4, "little")
        out[at + 22 : at + 26] = bytes(4)
        checksum = _ogg_checksum(out[at : at + length])
        out[at + 22 : at + 26] = checksum.to_bytes(4, "little")
        at += length
    return bytes(out)


def _make_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)
        table.append(value & 0xFFFFFFFF)
    return table


_TABLE = _make_table()


def _ogg_checksum(page: bytearray) -> int:
    """Return the CRC-32 of a page: polynomial 0x04C11DB7, not reflected, starting at 0."""
    value = 0
    table = _TABLE
    for byte in page:
        value = ((value << 8) & 0xFFFFFFFF) ^ table[(value >> 24) ^ byte]
    return value


assert set(_OVERTONES) == set(COLOURS), "every colour has a timbre"
