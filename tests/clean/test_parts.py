"""Rules about parts and values."""

import pytest

from mmcore.clean.parts import KeepParts, KeepValues, RequireParts
from mmcore.errors import ConfigError
from mmcore.sample import Dropped, Part, Sample


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
