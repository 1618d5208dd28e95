"""Cleaning of sound: kept, dropped with a reason, broken, absent."""

import io

import numpy as np
import pytest
import soundfile

from mmcore.clean.audio import (
    Clipped,
    DecodeAudio,
    MaxChannels,
    MeasureAudio,
    MinMaxRate,
    MinMaxSeconds,
    Noisy,
    Silent,
)
from mmcore.core.stage import Stage
from mmcore.errors import SampleError
from mmcore.sample import Dropped, Part, Quarantined, Sample

DECODING = [
    DecodeAudio(),
    MeasureAudio(),
    MinMaxSeconds(),
    Silent(),
    Clipped(),
    Clipped(max_fraction=0.1),
    Noisy(),
]
STAGES = [*DECODING, MinMaxRate(), MaxChannels()]
RATE_HZ = 8_000


def sound(waveform: np.ndarray, extension: str = "wav") -> Sample:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform.astype(np.float32), RATE_HZ, format=extension.upper())
    return Sample("a", parts={extension: Part(data=buffer.getvalue()), "txt": Part(data=b"Moo.")})


def tone(seconds: float = 1.0, *, amplitude: float = 0.5) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * 400 * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)


@pytest.mark.parametrize("stage", STAGES)
def test_sample_without_sound_passes_through(stage: Stage) -> None:
    sample = Sample("a", parts={"txt": Part(data=b"Moo.")})
    assert stage.build()(sample) is sample


@pytest.mark.parametrize("stage", STAGES)
def test_broken_sound_is_quarantined(stage: Stage) -> None:
    with pytest.raises(SampleError) as caught:
        stage.build()(Sample("a", parts={"ogg": Part(data=b"OggS" + bytes(100))}))
    assert caught.value.reason == "audio_undecodable"


@pytest.mark.parametrize("stage", STAGES)
def test_empty_sound_is_quarantined(stage: Stage) -> None:
    with pytest.raises(SampleError) as caught:
        stage.build()(Sample("a", parts={"ogg": Part(data=b"")}))
    assert caught.value.reason == "audio_format_refused"


@pytest.mark.parametrize("stage", DECODING)
def test_truncated_sound_is_quarantined(stage: Stage) -> None:
    data = sound(np.random.default_rng(0).uniform(-0.5, 0.5, 40_000), "ogg").data("ogg")
    with pytest.raises(SampleError) as caught:
        stage.build()(Sample("a", parts={"ogg": Part(data=data[: data.rindex(b"OggS")])}))
    assert caught.value.reason == "audio_truncated"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("extension", ["wav", "ogg", "flac"])
def test_good_sound_is_kept_with_its_bytes(stage: Stage, extension: str) -> None:
    sample = sound(tone(), extension)
    outcome = stage.build()(sample)
    assert isinstance(outcome, Sample)
    assert outcome.parts == sample.parts


def test_length_rate_and_peak_are_stored() -> None:
    outcome = DecodeAudio().build()(sound(tone(0.5)))
    assert isinstance(outcome, Sample)
    assert outcome.scores["audio_seconds"] == 0.5
    assert outcome.scores["audio_rate_hz"] == 8_000.0
    assert outcome.scores["audio_peak"] == pytest.approx(0.5, abs=1e-3)


def test_sound_over_the_declared_limit_is_quarantined() -> None:
    with pytest.raises(SampleError) as caught:
        DecodeAudio(max_seconds=0.9).build()(sound(tone()))
    assert caught.value.reason == "audio_over_limit"


@pytest.mark.parametrize("seconds", [0.2, 0.8])
def test_length_at_a_limit_is_kept(seconds: float) -> None:
    stage = MinMaxSeconds(min_seconds=0.2, max_seconds=0.8)
    assert isinstance(stage.build()(sound(tone(seconds))), Sample)


@pytest.mark.parametrize(
    ("seconds", "reason", "detail"),
    [
        (0.19, "audio_too_short", "0.190 s < 0.2 s"),
        (0.81, "audio_too_long", "0.810 s > 0.8 s"),
    ],
)
def test_length_beyond_a_limit_is_dropped(seconds: float, reason: str, detail: str) -> None:
    stage = MinMaxSeconds(min_seconds=0.2, max_seconds=0.8)
    outcome = stage.build()(sound(tone(seconds)))
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.detail) == (reason, detail)
    assert outcome.sample.scores == {"audio_seconds": seconds}


def test_silence_is_dropped_with_a_finite_level() -> None:
    outcome = Silent().build()(sound(np.zeros(1_000)))
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.detail) == ("audio_silent", "-120.0 dBFS < -60 dBFS")
    assert outcome.sample.scores == {"audio_rms_dbfs": -120.0}


