"""Sound as shards hold it: mono, one rate, 16 bits, `flac` or `wav`."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmcore.core.stage import Stage, Worker
from mmcore.media.audio import Waveform, audio_of, encode_flac, encode_wav, resample
from mmcore.sample import Outcome, Sample


@dataclass(frozen=True, kw_only=True)
class EncodeAudio(Stage):
    """Replace the sound by mono at one rate, trimmed and cut to a length, named by its format."""

    reads = ("audio",)
    rate_hz: int = 16_000
    max_seconds: float = 10.0
    """What is longer is cut at its end."""
    format: Literal["flac", "wav"] = "flac"
    trim_dbfs: float | None = None
    """Both ends are trimmed of what is quieter, for example -50; None trims nothing. A sound that
    is quieter throughout is left as it is: that is for the stage `Silent` to judge."""

    def build(self) -> Worker:
        encode_part = encode_flac if self.format == "flac" else encode_wav

        def encode(sample: Sample) -> Outcome:
            extension = sample.extension("audio")
            if extension is None:
                return sample
            waveform, from_hz = audio_of(sample)
            if self.trim_dbfs is not None:
                waveform = trim(waveform, threshold_dbfs=self.trim_dbfs)
            # cut before resampling too, so that a long sound costs no more than a short one
            waveform = waveform[: int(np.ceil((self.max_seconds + 0.1) * from_hz))]
            waveform = resample(waveform, from_hz, self.rate_hz)
            waveform = waveform[: round(self.max_seconds * self.rate_hz)]
            data = encode_part(waveform, self.rate_hz)
            return sample.without_part(extension).with_part(self.format, data)

        return encode


def trim(waveform: Waveform, *, threshold_dbfs: float) -> Waveform:
    """Return the waveform from the first to the last value at or above a level in dBFS."""
    loud = np.flatnonzero(np.abs(waveform) >= 10.0 ** (threshold_dbfs / 20.0))
    return waveform[loud[0] : loud[-1] + 1] if len(loud) else waveform
