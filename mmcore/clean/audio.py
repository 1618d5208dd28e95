"""Stages that listen to sound. Samples without one pass through; see `RequireParts`.

Everything is measured on the mean of the channels.
"""

from dataclasses import dataclass

import numpy as np

from mmcore.core.stage import Stage, Worker
from mmcore.media.audio import MAX_SECONDS, audio_of, dbfs, decode_audio, share_audio
from mmcore.sample import Dropped, Outcome, Sample


@dataclass(frozen=True, kw_only=True)
class DecodeAudio(Stage):
    """Quarantine sound that cannot be decoded or has lost its end.

    Stores the scores audio_seconds, audio_rate_hz and audio_peak (full scale is 1).
    """

    reads = ("audio",)
    max_seconds: float = MAX_SECONDS
    """Held against the header, before anything is decoded."""

    def build(self) -> Worker:
        def check(sample: Sample) -> Outcome:
            extension = sample.extension("audio")
            if extension is None:
                return sample
            waveform, rate_hz = decode_audio(sample.data(extension), max_seconds=self.max_seconds)
            share_audio(sample, waveform, rate_hz)
            return sample.with_scores(
                audio_seconds=len(waveform) / rate_hz,
                audio_rate_hz=float(rate_hz),
                audio_peak=float(np.max(np.abs(waveform))),
            )

        return check


@dataclass(frozen=True, kw_only=True)
class MinMaxSeconds(Stage):
    """Drop sounds that are too short or too long; store the score audio_seconds."""

    reads = ("audio",)
    min_seconds: float = 0.1
    max_seconds: float = 60.0

    def build(self) -> Worker:
        def check(sample: Sample) -> Outcome:
            if sample.extension("audio") is None:
                return sample
            waveform, rate_hz = audio_of(sample)
            seconds = len(waveform) / rate_hz
            sample = sample.with_scores(audio_seconds=seconds)
            if seconds < self.min_seconds:
                detail = f"{seconds:.3f} s < {self.min_seconds:g} s"
                return Dropped(sample, "audio_too_short", detail)
            if seconds > self.max_seconds:
                detail = f"{seconds:.3f} s > {self.max_seconds:g} s"
                return Dropped(sample, "audio_too_long", detail)
            return sample

        return check


@dataclass(frozen=True, kw_only=True)
class Silent(Stage):
    """Drop sounds in which nothing is to be heard; store the score audio_rms_dbfs.

    The score is the level of the whole sound in dB of full scale, -120 at the least.
    """

    reads = ("audio",)
    min_rms_dbfs: float = -60.0

    def build(self) -> Worker:
        def check(sample: Sample) -> Outcome:
            if sample.extension("audio") is None:
                return sample
            waveform, _ = audio_of(sample)
            level = dbfs(float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))))
            sample = sample.with_scores(audio_rms_dbfs=level)
            if level < self.min_rms_dbfs:
                detail = f"{level:.1f} dBFS < {self.min_rms_dbfs:g} dBFS"
                return Dropped(sample, "audio_silent", detail)
            return sample

        return check


@dataclass(frozen=True, kw_only=True)
class Clipped(Stage):
    """Measure how much of a sound stands at full scale: the score audio_clipped_fraction."""

    reads = ("audio",)
    clip_level: float = 0.999
    """Of full scale; what reaches it counts as clipped."""
    max_fraction: float | None = None
    """None drops nothing: clipping is common, and sounds stay useful with a good deal of it."""

    def build(self) -> Worker:
        def check(sample: Sample) -> Outcome:
            if sample.extension("audio") is None:
                return sample
            waveform, _ = audio_of(sample)
            fraction = float(np.mean(np.abs(waveform) >= self.clip_level))
            sample = sample.with_scores(audio_clipped_fraction=fraction)
            if self.max_fraction is not None and fraction > self.max_fraction:
                detail = f"{fraction:.4f} of the sound > {self.max_fraction:g}"
                return Dropped(sample, "audio_clipped", detail)
            return sample

        return check
