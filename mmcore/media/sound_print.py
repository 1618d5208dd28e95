"""What a sound is like, in 512 bits that outlive another codec, rate or loudness.

After Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System" (ISMIR 2002): a bit says
whether the energy between two neighbouring bands rises or falls with time. Theirs slides along a
recording to find a piece of it; this one stretches over the whole sound, whatever its length, so
that all sounds have prints of one size.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from mmcore.media.audio import Waveform, resample

_RATE_HZ = 8_000
_WINDOW = 512
_HOP = 64
_LONG_WINDOW = 2048
# Telephone speech and the lowest rates in use still hold these
_LOWEST_HZ, _HIGHEST_HZ = 200.0, 3_400.0
_NUM_BANDS = 17
_NUM_TIMES = 33
# each time overlaps its neighbours: what a codec puts before the sound moves it a little
_OVERLAP = 3.0
# A codec hears nothing, and writes anything, so far below the loudest
_FLOOR_DB = -45.0
_ENDS_DB = -40.0
# of the loudest band: less is no rise
_MIN_RISE_DB = 0.5

# a hum or a click: fewer would make all of them one
_MIN_RISES = 32

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class SoundPrint:
    """What a sound is like."""

    bits: bytes
    """64 bytes: for each of 32 steps in time, first to last, one of 16 pairs of bands."""
    peaks_hz: tuple[float, float]
    """Where the spectrum of the first and of the second half is highest."""
    seconds: float
    """Without silence at both ends."""


def sound_print(waveform: Waveform, rate_hz: int) -> SoundPrint | None:
    """Return the print of a sound, or None where there is too little to go by: silence, a hum."""
    sound = resample(waveform, rate_hz, _RATE_HZ)
    power = _power(sound, _WINDOW, _HOP) @ _bands()
    loudness = power.sum(axis=1)
    loudest = float(loudness.max(initial=0.0))
    if loudest <= 1e-12:
        return None
    heard = np.flatnonzero(loudness > loudest * 10 ** (_ENDS_DB / 10))
    start, end = int(heard[0]), int(heard[-1]) + 1
    power = power[start:end]
    stretched = _stretch(len(power)) @ power
    floor = stretched.max() * 10 ** (_FLOOR_DB / 10)
    decibels = 10 * np.log10(np.maximum(stretched, floor))
    slope = decibels[:, :-1] - decibels[:, 1:]
    rises = (slope[1:] - slope[:-1]) > _MIN_RISE_DB
    if np.count_nonzero(rises) < _MIN_RISES:
        return None
    first, second = np.array_split(sound[start * _HOP : end * _HOP], 2)
    peaks_hz = (_peak_hz(first), _peak_hz(second))
    return SoundPrint(np.packbits(rises).tobytes(), peaks_hz, len(power) * _HOP / _RATE_HZ)


def _peak_hz(sound: Waveform) -> float:
    """Return where the mean spectrum is highest, to a fraction of a bin."""
    power = _power(sound, _LONG_WINDOW, _LONG_WINDOW // 4).mean(axis=0)
    lowest = int(_LOWEST_HZ / 2 * _LONG_WINDOW / _RATE_HZ)
    at = lowest + int(np.argmax(power[lowest:-1]))
    before, here, after = np.log(power[at - 1 : at + 2] + 1e-20)
    bend = before - 2 * here + after
    shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return float((at + shift) * _RATE_HZ / _LONG_WINDOW)


def _power(sound: Waveform, window: int, hop: int) -> Array:
    """Return the power spectrum of each frame, [num_frames, num_bins]."""
    padded = np.pad(sound, window // 2)
    padded = np.pad(padded, (0, max(0, window - len(padded))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    spectrum = np.fft.rfft(frames * np.hanning(window), axis=1)
    return np.asarray(spectrum.real**2 + spectrum.imag**2)


@lru_cache(maxsize=1)
def _bands() -> Array:
    """Return triangles spaced evenly in pitch, [num_bins, num_bands]."""
    hz = np.fft.rfftfreq(_WINDOW, 1 / _RATE_HZ)
    edges = np.geomspace(_LOWEST_HZ, _HIGHEST_HZ, _NUM_BANDS + 2)
    rising = (hz[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz[:, None]) / (edges[2:] - edges[1:-1])
    return np.asarray(np.clip(np.minimum(rising, falling), 0, None))


@lru_cache(maxsize=256)
def _stretch(num_frames: int) -> Array:
    """Return the weights that average frames into steps of time, [num_times, num_frames]."""
    width = num_frames / _NUM_TIMES
    centres = (np.arange(_NUM_TIMES) + 0.5) * width
    at = np.arange(num_frames) + 0.5
    reach = max(_OVERLAP * width, 1.0)
    weights = np.clip(1 - np.abs(at - centres[:, None]) / reach, 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
