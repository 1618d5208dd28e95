import io
import itertools

import numpy as np
import pytest
import soundfile as sf

from mmcore.ingest.scenes import COLOURS, SHAPES, Scene
from mmcore.ingest.tones import SAMPLE_RATE_HZ, encoded, play


def scene(shape: str, colour: str) -> Scene:
    return Scene(shape=shape, colour=colour, size="small", field="grey")


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg"])
def test_equal_sounds_give_equal_bytes(extension: str) -> None:
    wave = play(scene("star", "red"), np.random.default_rng(1))
    data = encoded(wave, extension)
    assert data == encoded(wave, extension)
    read, rate = sf.read(io.BytesIO(data))
    assert rate == SAMPLE_RATE_HZ
    assert len(read) == len(wave)
    assert np.abs(read - wave).max() < 0.05


def test_every_shape_has_a_pitch_of_its_own() -> None:
    pitches = []
    for shape in SHAPES:
        wave = play(scene(shape, "red"), np.random.default_rng(1))
        spectrum = np.abs(np.fft.rfft(wave))
        pitches.append(float(np.argmax(spectrum)) * SAMPLE_RATE_HZ / len(wave))
    assert all(after / before > 1.25 for before, after in itertools.pairwise(pitches))


def test_every_colour_has_a_timbre_of_its_own() -> None:
    shares = set()
    for colour in COLOURS:
        wave = play(scene("circle", colour), np.random.default_rng(1))
        spectrum = np.abs(np.fft.rfft(wave))
        bins = [round(160.0 * n * len(wave) / SAMPLE_RATE_HZ) for n in range(1, 6)]
        peaks = np.array([spectrum[int(b * 0.97) : int(b * 1.03) + 1].max() for b in bins])
        shares.add(tuple(np.round(peaks / peaks.max(), 1)))
    assert len(shares) == len(COLOURS)
