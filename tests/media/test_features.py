"""Spectrogram and MFCC against what they are by definition."""

import numpy as np
import pytest
from scipy.fft import dct
from scipy.signal import stft

from mmcore.media.audio import LOG_FLOOR, log_mel, mel_filterbank, power_spectrogram
from mmcore.media.features import log_spectrogram, mfcc

FRAMES = {"rate_hz": 16_000, "hop_seconds": 0.01, "window_seconds": 0.025}


def chirp(seconds: float = 0.5) -> np.ndarray:
    times = np.arange(round(seconds * 16_000)) / 16_000
    return (0.5 * np.sin(2 * np.pi * (300 + 3000 * times) * times)).astype(np.float32)


def test_spectrogram_is_the_power_of_a_short_time_fourier_transform() -> None:
    found = power_spectrogram(chirp(), **FRAMES)
    _, _, reference = stft(
        chirp(), nperseg=400, noverlap=240, window="hann", boundary="zeros", padded=False,
        scaling="spectrum",
    )  # fmt: skip
    expected = np.abs(reference.T * 200) ** 2  # scipy divides by the sum of the window
    assert found.shape == (51, 201)
    np.testing.assert_allclose(found[:50], expected[:50], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        log_spectrogram(chirp(), **FRAMES), np.log(np.maximum(found, LOG_FLOOR)), rtol=1e-5
    )


def test_mel_bands_of_the_spectrogram_are_the_log_mel() -> None:
    mel = power_spectrogram(chirp(), **FRAMES) @ mel_filterbank(16_000, 400, 64).T
    np.testing.assert_allclose(
        np.log(np.maximum(mel, LOG_FLOOR)), log_mel(chirp(), num_mels=64), rtol=1e-4, atol=1e-4
    )


def test_mfcc_are_the_orthonormal_cosine_transform_of_decibels() -> None:
    mel = power_spectrogram(chirp(), **FRAMES) @ mel_filterbank(16_000, 400, 40).T
    decibels = 10 * np.log10(np.maximum(mel, 1e-10))
    decibels = np.maximum(decibels, decibels.max() - 80)
    expected = dct(decibels, type=2, norm="ortho", axis=1)[:, :13]
    found = mfcc(chirp(), **FRAMES, num_mels=40, num_coefficients=13)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("num_samples", [1, 100, 400])
def test_a_sound_shorter_than_a_window_has_frames(num_samples: int) -> None:
    found = mfcc(np.ones(num_samples, np.float32), **FRAMES, num_mels=40, num_coefficients=13)
    assert found.shape == (1 + num_samples // 160, 13)
    assert np.isfinite(found).all()
