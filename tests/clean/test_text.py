"""Cleaning of captions: repaired, kept, dropped with a reason, broken, absent."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcore.clean.text import CaptionLanguage, RepairCaption, repair
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


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "Robert'); DROP TABLE students;--",
        "../../../../etc/passwd",
        "%s%n%x {0} ${HOME} $(reboot) `reboot`",
        "NaN",
        "null",
        "-1e400",
        "=cmd|' /C calc'!A0",
        "{'a': __import__('os')}",
        "\U0001f468\u200d\U0001f469 \U0001f1e9\U0001f1ea",
        "\u0644\u064e\u0651\u0629",
    ],
)
def test_naughty_strings_stay_what_they_are(text: str) -> None:
    assert repaired(text) == text


@given(st.text())
def test_whatever_is_written_comes_back_visible_and_in_normal_form(text: str) -> None:
    caption_ = repair(text)
    assert unicodedata.normalize("NFC", caption_) == caption_
    assert caption_ == " ".join(caption_.split())
    removed = {unicodedata.category(char) for char in caption_} & {"Cc", "Cs"}
    assert not removed
    assert not set(caption_) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@pytest.mark.parametrize("marks", ["\u0301\u0316", "\u0301\u0316\u202e", "&#769;&#790;"])
def test_a_tower_of_marks_is_cut_before_it_costs_hours(marks: str) -> None:
    found = repair("a" + marks * 40_000)
    assert found.startswith("\u00e1")
    assert len(found) <= 31


def test_lines_are_kept_when_asked() -> None:
    assert repair(" A  cat.\r\n\n\u200bA&amp;B \n", keep_lines=True) == "A cat.\nA&B"
    outcome = RepairCaption(keep_lines=True).build()(caption("A cat. \nA dog."))
    assert isinstance(outcome, Sample)
    assert outcome.data("txt") == b"A cat.\nA dog."


def several(**texts: bytes) -> Sample:
    return Sample("a", parts={f"{tag}.txt": Part(data=data) for tag, data in texts.items()})


def test_every_caption_is_repaired() -> None:
    outcome = RepairCaption().build()(several(en=b"A  cat", fr=b"Un  chat"))
    assert isinstance(outcome, Sample)
    assert (outcome.data("en.txt"), outcome.data("fr.txt")) == (b"A cat", b"Un chat")
    assert outcome.scores == {"caption_chars": 5.0}


def test_of_several_captions_only_an_empty_one_is_left_out() -> None:
    outcome = RepairCaption().build()(several(en=b" ", fr=b"Un chat"))
    assert isinstance(outcome, Sample)
    assert sorted(outcome.parts) == ["fr.txt"]
    dropped = {"en.txt": "caption_empty: 1 bytes, nothing to read"}
    assert outcome.meta["dropped_parts"] == dropped
    assert outcome.scores == {"num_dropped_parts": 1.0, "caption_chars": 7.0}
    assert isinstance(RepairCaption().build()(several(en=b" ", fr=b" ")), Dropped)


def test_what_was_measured_of_a_caption_goes_with_it() -> None:
    sample = caption("A  cat").with_scores(caption_words=7.0, image_width=9.0)
    outcome = RepairCaption().build()(sample)
    assert isinstance(outcome, Sample)
    assert outcome.scores == {"caption_chars": 5.0, "image_width": 9.0}


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


def test_a_guess_that_is_stored_is_not_made_again() -> None:
    sample = Sample(
        "a",
        parts={"txt": Part(data=FRENCH.encode())},
        meta={"detected_language": "xh"},
        scores={"language_confidence": 0.9},
    )
    outcome = CaptionLanguage(languages=("fr",)).build()(sample)
    assert isinstance(outcome, Dropped)
    assert outcome.detail == "guessed xh (0.90), none of fr"
