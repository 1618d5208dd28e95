"""What the print of a sound outlives, and what it tells apart."""

import io

import numpy as np
import pytest
import soundfile
import soxr

from mmcore.media.audio import decode_audio
from mmcore.media.near.prints import SOUND_BYTES
from mmcore.media.sound_print import sound_print

RATE_HZ = 22_050


def melody(seed: int, seconds: float = 1.5) -> np.ndarray:
    """Notes of several pitches and loudnesses, with overtones."""
    rng = np.random.default_rng(seed)
    notes = []
    for _ in range(6):
        times = np.arange(int(seconds / 6 * RATE_HZ)) / RATE_HZ
        hz = float(rng.uniform(200, 1200))
        strengths = rng.uniform(0.1, 1, size=4)
        tone = sum(s * np.sin(2 * np.pi * hz * (n + 1) * times) for n, s in enumerate(strengths))
        notes.append(tone * np.exp(-3 * times) * float(rng.uniform(0.3, 1)))
    sound = np.concatenate(notes)
    return (0.6 * sound / np.abs(sound).max()).astype(np.float32)


def encoded(sound: np.ndarray, rate_hz: int, name: str, subtype: str, level: float) -> tuple:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, rate_hz, format=name, subtype=subtype, compression_level=level)
    return decode_audio(buffer.getvalue())


def resampled(sound: np.ndarray, to_hz: int) -> np.ndarray:
    return np.asarray(soxr.resample(sound, RATE_HZ, to_hz), np.float32)


def likeness(one: bytes, other: bytes) -> float:
    a, b = (np.unpackbits(np.frombuffer(data, np.uint8)).astype(bool) for data in (one, other))
    return float((a & b).sum() / (a | b).sum())


CHANGES = {
    "vorbis": lambda s: encoded(s, RATE_HZ, "OGG", "VORBIS", 0.9),
    "mp3": lambda s: encoded(s, RATE_HZ, "MP3", "MPEG_LAYER_III", 0.8),
    "16 kHz": lambda s: (resampled(s, 16_000), 16_000),
    "8 kHz": lambda s: (resampled(s, 8_000), 8_000),
    "48 kHz vorbis": lambda s: encoded(resampled(s, 48_000), 48_000, "OGG", "VORBIS", 0.7),
    "quieter": lambda s: (s * 0.3, RATE_HZ),
    "silence around it": lambda s: (np.pad(s, 2_000), RATE_HZ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_copies_keep_most_bits_and_their_length(change: str) -> None:
    for seed in range(8):
        before = sound_print(melody(seed), RATE_HZ)
        after = sound_print(*CHANGES[change](melody(seed)))
        assert before is not None
        assert after is not None
        assert len(before.bits) == SOUND_BYTES
        assert likeness(before.bits, after.bits) > 0.75
        assert after.seconds == pytest.approx(before.seconds, rel=0.05)
        assert after.peaks_hz == pytest.approx(before.peaks_hz, rel=0.003)


def test_other_sounds_share_few_bits() -> None:
    prints = [sound_print(melody(seed), RATE_HZ) for seed in range(12)]
    found = [likeness(a.bits, b.bits) for i, a in enumerate(prints) for b in prints[:i]]  # type: ignore[union-attr]
    assert max(found) < 0.55


@pytest.mark.parametrize("num_samples", [0, 1, 50_000])
def test_silence_has_no_print(num_samples: int) -> None:
    assert sound_print(np.zeros(num_samples, np.float32), RATE_HZ) is None


def test_peaks_are_where_the_tones_are() -> None:
    times = np.arange(RATE_HZ) / RATE_HZ
    chirps = np.where(
        times < 0.5, np.sin(2 * np.pi * 311.0 * times), np.sin(2 * np.pi * 708.0 * times)
    )
    found = sound_print((chirps * np.exp(-9 * (times % 0.125))).astype(np.float32), RATE_HZ)
    assert found is not None
    assert found.peaks_hz == pytest.approx((311.0, 708.0), abs=1.0)


@pytest.mark.parametrize("num_samples", [1, 10, 300])
def test_a_click_has_none(num_samples: int) -> None:
    assert sound_print(np.full(num_samples, 0.5, np.float32), RATE_HZ) is None


def test_a_hum_has_none() -> None:
    hum = 0.5 * np.sin(np.arange(50_000) * 0.1)
    assert sound_print(hum.astype(np.float32), RATE_HZ) is None
