"""Personal data in samples: masked, counted, or a reason to drop."""

import os
from pathlib import Path

import pytest

from mmcore.clean.personal import find_personal
from mmcore.clean.pii import MaskPii
from mmcore.errors import SampleError
from mmcore.sample import Dropped, Part, Sample

TEXT = "Ann, ann@example.org or +44 20 7946 0958"
STAMPS = os.environ.get("MM_TEST_STAMPS", "/usr/share/tuxpaint/stamps")


def caption(text: str, **meta: str) -> Sample:
    return Sample("a", parts={"png": Part(data=b""), "txt": Part(data=text.encode())}, meta=meta)


def test_personal_data_is_masked_and_counted() -> None:
    outcome = MaskPii().build()(caption(TEXT))
    assert isinstance(outcome, Sample)
    assert outcome.data("txt") == b"Ann, [EMAIL] or [PHONE]"
    assert outcome.scores == {
        "pii_email": 1.0,
        "pii_phone": 1.0,
        "pii_card": 0.0,
        "pii_iban": 0.0,
        "pii_national_id": 0.0,
    }


def test_caption_without_any_keeps_its_part() -> None:
    sample = caption("A rocket.")
    outcome = MaskPii().build()(sample)
    assert isinstance(outcome, Sample)
    assert outcome.parts["txt"] is sample.parts["txt"]
    assert set(outcome.scores.values()) == {0.0}


def test_every_caption_and_what_repeats_it_is_masked() -> None:
    parts = {"en.txt": Part(data=TEXT.encode()), "fr.txt": Part(data=b"a@example.org")}
    sample = Sample("a", parts=parts, meta={"caption_group": TEXT.casefold(), "source": "a@b.org"})
    outcome = MaskPii().build()(sample)
    assert isinstance(outcome, Sample)
    assert outcome.data("fr.txt") == b"[EMAIL]"
    assert outcome.meta == {"caption_group": "ann, [EMAIL] or [PHONE]", "source": "a@b.org"}
    assert outcome.scores["pii_email"] == 2.0


def test_counting_changes_nothing() -> None:
    sample = caption(TEXT, caption_group=TEXT)
    outcome = MaskPii(then="count").build()(sample)
    assert isinstance(outcome, Sample)
    assert (outcome.parts, outcome.meta) == (sample.parts, sample.meta)
    assert outcome.scores["pii_email"] == 1.0


def test_sample_is_dropped_when_asked() -> None:
    stage = MaskPii(then="drop", kinds=("email", "card"))
    assert isinstance(stage.build()(caption("+44 20 7946 0958")), Sample)
    outcome = stage.build()(caption(TEXT))
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.detail) == ("caption_pii", "email 1")


def test_detail_and_scores_repeat_nothing_of_what_was_found() -> None:
    outcome = MaskPii(then="drop").build()(caption(TEXT))
    assert isinstance(outcome, Dropped)
    assert "ann" not in outcome.detail


def test_what_was_measured_of_the_caption_is_forgotten() -> None:
    sample = caption(TEXT).with_scores(caption_chars=40.0, image_width=3.0)
    outcome = MaskPii().build()(sample)
    assert isinstance(outcome, Sample)
    assert "caption_chars" not in outcome.scores
    assert outcome.scores["image_width"] == 3.0


def test_sample_without_a_caption_passes_through() -> None:
    sample = Sample("a", parts={"png": Part(data=b"")})
    outcome = MaskPii().build()(sample)
    assert isinstance(outcome, Sample)
    assert outcome.parts == sample.parts


def test_caption_that_is_not_utf8_is_quarantined() -> None:
    with pytest.raises(SampleError) as caught:
        MaskPii().build()(Sample("a", parts={"txt": Part(data=b"caf\xe9")}))
    assert caught.value.reason == "text_undecodable"


@pytest.mark.parametrize(
    "text",
    [
        "1 euro (1,-- \u20ac).",
        "\uff15\uff10\uff10\u3048\u3093",
        "\u0645\u0626\u0629 \u064a\u0646 (\u0661\u0660\u0660)",
        "Ein F\u00fcnfzig-Cent-St\u00fcck aus dem Jahr 2002.",
        "A 1937 Ford, number 54, at 120 km/h.",
        "Un boeing 747 de 1969 sur 70,66 m",
    ],
)
def test_descriptions_of_things_are_not_masked(text: str) -> None:
    assert find_personal(text) == []


@pytest.mark.skipif(not os.path.isdir(STAMPS), reason="MM_TEST_STAMPS names no stamps corpus")
def test_descriptions_of_the_stamps_are_not_masked() -> None:
    lines = [
        line
        for file in Path(STAMPS).rglob("*.txt")
        for line in file.read_text("utf-8", errors="replace").splitlines()
    ]
    assert len(lines) > 10_000
    assert [line for line in lines if find_personal(line)] == []
