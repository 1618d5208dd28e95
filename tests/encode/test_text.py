"""Encoding of captions: `txt`, UTF-8, NFC."""

import pytest

from mmcore.encode.text import EncodeText
from mmcore.errors import SampleError
from mmcore.sample import Part, Sample


def encoded(sample: Sample) -> Sample:
    outcome = EncodeText().build()(sample)
    assert isinstance(outcome, Sample)
    return outcome


@pytest.mark.parametrize(
    ("found", "wanted"),
    [("\ufeffA cat.\r\n", "A cat."), ("e\u0301\n\n", "\u00e9"), ("two\nlines\n", "two\nlines")],
)
def test_caption_is_in_nfc_without_mark_and_line_end(found: str, wanted: str) -> None:
    outcome = encoded(Sample("a", parts={"txt": Part(data=found.encode())}))
    assert outcome.data("txt") == wanted.encode()


def test_caption_under_another_name_becomes_txt() -> None:
    outcome = encoded(Sample("a", parts={"caption.txt": Part(data=b"A cat.")}))
    assert sorted(outcome.parts) == ["txt"]


def test_caption_in_order_keeps_its_part() -> None:
    sample = Sample("a", parts={"txt": Part(data=b"A cat.")})
    assert encoded(sample) is sample


def test_caption_that_is_not_utf8_is_quarantined() -> None:
    with pytest.raises(SampleError) as caught:
        encoded(Sample("a", parts={"txt": Part(data=b"\xff")}))
    assert caught.value.reason == "text_undecodable"


def test_sample_without_a_caption_passes_through() -> None:
    sample = Sample("a", parts={"png": Part(data=b"")})
    assert encoded(sample) is sample
