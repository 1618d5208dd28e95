"""Previews are small, and what cannot be shown costs nobody else their own."""

import io

import numpy as np
import pytest
import soundfile
from PIL import Image
from small_dataset import clip, png, tone

from mmcore.core.decoder_limits import DecoderLimits
from mmcore.evaluate.data import previews as module
from mmcore.evaluate.data.previews import MAX_CHARS, MAX_SIDE, MAX_SOUND_SECONDS, Shown, previews
from mmcore.media.audio import encode_wav
from mmcore.sample import Part, PartRef, Sample


def sample_of(**parts: bytes) -> Sample:
    return Sample("a", {name: Part(data=data) for name, data in parts.items()})


def shown(*samples: Sample) -> list[Shown]:
    return list(previews((sample, {}) for sample in samples))


def test_large_parts_become_small_ones() -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 44_100 * 9).astype(np.float32)
    text = "a long caption " * 100
    (one,) = shown(
        sample_of(png=png(1, side=400), wav=encode_wav(noise, 44_100), txt=text.encode())
    )
    with Image.open(io.BytesIO(one.picture)) as picture:
        assert (picture.format, picture.size) == ("WEBP", (MAX_SIDE, MAX_SIDE))
    sound = soundfile.info(io.BytesIO(one.sound))
    assert sound.format == "FLAC"
    assert sound.duration <= MAX_SOUND_SECONDS + 0.01
    assert one.words == text[:MAX_CHARS]
    assert one.lacks == ""


def test_a_film_is_shown_by_its_first_frame() -> None:
    (one,) = shown(sample_of(mp4=clip(1)))
    with Image.open(io.BytesIO(one.picture)) as picture:
        assert picture.size == (64, 64)


def test_what_cannot_be_decoded_is_named_and_the_rest_is_shown() -> None:
    broken, whole = shown(
        sample_of(png=png(1)[:80], txt=b"words", wav=tone(440.0)), sample_of(png=png(2))
    )
    assert broken.picture == b""
    assert broken.words == "words"
    assert broken.sound
    assert broken.lacks == "png: image_undecodable"
    assert whole.picture


def test_a_sample_that_is_too_much_for_the_decoder_costs_no_other_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    huge = io.BytesIO()
    Image.new("L", (19_000, 3_000)).save(huge, "PNG")
    monkeypatch.setattr(module, "DecoderLimits", lambda: DecoderLimits(memory_mb=48))
    victim, other = shown(sample_of(png=huge.getvalue(), txt=b"big"), sample_of(png=png(2)))
    assert victim == Shown(lacks="decoder_memory")
    assert other.picture


def test_what_is_very_large_is_not_even_read() -> None:
    part = Part(ref=PartRef("source", "film.mp4", 0, module.MAX_PART_BYTES + 1, "0" * 64))
    (one,) = previews([(Sample("a", {"mp4": part}), {"source": "/nowhere"})])
    assert one == Shown(lacks="mp4: too large for a preview")
