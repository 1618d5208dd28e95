"""Encoding of sound: mono, one rate, trimmed, cut, renamed."""

import io

import numpy as np
import pytest
import soundfile

from mmcore.encode.audio import EncodeAudio, trim
from mmcore.errors import SampleError
from mmcore.sample import Part, Sample


def sound(seconds: float = 1.0, *, rate_hz: int = 44_100, silence_seconds: float = 0.0) -> Sample:
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    silence = np.zeros(round(silence_seconds * rate_hz))
    tone = np.concatenate([silence, 0.5 * np.cos(2 * np.pi * 440 * times), silence])
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([tone, tone], axis=1), rate_hz, format="WAV")
    return Sample("a", parts={"effect.wav": Part(data=buffer.getvalue()), "txt": Part(data=b"Moo")})


def encoded(stage: EncodeAudio, sample: Sample) -> Sample:
    outcome = stage.build()(sample)
    assert isinstance(outcome, Sample)
    return outcome


@pytest.mark.parametrize("extension", ["flac", "wav"])
def test_sound_becomes_mono_at_one_rate_and_is_named_by_its_format(extension: str) -> None:
    stage = EncodeAudio(format=extension)  # type: ignore[arg-type]
    outcome = encoded(stage, sound())
    assert sorted(outcome.parts) == sorted([extension, "txt"])
    info = soundfile.info(io.BytesIO(outcome.data(extension)))
    assert (info.format, info.subtype) == (extension.upper(), "PCM_16")
    assert (info.channels, info.samplerate, info.frames) == (1, 16_000, 16_000)


@pytest.mark.parametrize("seconds", [0.5, 0.7])
def test_sound_is_cut_at_the_limit(seconds: float) -> None:
    outcome = encoded(EncodeAudio(max_seconds=0.5), sound(seconds))
    assert soundfile.info(io.BytesIO(outcome.data("flac"))).frames == 8_000


def test_cutting_changes_nothing_before_the_cut() -> None:
    whole, cut = (
        soundfile.read(io.BytesIO(encoded(EncodeAudio(max_seconds=limit), sound(2.0)).data("flac")))
        for limit in (10.0, 0.5)
    )
    np.testing.assert_array_equal(whole[0][:8_000], cut[0])


def test_quiet_ends_are_trimmed_only_when_asked() -> None:
    sample = sound(1.0, silence_seconds=0.5)
    assert soundfile.info(io.BytesIO(encoded(EncodeAudio(), sample).data("flac"))).frames == 32_000
    trimmed = encoded(EncodeAudio(trim_dbfs=-40.0), sample).data("flac")
    assert abs(soundfile.info(io.BytesIO(trimmed)).frames - 16_000) <= 4


def test_trimming_keeps_what_is_at_the_level_and_quiet_middles() -> None:
    waveform = np.array([0.0, 0.09, 0.1, 0.0, -0.1, 0.0], np.float32)
    np.testing.assert_array_equal(trim(waveform, threshold_dbfs=-20.01), waveform[2:5])


def test_sound_that_is_quiet_throughout_is_not_trimmed() -> None:
    waveform = np.full(10, 1e-4, np.float32)
    assert len(trim(waveform, threshold_dbfs=-50.0)) == 10


def test_same_sound_gives_the_same_bytes() -> None:
    stage = EncodeAudio(trim_dbfs=-50.0)
    assert encoded(stage, sound()).parts == encoded(stage, sound()).parts


def test_broken_sound_is_quarantined() -> None:
    with pytest.raises(SampleError) as caught:
        EncodeAudio().build()(Sample("a", parts={"wav": Part(data=b"no sound")}))
    assert caught.value.reason == "audio_format_refused"


def test_sample_without_sound_passes_through() -> None:
    sample = Sample("a", parts={"txt": Part(data=b"Moo")})
    assert EncodeAudio().build()(sample) is sample
