"""Features as parts of their own: what is computed once here need not be computed each epoch."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmcore.core.stage import Stage, Worker
from mmcore.errors import ConfigError
from mmcore.media.array import array_bytes
from mmcore.media.audio import Waveform, audio_of, log_mel, resample
from mmcore.media.features import log_spectrogram, mfcc
from mmcore.media.text import text_of
from mmcore.sample import Outcome, Sample

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class AudioFeatures(Stage):
    """Add what models hear as an array: `log_mel.npy`, `mfcc.npy` or `spectrogram.npy`, [T, F]."""

    reads = ("audio",)
    kind: Literal["log_mel", "mfcc", "spectrogram"] = "log_mel"
    rate_hz: int = 16_000
    """The sound is resampled to this first."""
    hop_seconds: float = 0.01
    window_seconds: float = 0.025
    num_mels: int = 64
    num_coefficients: int = 20
    """Of MFCC."""
    max_seconds: float = 30.0
    """What is longer is cut at its end."""
    dtype: Literal["float16", "float32"] = "float32"

    def __post_init__(self) -> None:
        for name in ("rate_hz", "hop_seconds", "window_seconds", "num_mels", "max_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"audio_features: {name}={getattr(self, name)}. Use more than 0.")
        if not 1 <= self.num_coefficients <= self.num_mels:
            raise ConfigError(
                f"audio_features: num_coefficients={self.num_coefficients}. Use 1 to num_mels = "
                f"{self.num_mels}."
            )

    def build(self) -> Worker:
        def encode(sample: Sample) -> Outcome:
            if sample.extension("audio") is None:
                return sample
            waveform, from_hz = audio_of(sample)
            # cut before resampling too, so that a long sound costs no more than a short one
            waveform = waveform[: int(np.ceil((self.max_seconds + 0.1) * from_hz))]
            waveform = resample(waveform, from_hz, self.rate_hz)
            array = self._features(waveform[: round(self.max_seconds * self.rate_hz)])
            return sample.with_part(f"{self.kind}.npy", array_bytes(array.astype(self.dtype)))

        return encode

    def _features(self, waveform: Waveform) -> Waveform:
        if self.kind == "spectrogram":
            return log_spectrogram(
                waveform,
                rate_hz=self.rate_hz,
                hop_seconds=self.hop_seconds,
                window_seconds=self.window_seconds,
            )
        if self.kind == "mfcc":
            return mfcc(
                waveform,
                rate_hz=self.rate_hz,
                hop_seconds=self.hop_seconds,
                window_seconds=self.window_seconds,
                num_mels=self.num_mels,
                num_coefficients=self.num_coefficients,
            )
        return log_mel(
            waveform,
            rate_hz=self.rate_hz,
            num_mels=self.num_mels,
            hop_seconds=self.hop_seconds,
            window_seconds=self.window_seconds,
        )


@dataclass(frozen=True, kw_only=True)
class BagOfWords(Stage):
    """Add how often each word is in the text: `bow.npy`, uint16 [num_buckets], words hashed.

    Weinberger et al., Feature Hashing for Large Scale Multitask Learning, ICML 2009, without the
    sign: no vocabulary has to be agreed on, so old shards stay as they are when data comes in.
    """

    reads = ("text",)
    num_buckets: int = 4_096

    def __post_init__(self) -> None:
        if not 1 <= self.num_buckets <= 2**20:
            raise ConfigError(f"bag_of_words: num_buckets={self.num_buckets}. Use 1 to 1048576.")

    def build(self) -> Worker:
        def encode(sample: Sample) -> Outcome:
            if sample.extension("text") is None:
                return sample
            counts = np.zeros(self.num_buckets, np.uint16)
            for word in words(text_of(sample)):
                bucket = bucket_of(word, self.num_buckets)
                counts[bucket] = min(int(counts[bucket]) + 1, 65_535)
            return sample.with_part("bow.npy", array_bytes(counts))

        return encode


def words(text: str) -> list[str]:
    """Return the words of a text, without case and marks of compatibility.

    >>> words("Two BLUE birds.")
    ['two', 'blue', 'birds']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def bucket_of(word: str, num_buckets: int) -> int:
    """Return the place of a word in a bag; the same in every process and release."""
    digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % num_buckets
