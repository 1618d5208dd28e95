"""Sound: every container that is taken, what broken bytes become, and the mel spectrum."""

import io

import numpy as np
import pytest
import soundfile

from mmcore.errors import SampleError
from mmcore.media.audio import (
    AudioHeader,
    audio_header,
    audio_of,
    dbfs,
    decode_audio,
    encode_flac,
    encode_wav,
    log_mel,
    mel_filterbank,
    resample,
)
from mmcore.sample import Part, Sample


def tone(seconds: float = 1.0, rate_hz: int = 16_000, hz: float = 440.0) -> np.ndarray:
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * hz * times)).astype(np.float32)


def encoded(
    waveform: np.ndarray, audio_format: str, subtype: str | None = None, rate_hz: int = 16_000
) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate_hz, format=audio_format, subtype=subtype)
    return buffer.getvalue()


def reason_of(data: bytes, **limits: float) -> str:
    with pytest.raises(SampleError) as caught:
        decode_audio(data, **limits)
    assert caught.value.detail
    assert "0x" not in caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize(
    ("audio_format", "subtype", "tolerance"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "FLOAT", 1e-7),
        ("FLAC", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 0.05),
        ("MP3", "MPEG_LAYER_III", 0.05),
    ],
)
def test_containers_come_back(audio_format: str, subtype: str, tolerance: float) -> None:
    waveform, rate_hz = decode_audio(encoded(tone(), audio_format, subtype))
    assert rate_hz == 16_000
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, tone(), atol=tolerance)


def test_channels_are_averaged() -> None:
    stereo = np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1)
    waveform, _ = decode_audio(encoded(stereo, "WAV"))
    np.testing.assert_allclose(waveform, 0.125, atol=1e-4)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_that_lost_its_end_is_found_out(subtype: str) -> None:
    noise = np.random.default_rng(0).standard_normal(48_000).astype(np.float32) * 0.1
    data = encoded(noise, "OGG", subtype)
    pages = [at for at in range(len(data)) if data[at : at + 4] == b"OggS"]
    assert len(pages) > 3
    # cut between two pages: the decoder notices nothing
    cut = data[: pages[-1]]
    assert len(soundfile.read(io.BytesIO(cut))[0]) > 0
    assert reason_of(cut) == "audio_truncated"
    assert reason_of(data[:-5]) == "audio_truncated"


def test_wav_that_lost_its_end_is_found_out() -> None:
    assert reason_of(encoded(tone(), "WAV")[:-200]) == "audio_truncated"


def test_wav_of_unknown_length_is_taken() -> None:
    data = bytearray(encoded(tone(), "WAV"))
    at = data.index(b"data")
    data[at + 4 : at + 8] = b"\xff\xff\xff\xff"
    assert len(decode_audio(bytes(data))[0]) == 16_000


