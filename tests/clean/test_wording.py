"""How captions are worded: measured, kept at the limit, dropped beyond, broken, absent."""

import pytest

from mmcore.clean.wording import (
    CaptionLength,
    CaptionRepetition,
    CaptionSymbols,
    MeasureText,
    RemoveRepeatedLines,
)
from mmcore.core.stage import Stage
from mmcore.errors import SampleError
from mmcore.sample import Dropped, Part, Sample

STAGES = [MeasureText(), CaptionLength(), CaptionRepetition(), CaptionSymbols()]
ENGLISH = "A small brown dog is running across the green field."


def caption(text: str) -> Sample:
    return Sample("a", parts={"png": Part(data=b""), "txt": Part(data=text.encode())})


def scores(stage: Stage, text: str) -> dict[str, float]:
    outcome = stage.build()(caption(text))
    after = outcome if isinstance(outcome, Sample) else outcome.sample
    return dict(after.scores)


@pytest.mark.parametrize("stage", [*STAGES, RemoveRepeatedLines()])
def test_sample_without_a_caption_passes_through(stage: Stage) -> None:
    sample = Sample("a", parts={"png": Part(data=b"")})
    assert stage.build()(sample) is sample


@pytest.mark.parametrize("stage", [*STAGES, RemoveRepeatedLines()])
def test_caption_that_is_not_utf8_is_quarantined(stage: Stage) -> None:
    with pytest.raises(SampleError) as caught:
        stage.build()(Sample("a", parts={"txt": Part(data=b"caf\xe9")}))
    assert caught.value.reason == "text_undecodable"


@pytest.mark.parametrize("stage", STAGES)
def test_plain_sentence_is_kept_with_its_bytes(stage: Stage) -> None:
    sample = caption(ENGLISH)
    outcome = stage.build()(sample)
    assert isinstance(outcome, Sample)
    assert outcome.parts == sample.parts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("A cat.", 2),
        ("l'eau, don't, well-known", 3),
        ("\u732b\u306f\u597d\u304d", 4),
        ("\u0e41\u0e21\u0e27", 3),
        ("5 \u0915\u093f\u0924\u093e\u092c", 2),
        ("... !", 0),
    ],
)
def test_words_are_counted_in_every_script(text: str, words: int) -> None:
    found = scores(CaptionLength(), text)
    assert found == {"caption_chars": len(text), "caption_words": words}


def test_length_at_the_limits_is_kept() -> None:
    for stage in (CaptionLength(min_chars=6, min_words=2), CaptionLength(max_chars=6, max_words=2)):
        assert isinstance(stage.build()(caption("A cat.")), Sample)


@pytest.mark.parametrize(
    ("stage", "reason", "detail"),
    [
        (CaptionLength(min_chars=7), "caption_too_short", "6 characters < 7"),
        (CaptionLength(min_words=3), "caption_too_short", "2 words < 3"),
        (CaptionLength(max_chars=5), "caption_too_long", "6 characters > 5"),
        (CaptionLength(max_words=1), "caption_too_long", "2 words > 1"),
    ],
)
def test_length_beyond_a_limit_is_dropped(stage: Stage, reason: str, detail: str) -> None:
    outcome = stage.build()(caption("A cat."))
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.detail) == (reason, detail)
    assert outcome.sample.scores == {"caption_chars": 6.0, "caption_words": 2.0}


def test_repeated_runs_of_words_are_shares() -> None:
    # five runs of three words, of which two are new
    found = scores(CaptionRepetition(), "buy now Buy NOW buy now buy")
    assert found["caption_repeated_words"] == pytest.approx(3 / 5)


def test_repeated_runs_of_characters_need_no_words() -> None:
    found = scores(CaptionRepetition(), "ab" * 10)
    assert found["caption_repeated_words"] == 0.0
    assert found["caption_repeated_chars"] == pytest.approx(9 / 11)


def test_repeated_lines_are_shares_of_those_with_text() -> None:
    found = scores(CaptionRepetition(), "Menu\n\nMenu\n A cat.\nMenu ")
    assert found["caption_repeated_lines"] == 0.5


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("buy now " * 10, "0.89 of its words repeated > 0.7"),
        ("\u5f00" * 30, "0.96 of its words repeated > 0.7"),
        ("ab" * 20, "0.94 of its chars repeated > 0.7"),
        ("One\nTwo\nOne\nTwo\nOne", "0.60 of its lines repeated > 0.5"),
    ],
)
def test_repetition_beyond_a_limit_is_dropped(text: str, detail: str) -> None:
    outcome = CaptionRepetition().build()(caption(text))
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.detail) == ("caption_repetitive", detail)


@pytest.mark.parametrize("text", ["", "Fire!", "Fire! Fire! Fire!", "\u5f00\u706b\uff01" * 3])
def test_a_cry_said_three_times_is_kept(text: str) -> None:
    assert isinstance(CaptionRepetition().build()(caption(text)), Sample)


def test_repetition_at_the_limit_is_kept() -> None:
    text = "buy now buy now buy now buy"
    stage = CaptionRepetition(max_words=3 / 5)
    assert isinstance(stage.build()(caption(text)), Sample)
    assert isinstance(CaptionRepetition(max_words=0.59).build()(caption(text)), Dropped)


def test_signs_and_digits_are_shares_of_what_is_seen() -> None:
    found = scores(CaptionSymbols(), "cat 12 !? \u2764\ufe0f \u200d")
    assert found["caption_symbols"] == 3.0
    assert found["caption_digits"] == 2.0
    # the variation selector is a mark, and is counted with what it changes
    assert found["caption_symbol_fraction"] == pytest.approx(3 / 9)
    assert found["caption_digit_fraction"] == pytest.approx(2 / 9)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("@@ ## !! $$", "caption_symbols"), ("20190512 103020", "caption_digits")],
)
def test_captions_of_signs_or_digits_are_dropped(text: str, reason: str) -> None:
    outcome = CaptionSymbols().build()(caption(text))
    assert isinstance(outcome, Dropped)
    assert outcome.reason == reason


@pytest.mark.parametrize("text", ["", "\u5fc3\u3002", "5", "1984", "\u2764!", "abcde+++++"])
def test_few_signs_and_those_at_the_limit_are_kept(text: str) -> None:
    assert isinstance(CaptionSymbols().build()(caption(text)), Sample)


def test_all_scores_are_measured_at_once_and_spare_the_stages_after() -> None:
    measured = MeasureText().build()(caption(ENGLISH))
    assert isinstance(measured, Sample)
    assert set(measured.scores) == set(MeasureText.stores)
    bare = Sample("a", parts={"txt": Part(data=b"\xff")}, scores=measured.scores)
    for stage in STAGES:
        assert scores(stage, ENGLISH).items() <= measured.scores.items()
        assert isinstance(stage.build()(bare), Sample)


def test_lines_that_stand_above_are_removed_and_empty_ones_stay() -> None:
    outcome = RemoveRepeatedLines().build()(caption("Home\n\nA cat.\n\n Home \nA cat.\nHome!"))
    assert isinstance(outcome, Sample)
    assert outcome.data("txt") == b"Home\n\nA cat.\n\nHome!"
    assert outcome.scores == {"caption_removed_lines": 2.0}


def test_caption_without_repeated_lines_keeps_its_part() -> None:
    sample = caption("One\r\nTwo\n")
    outcome = RemoveRepeatedLines().build()(sample)
    assert isinstance(outcome, Sample)
    assert outcome.parts["txt"] is sample.parts["txt"]
