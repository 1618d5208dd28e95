"""Measuring apart from deciding, for a stage of anybody's."""

from dataclasses import dataclass

from mmcore.core.measured import (
    Measured,
    declare_optional,
    is_optional,
    without_bad_part,
    without_scores,
)
from mmcore.errors import SampleError
from mmcore.sample import Dropped, Part, Sample


@dataclass(frozen=True, kw_only=True)
class MinBytes(Measured):
    """Drop pictures of few bytes."""

    reads = ("image",)
    stores = ("image_bytes",)
    limits = ("min_bytes",)
    min_bytes: int = 10

    def measure(self, sample: Sample) -> Sample:
        extension = sample.extension("image")
        assert extension is not None
        data = sample.data(extension)
        if not data:
            raise SampleError("image_empty", "0 bytes")
        return sample.with_scores(image_bytes=float(len(data)))

    def decide(self, sample: Sample) -> Dropped | None:
        num_bytes = int(sample.scores["image_bytes"])
        return Dropped(sample, "image_few_bytes") if num_bytes < self.min_bytes else None


def picture(*sizes: int, **scores: float) -> Sample:
    names = ("a.png", "b.png")
    parts = {name: Part(data=b"x" * size) for name, size in zip(names, sizes, strict=False)}
    return Sample("a", parts=parts, scores=scores)


def test_score_is_stored_on_kept_and_dropped_samples() -> None:
    kept, dropped = MinBytes().build()(picture(10)), MinBytes().build()(picture(9))
    assert isinstance(kept, Sample)
    assert kept.scores == {"image_bytes": 10.0}
    assert isinstance(dropped, Dropped)
    assert dropped.sample.scores == {"image_bytes": 9.0}


def test_score_that_is_there_is_not_measured_again() -> None:
    assert isinstance(MinBytes().build()(picture(9, image_bytes=10.0)), Sample)


def test_optional_is_declared_for_one_sample_alone() -> None:
    sample, other = picture(9), picture(9)
    declare_optional(sample, ("image",))
    assert is_optional(sample, "image")
    assert not is_optional(sample, "audio")
    assert not is_optional(other, "image")


def test_declaration_survives_changes_of_the_sample() -> None:
    sample = picture(9)
    declare_optional(sample, ("image",))
    changed = sample.with_part("txt", b"A.").with_meta(a=1).without_part("txt")
    assert is_optional(changed, "image")


def test_each_bad_part_gives_way_to_the_next() -> None:
    sample = picture(0, 9)
    declare_optional(sample, ("image",))
    outcome = MinBytes().build()(sample)
    assert isinstance(outcome, Sample)
    assert outcome.parts == {}
    named = {"a.png": "image_empty: 0 bytes", "b.png": "image_few_bytes"}
    assert outcome.meta["dropped_parts"] == named
    assert outcome.scores == {"image_bytes": 9.0, "num_dropped_parts": 2.0}


def test_scores_of_a_part_do_not_pass_to_the_next() -> None:
    sample = picture(9, 12)
    declare_optional(sample, ("image",))
    outcome = MinBytes().build()(sample)
    assert isinstance(outcome, Sample)
    assert outcome.scores == {"image_bytes": 12.0, "num_dropped_parts": 1.0}


def test_strange_metadata_in_the_place_is_replaced() -> None:
    sample = picture(9).with_meta(dropped_parts="who knows")
    assert without_bad_part(sample, "a.png", "why").meta["dropped_parts"] == {"a.png": "why"}


def test_only_scores_of_the_modality_are_forgotten() -> None:
    sample = picture(9, image_bytes=1.0, caption_chars=2.0, language_confidence=1.0, pii_email=1.0)
    assert without_scores(sample, "image").scores.keys() == {
        "caption_chars",
        "language_confidence",
        "pii_email",
    }
    assert without_scores(sample, "text").scores.keys() == {"image_bytes", "pii_email"}