def test_mp3_that_lost_its_end_is_found_out() -> None:
    data = encoded(tone(2.0), "MP3")
    assert reason_of(data[: len(data) // 2]) == "audio_truncated"


def test_flac_that_lost_its_end_is_undecodable() -> None:
    data = encoded(tone(), "FLAC")
    assert reason_of(data[: len(data) // 2]) == "audio_undecodable"


@pytest.mark.parametrize("start", [b"OggS", b"fLaC", b"ID3", b"RIFF\x00\x00\x00\x00WAVE"])
def test_nonsense_behind_a_known_start_is_undecodable(start: bytes) -> None:
    assert reason_of(start + bytes(range(200))) == "audio_undecodable"


@pytest.mark.parametrize("data", [b"", b"<svg/>", b"MATLAB 5.0 MAT-file", b".snd" + bytes(60)])
def test_other_formats_are_refused(data: bytes) -> None:
    assert reason_of(data) == "audio_format_refused"


def test_sound_without_a_frame_is_refused() -> None:
    assert reason_of(encoded(np.zeros(0, np.float32), "WAV")) == "audio_empty"


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_values_that_are_no_sound_are_refused(value: float) -> None:
    data = encoded(np.full(100, value, np.float32), "WAV", "FLOAT")
    assert reason_of(data) == "audio_undecodable"


def test_length_at_the_limit_is_taken() -> None:
    data = encoded(tone(2.0), "WAV")
    assert len(decode_audio(data, max_seconds=2.0)[0]) == 32_000
    assert reason_of(data, max_seconds=1.99) == "audio_over_limit"


def test_absurd_rate_is_refused() -> None:
    assert reason_of(encoded(tone(), "WAV", rate_hz=8)) == "audio_over_limit"


def test_sixteen_bits_come_back_exactly() -> None:
    numbers = np.array([-32768, -1, 0, 1, 12345, 32767], np.int16)
    waveform, _ = decode_audio(encoded(numbers, "WAV"))
    for data in (encode_wav(waveform, 16_000), encode_flac(waveform, 16_000)):
        found, _ = soundfile.read(io.BytesIO(data), dtype="int16")
        np.testing.assert_array_equal(found, numbers)


def test_beyond_full_scale_is_clipped_not_wrapped() -> None:
    waveform, _ = decode_audio(encode_wav(np.array([2.0, -2.0], np.float32), 16_000))
    assert waveform[0] > 0.99
    assert waveform[1] < -0.99


@pytest.mark.parametrize("encode", [encode_flac, encode_wav])
def test_equal_waveforms_give_equal_bytes(encode: object) -> None:
    assert callable(encode)
    assert encode(tone(), 16_000) == encode(tone(), 16_000)
    assert decode_audio(encode(tone(), 8_000))[1] == 8_000


def test_resampling_keeps_the_tone() -> None:
    found = resample(tone(1.0, 44_100), 44_100, 16_000)
    assert len(found) == 16_000
    np.testing.assert_allclose(found[1_000:-1_000], tone()[1_000:-1_000], atol=2e-3)


def test_resampling_to_the_same_rate_changes_nothing() -> None:
    waveform = tone()
    assert resample(waveform, 16_000, 16_000) is waveform


def test_level_of_full_scale_is_zero_and_of_silence_minus_120() -> None:
    assert dbfs(1.0) == 0.0
    assert dbfs(0.1) == pytest.approx(-20.0)
    assert dbfs(0.0) == -120.0


def test_stages_share_one_decoded_sound_that_none_can_change() -> None:
    sample = Sample("a", parts={"speech.wav": Part(data=encoded(tone(), "WAV"))})
    waveform, rate_hz = audio_of(sample)
    assert rate_hz == 16_000
    assert audio_of(sample.with_scores(seen=1.0))[0] is waveform
    with pytest.raises(ValueError, match="read-only"):
        waveform[0] = 0


def test_mel_bands_are_those_of_slaney() -> None:
    # 5 equal steps on a scale of 3 mel per 200 Hz below 1 kHz and 27 mel per factor 6.4 above;
    # 8 kHz is 45.2456 mel
    expected = []
    for number in range(1, 5):
        mel = number * 45.2456 / 5
        expected.append(mel * 200 / 3 if mel < 15 else 1_000 * 6.4 ** ((mel - 15) / 27))
    filters = mel_filterbank(16_000, 16_000, 4)
    np.testing.assert_allclose(filters.argmax(axis=1), expected, atol=1)
    # with bins of 1 Hz the area of a triangle is the sum of its values
    np.testing.assert_allclose(filters.sum(axis=1), 1.0, atol=1e-3)


def test_every_mel_band_of_the_default_has_a_bin() -> None:
    assert (mel_filterbank(16_000, 400, 64).sum(axis=1) > 0).all()


def test_log_mel_is_that_of_the_plain_formula() -> None:
    waveform = np.random.default_rng(0).standard_normal(2_000).astype(np.float32) * 0.1
    found = log_mel(waveform)
    assert found.shape == (1 + 2_000 // 160, 64)
    assert found.dtype == np.float32
    padded = np.concatenate([np.zeros(200), waveform.astype(np.float64), np.zeros(400)])
    angles = np.outer(np.arange(201), np.arange(400)) * 2 * np.pi / 400
    window = np.sin(np.pi * np.arange(400) / 400) ** 2
    for frame in (0, 5, 12):
        windowed = padded[frame * 160 : frame * 160 + 400] * window
        power = (np.cos(angles) @ windowed) ** 2 + (np.sin(angles) @ windowed) ** 2
        mel = mel_filterbank(16_000, 400, 64).astype(np.float64) @ power
        np.testing.assert_allclose(found[frame], np.log(mel), atol=1e-3)


def test_log_mel_of_a_tone_peaks_at_its_band() -> None:
    found = log_mel(tone(hz=1_000.0))
    centres = mel_filterbank(16_000, 16_000, 64).argmax(axis=1)
    assert abs(centres[found[50].argmax()] - 1_000) < 40


@pytest.mark.parametrize("num_samples", [0, 1, 159, 160, 16_000])
def test_log_mel_has_one_frame_per_hop_and_a_floor(num_samples: int) -> None:
    found = log_mel(np.zeros(num_samples, np.float32))
    assert found.shape == (1 + num_samples // 160, 64)
    np.testing.assert_allclose(found, np.log(1e-10), rtol=1e-6)


@pytest.mark.parametrize("audio_format", ["WAV", "FLAC", "OGG"])
def test_header_says_rate_channels_and_length(audio_format: str) -> None:
    stereo = np.stack([tone(), tone()], axis=1)
    assert audio_header(encoded(stereo, audio_format)) == AudioHeader(16_000, 2, 16_000)


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "audio_format_refused"), (b"OggS", "audio_undecodable")]
)
def test_broken_header_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(SampleError) as caught:
        audio_header(data)
    assert caught.value.reason == reason
