"""Stages that listen to sound. Samples without one pass through; see `RequireParts`.

Everything is measured on the mean of the channels.
"""

from dataclasses import dataclass

import numpy as np

from mmcore.core.measured import Measured
from mmcore.media.audio import (
    MAX_SECONDS,
    AudioHeader,
    audio_header,
    audio_of,
    dbfs,
    decode_audio,
    share_audio,
)
from mmcore.media.noise import estimate_snr_db
from mmcore.sample import Dropped, Quarantined, Sample

_CLIP_LEVEL = 0.999


@dataclass(frozen=True, kw_only=True)
class DecodeAudio(Measured):
    """Quarantine sound that cannot be decoded or has lost its end.

    Stores the scores audio_seconds, audio_rate_hz and audio_peak (full scale is 1).
    """

    reads = ("audio",)
    # audio_peak is stored by nothing that has not decoded
    stores = ("audio_seconds", "audio_rate_hz", "audio_peak")
    max_seconds: float = MAX_SECONDS
    """Held against the header, before anything is decoded."""

    def measure(self, sample: Sample) -> Sample:
        waveform, rate_hz = decode_audio(_data(sample), max_seconds=self.max_seconds)
        share_audio(sample, waveform, rate_hz)
        return sample.with_scores(
            audio_seconds=len(waveform) / rate_hz,
            audio_rate_hz=float(rate_hz),
            audio_peak=float(max(waveform.max(), -waveform.min())),
        )

    def decide(self, sample: Sample) -> Dropped | Quarantined | None:
        seconds = sample.scores["audio_seconds"]
        if seconds > self.max_seconds:
            detail = f"{seconds:.1f} s > {self.max_seconds:g} s"
            return Quarantined(sample, "audio_over_limit", detail)
        return None


@dataclass(frozen=True, kw_only=True)
class MeasureAudio(Measured):
    """Measure everything cheap about a sound from one decode; drop nothing.

    Stores audio_seconds, audio_rate_hz, audio_channels, audio_peak, audio_rms_dbfs,
    audio_clipped_fraction and audio_snr_db, so that the stages after it only compare.
    """

    reads = ("audio",)
    stores = (
        "audio_seconds",
        "audio_rate_hz",
        "audio_channels",
        "audio_peak",
        "audio_rms_dbfs",
        "audio_clipped_fraction",
        "audio_snr_db",
    )

    def measure(self, sample: Sample) -> Sample:
        for stage in (DecodeAudio(), MaxChannels(), Silent(), Clipped(), Noisy()):
            sample = sample if stage.is_measured(sample) else stage.measure(sample)
        return sample


@dataclass(frozen=True, kw_only=True)
class MinMaxSeconds(Measured):
    """Drop sounds that are too short or too long; store the score audio_seconds."""

    reads = ("audio",)
    stores = ("audio_seconds",)
    limits = ("min_seconds", "max_seconds")
    min_seconds: float = 0.1
    max_seconds: float = 60.0

    def measure(self, sample: Sample) -> Sample:
        waveform, rate_hz = audio_of(sample)
        return sample.with_scores(audio_seconds=len(waveform) / rate_hz)

    def decide(self, sample: Sample) -> Dropped | None:
        seconds = sample.scores["audio_seconds"]
        if seconds < self.min_seconds:
            detail = f"{seconds:.3f} s < {self.min_seconds:g} s"
            return Dropped(sample, "audio_too_short", detail)
        if seconds > self.max_seconds:
            detail = f"{seconds:.3f} s > {self.max_seconds:g} s"
            return Dropped(sample, "audio_too_long", detail)
        return None


@dataclass(frozen=True, kw_only=True)
class MinMaxRate(Measured):
    """Drop sounds of a low or an odd sample rate, by the header; store the score audio_rate_hz."""

    reads = ("audio",)
    stores = ("audio_rate_hz",)
    limits = ("min_rate_hz", "max_rate_hz")
    min_rate_hz: int = 8_000
    """Half of it is the highest pitch that a sound can hold; resampling adds nothing."""
    max_rate_hz: int = 192_000

    def measure(self, sample: Sample) -> Sample:
        return sample.with_scores(audio_rate_hz=float(_header(sample).rate_hz))

    def decide(self, sample: Sample) -> Dropped | None:
        rate_hz = int(sample.scores["audio_rate_hz"])
        if rate_hz < self.min_rate_hz:
            return Dropped(sample, "audio_rate_too_low", f"{rate_hz} Hz < {self.min_rate_hz} Hz")
        if rate_hz > self.max_rate_hz:
            return Dropped(sample, "audio_rate_too_high", f"{rate_hz} Hz > {self.max_rate_hz} Hz")
        return None


