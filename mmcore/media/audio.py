"""Sound: bytes to mono float32 under limits that hold before a sample is decoded, and back."""

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import soundfile
import soxr

from mmcore.errors import SampleError
from mmcore.media import container
from mmcore.sample import Sample

Waveform = np.ndarray[Any, np.dtype[np.float32]]
AudioFormat = Literal["FLAC", "WAV"]

MAX_SECONDS = 600.0
MAX_CHANNELS = 32
MIN_RATE_HZ = 1_000
MAX_RATE_HZ = 768_000
# Sound in floating point may pass full scale, 1; bytes that are no sound pass it by far
MAX_AMPLITUDE = 1_000.0
LOG_FLOOR = 1e-10

# An MP3 says its length only approximately; a FLAC that is cut off fails by itself.
_MIN_DECODED_FRACTION = 0.98


@dataclass(frozen=True, slots=True)
class AudioHeader:
    """What a sound file says of itself before anything is decoded."""

    rate_hz: int
    num_channels: int
    num_frames: int
    """A frame is one value per channel. An MP3 says it only approximately."""


def audio_header(data: bytes) -> AudioHeader:
    """Return what the header says; SampleError `audio_format_refused` or `audio_undecodable`."""
    name = _taken_format_of(data)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            return AudioHeader(int(file.samplerate), int(file.channels), int(file.frames))
    except soundfile.LibsndfileError as error:
        raise _undecodable(name, data, error) from error


def decode_audio(data: bytes, *, max_seconds: float = MAX_SECONDS) -> tuple[Waveform, int]:
    """Return (float32 mono [num_samples], rate in Hz): full scale is 1, channels are averaged.

    WAV, FLAC, OGG (Vorbis, Opus) and MP3. SampleError: `audio_format_refused` for anything else,
    `audio_over_limit` by what the header says, before decoding, `audio_truncated` where the
    container shows that its end is missing, `audio_empty`, and `audio_undecodable`. A cut MP3
    without a Xing header cannot be told from a shorter one.
    """
    name = _taken_format_of(data)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate_hz, num_frames = int(file.samplerate), int(file.frames)
            _check_header(file.channels, rate_hz, num_frames, max_seconds)
            frames = file.read(
                min(num_frames, int(max_seconds * rate_hz)), "float32", always_2d=True
            )
    except soundfile.LibsndfileError as error:
        raise _undecodable(name, data, error) from error
    missing = container.missing_end(name, data)
    if missing is None and len(frames) < _MIN_DECODED_FRACTION * num_frames:
        missing = f"{len(frames)} of {num_frames} frames decoded"
    if missing is not None:
        raise SampleError("audio_truncated", f"{name} of {len(data)} bytes: {missing}")
    if len(frames) == 0:
        raise SampleError("audio_empty", f"{name} of {len(data)} bytes holds no frame")
    if not (np.abs(frames) <= MAX_AMPLITUDE).all():
        raise SampleError(
            "audio_undecodable", f"{name}: values beyond {MAX_AMPLITUDE:g} or no numbers"
        )
    waveform: Waveform = frames.mean(axis=1, dtype=np.float32)
    return waveform, rate_hz


def audio_of(sample: Sample) -> tuple[Waveform, int]:
    """Return (waveform, rate in Hz) of a sample that has sound, decoded once for all stages.

    The array is shared: it is read-only.
    """
    extension = sample.extension("audio")
    assert extension is not None, f"{sample.key} has no audio"
    at = (extension, "audio")
    if at not in sample.scratch:
        share_audio(sample, *decode_audio(sample.data(extension)))
    waveform, rate_hz = sample.scratch[at]
    return waveform, rate_hz


def share_audio(sample: Sample, waveform: Waveform, rate_hz: int) -> None:
    """Keep a decoded sound for the stages after this one."""
    extension = sample.extension("audio")
    assert extension is not None, f"{sample.key} has no audio"
    waveform.flags.writeable = False
    sample.scratch[(extension, "audio")] = (waveform, rate_hz)


def resample(waveform: Waveform, from_hz: int, to_hz: int) -> Waveform:
    """Return the waveform at another rate (soxr, quality HQ); itself where the rate is the same."""
    if from_hz == to_hz:
        return waveform
    return np.asarray(soxr.resample(waveform, from_hz, to_hz, quality="HQ"), np.float32)


def encode_flac(waveform: Waveform, rate_hz: int) -> bytes:
    """Return 16-bit FLAC; equal waveforms give equal bytes."""
    return _encode(waveform, rate_hz, "FLAC")


def encode_wav(waveform: Waveform, rate_hz: int) -> bytes:
    """Return 16-bit PCM WAV; equal waveforms give equal bytes."""
    return _encode(waveform, rate_hz, "WAV")


def dbfs(amplitude: float) -> float:
    """Return an amplitude in dB of full scale, never below -120: silence has no logarithm."""
    return max(-120.0, 20.0 * float(np.log10(max(amplitude, 1e-6))))


