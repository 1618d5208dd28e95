"""Rules about parts and values."""

import numpy as np
import pytest

from mmcore.clean.audio import DecodeAudio, Silent
from mmcore.clean.image import DecodeImage
from mmcore.clean.parts import KeepCaptions, KeepParts, KeepValues, RequireParts
from mmcore.clean.text import RepairCaption
from mmcore.core.stage import Stage
from mmcore.errors import ConfigError, SampleError
from mmcore.media.audio import encode_wav
from mmcore.sample import Dropped, Outcome, Part, Sample


def test_sample_with_every_part_is_kept_whatever_their_format() -> None:
    parts = {"photo.webp": Part(), "txt": Part(), "effect.ogg": Part()}
    sample = Sample("a", parts=parts)
    assert RequireParts(required=("image", "text", "audio")).build()(sample) is sample


def test_first_missing_part_is_the_reason() -> None:
    sample = Sample("a", parts={"txt": Part(), "ogg": Part()})
    outcome = RequireParts(required=("text", "image", "video")).build()(sample)
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.detail) == ("image_missing", "parts: ogg, txt")


def test_sample_without_parts_is_dropped() -> None:
    outcome = RequireParts(required=("text",)).build()(Sample("a"))
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.detail) == ("text_missing", "parts: none")


def test_unknown_modality_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="'picture', which is no modality"):
        RequireParts(required=("picture",))


@pytest.mark.parametrize("value", ["cat", 3, True])
def test_sample_with_a_wanted_value_is_kept(value: str | int | bool) -> None:
    sample = Sample("a", meta={"label": value})
    assert KeepValues(field="label", values=("cat", "3", "true")).build()(sample) is sample


def test_sample_with_another_value_is_dropped() -> None:
    outcome = KeepValues(field="label", values=("cat", "dog")).build()(
        Sample("a", meta={"label": "cow"})
    )
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.detail) == ("label_not_wanted", "cow is none of cat, dog")


def test_sample_without_the_field_is_dropped() -> None:
    outcome = KeepValues(field="label", values=("cat",)).build()(Sample("a"))
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.detail) == ("label_not_wanted", "has no label")


def test_parts_of_other_modalities_are_left_out_and_the_rest_stays() -> None:
    sample = Sample("a", parts={"png": Part(), "mp4": Part(), "txt": Part(), "bin": Part()})
    outcome = KeepParts(modalities=("image", "text", "audio")).build()(sample)
    assert isinstance(outcome, Sample)
    assert sorted(outcome.parts) == ["png", "txt"]


def through(sample: Sample, *stages: Stage) -> Outcome:
    """What a step does: the first stage that does not keep it decides."""
    for stage in stages:
        outcome = stage.build()(sample)
        if not isinstance(outcome, Sample):
            return outcome
        sample = outcome
    return sample


OPTIONAL = RequireParts(required=("text",), optional=("audio", "image"))
SILENCE = encode_wav(np.zeros(800, np.float32), 8_000)
TONE = encode_wav(np.full(800, 0.5, np.float32), 8_000)


def test_broken_optional_part_is_left_out_and_named() -> None:
    sample = Sample("a", parts={"ogg": Part(data=b"OggS"), "txt": Part(data=b"Moo.")})
    outcome = through(sample, OPTIONAL, DecodeAudio(), RepairCaption())
    assert isinstance(outcome, Sample)
    assert sorted(outcome.parts) == ["txt"]
    named = outcome.meta["dropped_parts"]
    assert isinstance(named, dict)
    assert str(named["ogg"]).startswith("audio_undecodable: OGG of 4 bytes")
    assert outcome.scores["num_dropped_parts"] == 1.0


def test_optional_part_that_a_limit_refuses_is_left_out_with_its_scores_kept() -> None:
    sample = Sample("a", parts={"wav": Part(data=SILENCE), "txt": Part(data=b"Moo.")})
    outcome = through(sample, OPTIONAL, DecodeAudio(), Silent())
    assert isinstance(outcome, Sample)
    assert outcome.meta["dropped_parts"] == {"wav": "audio_silent: -120.0 dBFS < -60 dBFS"}
    assert outcome.scores["audio_rms_dbfs"] == -120.0


def test_two_bad_parts_are_both_named() -> None:
    parts = {"ogg": Part(data=b"OggS"), "png": Part(data=b""), "txt": Part(data=b"Moo.")}
    outcome = through(Sample("a", parts=parts), OPTIONAL, DecodeAudio(), DecodeImage())
    assert isinstance(outcome, Sample)
    named = outcome.meta["dropped_parts"]
    assert isinstance(named, dict)
    assert sorted(named) == ["ogg", "png"]
    assert outcome.scores["num_dropped_parts"] == 2.0


def test_next_part_of_the_modality_is_measured_in_its_place() -> None:
    parts = {"a.wav": Part(data=SILENCE), "b.wav": Part(data=TONE)}
    stage = RequireParts(optional=("audio",))
    outcome = through(Sample("a", parts=parts), stage, DecodeAudio(), Silent())
    assert isinstance(outcome, Sample)
    assert sorted(outcome.parts) == ["b.wav"]
    assert outcome.scores["audio_rms_dbfs"] == pytest.approx(-6.0, abs=0.1)


def test_required_part_is_still_required() -> None:
    sample = Sample("a", parts={"ogg": Part(data=b"OggS"), "txt": Part(data=b"Moo.")})
    with pytest.raises(SampleError):
        through(sample, RequireParts(required=("audio",), optional=("text",)), DecodeAudio())
    silent = Sample("a", parts={"wav": Part(data=SILENCE)})
    assert isinstance(through(silent, RequireParts(required=("audio",)), Silent()), Dropped)


def test_optional_caption_that_is_no_text_is_left_out() -> None:
    sample = Sample("a", parts={"png": Part(), "txt": Part(data=b"caf\xe9")})
    outcome = through(sample, RequireParts(optional=("text",)), RepairCaption())
    assert isinstance(outcome, Sample)
    assert sorted(outcome.parts) == ["png"]


def test_part_cannot_be_required_and_optional() -> None:
    with pytest.raises(ConfigError, match="'text' is required and optional"):
        RequireParts(required=("text",), optional=("text",))


CAPTIONS = {"en.txt": Part(data=b"A cat"), "pt-BR.txt": Part(data=b"Um gato"), "png": Part()}


def test_dearest_language_becomes_the_caption() -> None:
    outcome = KeepCaptions(languages=("fr", "pt", "en")).build()(Sample("a", parts=CAPTIONS))
    assert isinstance(outcome, Sample)
    assert sorted(outcome.parts) == ["png", "txt"]
    assert outcome.data("txt") == b"Um gato"
    assert outcome.meta == {"language": "pt-BR"}


def test_several_captions_stay_one_sample_as_declared() -> None:
    stage = KeepCaptions(languages=("en", "pt"), several="all")
    outcome = stage.build()(Sample("a", parts={**CAPTIONS, "fr.txt": Part()}))
    assert isinstance(outcome, Sample)
    assert outcome.parts == CAPTIONS


def test_plain_caption_has_the_declared_language() -> None:
    sample = Sample("a", parts={"txt": Part()}, meta={"language": "fr_CA"})
    assert isinstance(KeepCaptions(languages=("fr",)).build()(sample), Sample)
    outcome = KeepCaptions(languages=("en",)).build()(sample)
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.detail) == ("language_missing", "fr_CA: none of en")


def test_sample_without_captions_passes_through() -> None:
    sample = Sample("a", parts={"png": Part()})
    assert KeepCaptions(languages=("en",)).build()(sample) is sample