def test_level_of_a_tone_is_its_rms() -> None:
    stage = Silent(min_rms_dbfs=-43.1)
    outcome = stage.build()(sound(tone(amplitude=0.01)))
    assert isinstance(outcome, Sample)
    assert outcome.scores["audio_rms_dbfs"] == pytest.approx(-43.0, abs=0.05)
    assert isinstance(Silent(min_rms_dbfs=-42.9).build()(sound(tone(amplitude=0.01))), Dropped)


def half_clipped() -> Sample:
    return sound(np.concatenate([np.ones(500), np.zeros(500)]))


def test_clipping_is_measured_and_dropped_only_when_asked() -> None:
    outcome = Clipped().build()(half_clipped())
    assert isinstance(outcome, Sample)
    assert outcome.scores == {"audio_clipped_fraction": 0.5}
    assert isinstance(Clipped(max_fraction=0.5).build()(half_clipped()), Sample)


def test_clipping_above_a_declared_fraction_is_dropped() -> None:
    outcome = Clipped(max_fraction=0.4).build()(half_clipped())
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.detail) == ("audio_clipped", "0.5000 of the sound > 0.4")


def test_clipping_at_another_level_is_another_score() -> None:
    worker = Clipped(clip_level=0.4).build()
    outcome = worker(sound(np.concatenate([np.full(500, 0.5), np.zeros(500)])))
    assert isinstance(outcome, Sample)
    assert outcome.scores == {"audio_clipped_fraction_at_0.4": 0.5}
    outcome = Clipped(max_fraction=0.1).build()(outcome)
    assert isinstance(outcome, Sample)
    assert outcome.scores["audio_clipped_fraction"] == 0.0


@pytest.mark.parametrize(("low", "high"), [(8_000, 9_000), (7_000, 8_000)])
def test_rate_at_a_limit_is_kept(low: int, high: int) -> None:
    outcome = MinMaxRate(min_rate_hz=low, max_rate_hz=high).build()(sound(tone()))
    assert isinstance(outcome, Sample)
    assert outcome.scores == {"audio_rate_hz": 8_000.0}


@pytest.mark.parametrize(
    ("low", "high", "reason", "detail"),
    [
        (8_001, 9_000, "audio_rate_too_low", "8000 Hz < 8001 Hz"),
        (7_000, 7_999, "audio_rate_too_high", "8000 Hz > 7999 Hz"),
    ],
)
def test_rate_beyond_a_limit_is_dropped(low: int, high: int, reason: str, detail: str) -> None:
    outcome = MinMaxRate(min_rate_hz=low, max_rate_hz=high).build()(sound(tone()))
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.detail) == (reason, detail)


def test_channels_at_the_limit_are_kept_and_more_dropped() -> None:
    stereo = np.stack([tone(), tone()], axis=1)
    outcome = MaxChannels().build()(sound(stereo))
    assert isinstance(outcome, Sample)
    assert outcome.scores == {"audio_channels": 2.0}
    outcome = MaxChannels(max_channels=1).build()(sound(stereo))
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.detail) == ("audio_too_many_channels", "2 channels > 1")


def with_pauses(noise: float) -> Sample:
    loud = np.tile(np.repeat([0.0, 1.0], 4_000), 3) * tone(3.0)
    return sound(loud + noise * np.random.default_rng(0).normal(size=len(loud)))


def test_noise_is_measured_and_dropped_only_when_asked() -> None:
    quiet, noisy = Noisy().build()(with_pauses(0.01)), Noisy().build()(with_pauses(0.1))
    assert isinstance(quiet, Sample)
    assert isinstance(noisy, Sample)
    # the tone has the power 1/8
    assert quiet.scores["audio_snr_db"] == pytest.approx(31, abs=1)
    assert noisy.scores["audio_snr_db"] == pytest.approx(11, abs=1)
    assert isinstance(Noisy(min_snr_db=30).build()(with_pauses(0.01)), Sample)
    outcome = Noisy(min_snr_db=30).build()(with_pauses(0.1))
    assert isinstance(outcome, Dropped)
    assert outcome.reason == "audio_noisy"
    assert outcome.detail.endswith("dB < 30 dB")


def test_all_scores_come_from_one_decode_and_spare_the_stages_after() -> None:
    measured = MeasureAudio().build()(sound(tone()))
    assert isinstance(measured, Sample)
    assert set(measured.scores) == set(MeasureAudio.stores)
    bare = Sample("a", parts={"wav": Part(data=b"gone")}, scores=measured.scores)
    for stage in STAGES:
        alone = stage.build()(sound(tone()))
        assert isinstance(alone, Sample)
        assert alone.scores.items() <= measured.scores.items()
        assert isinstance(stage.build()(bare), Sample)
    assert isinstance(MinMaxSeconds(max_seconds=0.5).build()(bare), Dropped)


def test_stored_length_is_held_against_a_lower_limit() -> None:
    measured = DecodeAudio().build()(sound(tone()))
    assert isinstance(measured, Sample)
    outcome = DecodeAudio(max_seconds=0.9).build()(measured)
    assert isinstance(outcome, Quarantined)
    assert outcome.reason == "audio_over_limit"
