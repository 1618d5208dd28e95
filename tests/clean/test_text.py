"""Cleaning of captions: repaired, kept, dropped with a reason, broken, absent."""

import pytest

from mmcore.clean.text import CaptionLanguage, RepairCaption
from mmcore.core.stage import Stage
from mmcore.errors import SampleError
from mmcore.sample import Dropped, Part, Sample

STAGES = [RepairCaption(), CaptionLanguage(), CaptionLanguage(languages=("en",))]
ENGLISH = "A small brown dog is running across the green field."
FRENCH = "Un petit chien brun court dans le champ vert avec ses amis."


def caption(text: str, **meta: str) -> Sample:
    return Sample("a", parts={"png": Part(data=b""), "txt": Part(data=text.encode())}, meta=meta)


def repaired(text: str) -> str:
    outcome = RepairCaption().build()(caption(text))
    assert isinstance(outcome, Sample)
    return outcome.data("txt").decode()


@pytest.mark.parametrize("stage", STAGES)
def test_sample_without_a_caption_passes_through(stage: Stage) -> None:
    sample = Sample("a", parts={"png": Part(data=b"")})
    assert stage.build()(sample) is sample


@pytest.mark.parametrize("stage", STAGES)
def test_caption_that_is_not_utf8_is_quarantined(stage: Stage) -> None:
    with pytest.raises(SampleError) as caught:
        stage.build()(Sample("a", parts={"txt": Part(data=b"caf\xe9")}))
    assert caught.value.reason == "text_undecodable"


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ("A rocket.\n", "A rocket."),
        ("  two \t\r\n words\u2028here\x1fnow\u00a0\u3000! ", "two words here now !"),
        ("caf\u00c3\u00a9", "caf\u00e9"),
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("e\u0301", "\u00e9"),
        ("\ufeffA\u200b cat\u00ad\x07", "A cat"),
        ("\u202eevil\u202c \u2066x\u2069 \u200fy", "evil x y"),
        ("\u1794\u17bc\u200b\u200b a\u200bb", "\u1794\u17bc ab"),
        ("flag\U000e0067\U000e007f", "flag"),
        ("not\ufdd0 a\uffff character\U0010ffff", "not a character"),
        ("\u201cquoted\u201d", "\u201cquoted\u201d"),
    ],
)
def test_caption_is_repaired(found: str, wanted: str) -> None:
    assert repaired(found) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
        "\u0915\u094d\u200d\u0937",
        "\u1403\u14c4\u1483\u144e\u1450\u1466",
        "\u05d7\u05ea\u05d5\u05dc",
        "\u0601\u0662\u0660",
        "\u179f\u17c1\u1780\u200b\u17a2\u17bc",
        "\u5b57\u6bcd\uff2f\uff0c\u3002",
    ],
)
def test_scripts_of_the_world_and_joiners_are_kept(text: str) -> None:
    assert repaired(text) == text


def test_caption_in_order_keeps_its_part() -> None:
    sample = caption(ENGLISH)
    outcome = RepairCaption().build()(sample)
    assert isinstance(outcome, Sample)
    assert outcome.parts["txt"] is sample.parts["txt"]
    assert outcome.scores == {"caption_chars": float(len(ENGLISH))}


@pytest.mark.parametrize("text", ["", " \n\t", "\u200d\u200c", "\u202e\u200b", "\x00"])
def test_caption_with_nothing_to_read_is_dropped(text: str) -> None:
    outcome = RepairCaption().build()(caption(text))
    assert isinstance(outcome, Dropped)
    assert outcome.reason == "caption_empty"


def test_caption_at_the_limit_is_kept_and_above_it_dropped() -> None:
    stage = RepairCaption(max_chars=5)
    assert isinstance(stage.build()(caption("  abcde\n")), Sample)
    outcome = stage.build()(caption("abcdef"))
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.detail) == ("caption_too_long", "6 characters > 5")


def test_language_is_only_scored_by_default() -> None:
    outcome = CaptionLanguage().build()(caption(FRENCH))
    assert isinstance(outcome, Sample)
    assert outcome.meta["detected_language"] == "fr"
    assert 0.9 < outcome.scores["language_confidence"] <= 1.0


def test_caption_in_a_wanted_language_is_kept() -> None:
    assert isinstance(CaptionLanguage(languages=("de", "en")).build()(caption(ENGLISH)), Sample)


def test_caption_in_another_language_is_dropped() -> None:
    outcome = CaptionLanguage(languages=("de", "en")).build()(caption(FRENCH))
    assert isinstance(outcome, Dropped)
    assert outcome.reason == "language_not_wanted"
    assert outcome.detail.startswith("guessed fr (")
    assert outcome.detail.endswith("none of de, en")


def test_declared_language_wins_over_the_guess() -> None:
    worker = CaptionLanguage(languages=("en",)).build()
    assert isinstance(worker(caption(FRENCH, language="en_GB")), Sample)
    outcome = worker(caption(ENGLISH, language="ca@valencia"))
    assert isinstance(outcome, Dropped)
    assert outcome.detail == "declared ca@valencia, none of en"


def test_unsure_guess_drops_nothing() -> None:
    unsure = CaptionLanguage(languages=("xh",), min_confidence=1.01)
    assert isinstance(unsure.build()(caption(FRENCH)), Sample)