def log_mel(
    waveform: Waveform,
    *,
    rate_hz: int = 16_000,
    num_mels: int = 64,
    hop_seconds: float = 0.01,
    window_seconds: float = 0.025,
) -> Waveform:
    """Return ln(max(power, 1e-10)) in mel bands, float32 [T, M], T = 1 + num_samples // hop.

    Periodic Hann window, frames centred on multiples of the hop with zeros beyond both ends,
    power spectrum, Slaney mel bands: what `librosa.feature.melspectrogram` gives for
    n_fft = win_length = window, pad_mode="constant" and otherwise its defaults.
    """
    power = power_spectrogram(
        waveform, rate_hz=rate_hz, hop_seconds=hop_seconds, window_seconds=window_seconds
    )
    window_length = round(window_seconds * rate_hz)
    mel = power @ mel_filterbank(rate_hz, window_length, num_mels).T
    log: Waveform = np.log(np.maximum(mel, LOG_FLOOR)).astype(np.float32)
    return log


def power_spectrogram(
    waveform: Waveform, *, rate_hz: int, hop_seconds: float, window_seconds: float
) -> Waveform:
    """Return the power per frequency, float32 [T, window // 2 + 1], T = 1 + num_samples // hop.

    Periodic Hann window, frames centred on multiples of the hop with zeros beyond both ends.
    """
    window_length, hop = round(window_seconds * rate_hz), round(hop_seconds * rate_hz)
    num_frames = 1 + len(waveform) // hop
    half = window_length // 2
    padded = np.zeros((num_frames - 1) * hop + window_length, np.float32)
    body = waveform[: len(padded) - half]
    padded[half : half + len(body)] = body
    frames = np.lib.stride_tricks.sliding_window_view(padded, window_length)[::hop]
    spectrum = np.fft.rfft(frames * _hann(window_length), axis=1)
    power: Waveform = (spectrum.real**2 + spectrum.imag**2).astype(np.float32, copy=False)
    return power


@lru_cache(maxsize=8)
def mel_filterbank(rate_hz: int, num_fft: int, num_mels: int) -> Waveform:
    """Return triangular filters float32 [num_mels, num_fft // 2 + 1] from 0 Hz to half the rate.

    Slaney, Auditory Toolbox, Interval Technical Report 1998-010: the mel scale is linear below
    1 kHz and logarithmic above; every triangle has the area 1 over Hz.
    """
    edges = _mel_to_hz(np.linspace(0.0, float(_hz_to_mel(rate_hz / 2)), num_mels + 2))
    bins = np.fft.rfftfreq(num_fft, 1.0 / rate_hz)
    lower, centre, upper = (edges[i : i + num_mels, None] for i in range(3))
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (upper - lower)
    filters: Waveform = triangles.astype(np.float32)
    filters.flags.writeable = False
    return filters


_HZ_PER_MEL = 200.0 / 3.0
_KNEE_HZ = 1000.0
_KNEE_MEL = _KNEE_HZ / _HZ_PER_MEL
_LOG_STEP = float(np.log(6.4)) / 27.0


def _hz_to_mel(hz: float) -> float:
    return (
        hz / _HZ_PER_MEL if hz < _KNEE_HZ else _KNEE_MEL + float(np.log(hz / _KNEE_HZ)) / _LOG_STEP
    )


def _mel_to_hz(mel: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    above = _KNEE_HZ * np.exp(_LOG_STEP * (mel - _KNEE_MEL))
    return np.where(mel < _KNEE_MEL, mel * _HZ_PER_MEL, above)


@lru_cache(maxsize=8)
def _hann(length: int) -> Waveform:
    return (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length)).astype(np.float32)


def _taken_format_of(data: bytes) -> str:
    name = container.format_of(data)
    if name is None:
        raise SampleError(
            "audio_format_refused",
            f"starts with {data[:12]!r}; taken are WAV, FLAC, OGG and MP3",
        )
    return name


def _undecodable(name: str, data: bytes, error: soundfile.LibsndfileError) -> SampleError:
    # its full words name an address in memory, and details are stored: equal input, equal bytes
    detail = f"{name} of {len(data)} bytes: {error.error_string}"
    return SampleError("audio_undecodable", detail)


def _check_header(num_channels: int, rate_hz: int, num_frames: int, max_seconds: float) -> None:
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ or not 1 <= num_channels <= MAX_CHANNELS:
        raise SampleError(
            "audio_over_limit",
            f"{num_channels} channels at {rate_hz} Hz; taken are 1 to {MAX_CHANNELS} channels at "
            f"{MIN_RATE_HZ} to {MAX_RATE_HZ} Hz",
        )
    if num_frames > max_seconds * rate_hz:
        raise SampleError("audio_over_limit", f"{num_frames / rate_hz:.1f} s > {max_seconds:g} s")


def _encode(waveform: Waveform, rate_hz: int, audio_format: AudioFormat) -> bytes:
    # 32768, the factor that reading divides by: what was 16 bits before comes out unchanged
    scaled = np.clip(np.rint(waveform * np.float32(32768.0)), -32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, scaled, rate_hz, format=audio_format, subtype="PCM_16")
    return buffer.getvalue()
