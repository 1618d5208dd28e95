"""Sound as arrays that models read: spectrogram and MFCC, besides the log-mel of `audio`."""

from functools import lru_cache
from typing import Any

import numpy as np

from mmcore.media.audio import LOG_FLOOR, Waveform, mel_filterbank, power_spectrogram

_TOP_DB = 80.0


def log_spectrogram(
    waveform: Waveform, *, rate_hz: int, hop_seconds: float, window_seconds: float
) -> Waveform:
    """Return ln(max(power, 1e-10)), float32 [T, window // 2 + 1]."""
    power = power_spectrogram(
        waveform, rate_hz=rate_hz, hop_seconds=hop_seconds, window_seconds=window_seconds
    )
    return np.log(np.maximum(power, LOG_FLOOR)).astype(np.float32)


def mfcc(
    waveform: Waveform,
    *,
    rate_hz: int,
    hop_seconds: float,
    window_seconds: float,
    num_mels: int,
    num_coefficients: int,
) -> Waveform:
    """Return mel-frequency cepstral coefficients, float32 [T, num_coefficients].

    Davis and Mermelstein, IEEE ASSP 1980: the orthonormal DCT-II of mel power in dB, at most
    80 dB below its maximum; what `librosa.feature.mfcc` gives for n_fft = win_length = window,
    pad_mode="constant" and otherwise its defaults.
    """
    power = power_spectrogram(
        waveform, rate_hz=rate_hz, hop_seconds=hop_seconds, window_seconds=window_seconds
    )
    mel = power @ mel_filterbank(rate_hz, round(window_seconds * rate_hz), num_mels).T
    decibels = 10.0 * np.log10(np.maximum(mel, LOG_FLOOR))
    decibels = np.maximum(decibels, decibels.max() - _TOP_DB)
    found: Waveform = (decibels @ _dct(num_mels)[:num_coefficients].T).astype(np.float32)
    return found


@lru_cache(maxsize=8)
def _dct(size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the orthonormal DCT-II as a matrix [size, size]."""
    rows, columns = np.mgrid[:size, :size]
    matrix = np.sqrt(2.0 / size) * np.cos(np.pi * rows * (2 * columns + 1) / (2 * size))
    matrix[0] /= np.sqrt(2.0)
    return np.asarray(matrix, np.float64)