@dataclass(frozen=True, kw_only=True)
class MaxChannels(Measured):
    """Drop sounds with too many channels, by the header; store the score audio_channels.

    All later work hears their mean, which of many microphones or tracks means little.
    """

    reads = ("audio",)
    stores = ("audio_channels",)
    limits = ("max_channels",)
    max_channels: int = 2

    def measure(self, sample: Sample) -> Sample:
        return sample.with_scores(audio_channels=float(_header(sample).num_channels))

    def decide(self, sample: Sample) -> Dropped | None:
        channels = int(sample.scores["audio_channels"])
        if channels > self.max_channels:
            detail = f"{channels} channels > {self.max_channels}"
            return Dropped(sample, "audio_too_many_channels", detail)
        return None


@dataclass(frozen=True, kw_only=True)
class Silent(Measured):
    """Drop sounds in which nothing is to be heard; store the score audio_rms_dbfs.

    The score is the level of the whole sound in dB of full scale, -120 at the least.
    """

    reads = ("audio",)
    stores = ("audio_rms_dbfs",)
    limits = ("min_rms_dbfs",)
    min_rms_dbfs: float = -60.0

    def measure(self, sample: Sample) -> Sample:
        waveform, _ = audio_of(sample)
        level = dbfs(float(np.sqrt(np.mean(np.square(waveform), dtype=np.float64))))
        return sample.with_scores(audio_rms_dbfs=level)

    def decide(self, sample: Sample) -> Dropped | None:
        level = sample.scores["audio_rms_dbfs"]
        if level < self.min_rms_dbfs:
            detail = f"{level:.1f} dBFS < {self.min_rms_dbfs:g} dBFS"
            return Dropped(sample, "audio_silent", detail)
        return None


@dataclass(frozen=True, kw_only=True)
class Clipped(Measured):
    """Measure how much of a sound stands at full scale: the score audio_clipped_fraction.

    Measured at another level than the usual one, the score carries it in its name.
    """

    reads = ("audio",)
    limits = ("max_fraction",)
    clip_level: float = _CLIP_LEVEL
    """Of full scale; what reaches it counts as clipped."""
    max_fraction: float | None = None
    """None drops nothing: clipping is common, and sounds stay useful with a good deal of it."""

    def score_names(self) -> tuple[str, ...]:
        usual = "audio_clipped_fraction"
        return (usual if self.clip_level == _CLIP_LEVEL else f"{usual}_at_{self.clip_level:g}",)

    def measure(self, sample: Sample) -> Sample:
        waveform, _ = audio_of(sample)
        above = np.count_nonzero(waveform >= self.clip_level)
        below = np.count_nonzero(waveform <= -self.clip_level)
        fraction = (above + below) / len(waveform)
        return sample.with_scores(**{self.score_names()[0]: fraction})

    def decide(self, sample: Sample) -> Dropped | None:
        fraction = sample.scores[self.score_names()[0]]
        if self.max_fraction is not None and fraction > self.max_fraction:
            detail = f"{fraction:.4f} of the sound > {self.max_fraction:g}"
            return Dropped(sample, "audio_clipped", detail)
        return None


@dataclass(frozen=True, kw_only=True)
class Noisy(Measured):
    """Estimate how far a sound stands above its background: the score audio_snr_db, 0 to 100.

    An estimate for speech and other sound with pauses; `estimate_snr_db` says how it is made.
    """

    reads = ("audio",)
    stores = ("audio_snr_db",)
    limits = ("min_snr_db",)
    min_snr_db: float | None = None
    """None drops nothing: music and steady sounds have no pauses to tell noise by."""

    def measure(self, sample: Sample) -> Sample:
        return sample.with_scores(audio_snr_db=estimate_snr_db(*audio_of(sample)))

    def decide(self, sample: Sample) -> Dropped | None:
        snr_db = sample.scores["audio_snr_db"]
        if self.min_snr_db is not None and snr_db < self.min_snr_db:
            return Dropped(sample, "audio_noisy", f"{snr_db:.1f} dB < {self.min_snr_db:g} dB")
        return None


def _data(sample: Sample) -> bytes:
    extension = sample.extension("audio")
    assert extension is not None, f"{sample.key} has no audio"
    return sample.data(extension)


def _header(sample: Sample) -> AudioHeader:
    return audio_header(_data(sample))
