"""How far a sound stands above its own background, with nothing to compare it with."""

import numpy as np

from mmcore.media.audio import Waveform

FRAME_SECONDS = 0.02
MAX_SNR_DB = 100.0
# Of the frames in order of their power: the quietest tenth is background, the loudest fifth signal
_BACKGROUND_PERCENTILE = 10.0
_SIGNAL_PERCENTILE = 80.0
# What the tenth quietest of many frames of steady noise lies below their mean, for frames of
# 160 values and more: chi-squared, 0.86
_BACKGROUND_BIAS = 0.87


def estimate_snr_db(waveform: Waveform, rate_hz: int) -> float:
    """Return an estimate of the ratio of signal to noise in dB, 0 to 100.

    The waveform is cut into frames of 20 ms. The tenth percentile of their power is taken for the
    noise, the mean power of the loudest fifth, less the noise, for the signal: the idea of NIST's
    STNR (NIST Speech Quality Assurance package, 1990), by percentiles instead of a fitted
    histogram. It holds where a sound pauses, as speech does: in 0.5 s or more of it. A steady
    tone, or music without a rest, has no quiet frame and comes out near 0; a gate or a codec that
    writes silence into pauses comes out near 100.
    """
    length = max(1, round(FRAME_SECONDS * rate_hz))
    num_frames = len(waveform) // length
    if num_frames < 2:
        return 0.0
    frames = waveform[: num_frames * length].reshape(num_frames, length)
    power = np.sort(np.einsum("ij,ij->i", frames, frames).astype(np.float64) / length)
    noise = float(np.percentile(power, _BACKGROUND_PERCENTILE)) / _BACKGROUND_BIAS
    loud = power[min(num_frames - 1, round(num_frames * _SIGNAL_PERCENTILE / 100)) :]
    signal = float(loud.mean()) - noise
    if signal <= noise:
        return 0.0
    if noise <= 0.0:
        return MAX_SNR_DB
    return min(MAX_SNR_DB, 10.0 * float(np.log10(signal / noise)))
