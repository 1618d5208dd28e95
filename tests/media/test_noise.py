"""The estimate of noise, against mixtures whose ratio is known."""

from typing import Any

import numpy as np
import pytest

from mmcore.media.noise import MAX_SNR_DB, estimate_snr_db

RATE_HZ = 16_000
Sound = np.ndarray[Any, np.dtype[np.float32]]


def speech_like(seconds: float = 3.0) -> Sound:
    """Syllables: bursts of noise of 0.3 s with pauses of 0.2 s."""
    rng = np.random.default_rng(0)
    burst = (np.arange(round(seconds * RATE_HZ)) / RATE_HZ) % 0.5 < 0.3
    return (burst * rng.normal(size=len(burst)) * 0.1).astype(np.float32)


@pytest.mark.parametrize("snr_db", [10, 20, 30, 40])
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 48_000])
def test_known_ratios_are_found_within_three_db(snr_db: float, rate_hz: int) -> None:
    sound = speech_like()
    noise = np.random.default_rng(1).normal(size=len(sound)) * 0.1 * 10 ** (-snr_db / 20)
    found = estimate_snr_db((sound + noise).astype(np.float32), rate_hz)
    assert found == pytest.approx(snr_db, abs=3)


def test_the_noise_below_the_signal_is_not_counted_with_it() -> None:
    sound = speech_like(10.0)
    noise = np.random.default_rng(1).normal(size=len(sound)) * 0.1
    assert estimate_snr_db((sound + noise).astype(np.float32), RATE_HZ) < 2.0


def test_ratio_does_not_depend_on_the_level() -> None:
    sound = speech_like() + np.float32(0.001)
    assert estimate_snr_db(sound, RATE_HZ) == pytest.approx(
        estimate_snr_db(sound * np.float32(0.01), RATE_HZ), abs=0.01
    )


def test_digital_silence_in_the_pauses_is_the_most_there_is() -> None:
    assert estimate_snr_db(speech_like(), RATE_HZ) == MAX_SNR_DB


@pytest.mark.parametrize("length", [0, 1, 100, 639])
def test_sound_too_short_to_judge_is_zero(length: int) -> None:
    assert estimate_snr_db(np.ones(length, np.float32), RATE_HZ) == 0.0


def test_what_never_pauses_is_zero() -> None:
    steady = np.random.default_rng(2).normal(size=RATE_HZ).astype(np.float32)
    assert estimate_snr_db(steady, RATE_HZ) < 1.0
    assert estimate_snr_db(np.zeros(RATE_HZ, np.float32), RATE_HZ) == 0.0
