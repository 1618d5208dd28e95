"""Stages that store what near-duplicate rules compare, which never see bytes.

One in which nothing is to be seen, heard or read gets an empty print: it is nobody's near
duplicate.
"""

from dataclasses import dataclass

import numpy as np

from mmcore.core.stage import Stage, Worker
from mmcore.errors import ConfigError
from mmcore.media.audio import audio_of
from mmcore.media.image import picture_of
from mmcore.media.minhash import minhash, shingle_hashes, text_tokens
from mmcore.media.near.prints import HASH_BITS, NUM_FRAMES, float_bytes, with_print
from mmcore.media.phash import frame_hash, picture_print
from mmcore.media.sound_print import sound_print
from mmcore.media.text import text_of
from mmcore.media.video import video_of
from mmcore.sample import Outcome, Sample


@dataclass(frozen=True, kw_only=True)
class SignImage(Stage):
    """Store the print of a picture, and the score image_pixels, which may choose a survivor."""

    code_version = 2
    reads = ("image",)

    def build(self) -> Worker:
        return _sign_image


@dataclass(frozen=True, kw_only=True)
class SignText(Stage):
    """Store the print of a text: which runs of words it has."""

    reads = ("text",)
    shingle_words: int = 2
    """Words in a run. More tell texts of the same words apart, and forgive fewer changes."""

    def __post_init__(self) -> None:
        if self.shingle_words < 1:
            raise ConfigError(f"sign_text.shingle_words={self.shingle_words}: use 1 or more.")

    def build(self) -> Worker:
        def sign(sample: Sample) -> Outcome:
            if sample.extension("text") is None:
                return sample
            tokens = text_tokens(text_of(sample))
            signature = minhash(shingle_hashes(tokens, num_words=self.shingle_words))
            return with_print(sample, "text", None if signature is None else signature.tobytes())

        return sign


@dataclass(frozen=True, kw_only=True)
class SignAudio(Stage):
    """Store the print of a sound, and how long it is without silence at its ends."""

    reads = ("audio",)

    def build(self) -> Worker:
        return _sign_audio


@dataclass(frozen=True, kw_only=True)
class SignVideo(Stage):
    """Store the hashes of eight frames of a film, evenly spaced, and its length."""

    reads = ("video",)

    def build(self) -> Worker:
        return _sign_video


def _sign_image(sample: Sample) -> Outcome:
    if sample.extension("image") is None:
        return sample
    picture = picture_of(sample)
    sample = sample.with_scores(image_pixels=float(picture.width * picture.height))
    found = picture_print(picture.pixels)
    return with_print(sample, "image", None if found is None else found.to_bytes())


def _sign_audio(sample: Sample) -> Outcome:
    if sample.extension("audio") is None:
        return sample
    found = sound_print(*audio_of(sample))
    if found is None:
        return with_print(sample, "audio", None)
    return with_print(sample, "audio", found.bits + float_bytes(*found.peaks_hz, found.seconds))


def _sign_video(sample: Sample) -> Outcome:
    if sample.extension("video") is None:
        return sample
    scan = video_of(sample)
    wanted = scan.times[-1] * (np.arange(NUM_FRAMES) + 0.5) / NUM_FRAMES
    shown = np.searchsorted(scan.times, wanted, side="right") - 1
    hashes = [frame_hash(scan.luma[index]) for index in shown]
    if all(found is None for found in hashes):
        return with_print(sample, "video", None)
    # a frame without contrast is 0, which no picture hashes to: half of a hash's bits are set
    words = b"".join((found or 0).to_bytes(HASH_BITS // 8, "big") for found in hashes)
    return with_print(sample, "video", words + float_bytes(scan.seconds))
