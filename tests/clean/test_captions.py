"""All captions of a sample: read together, written back, forgotten scores."""

import pytest

from mmcore.clean.captions import captions_of, with_caption
from mmcore.errors import SampleError
from mmcore.sample import Part, Sample


def test_captions_come_in_order_and_one_that_is_no_text_is_refused() -> None:
    parts = {"fr.txt": Part(data=b"Un chat"), "en.txt": Part(data=b"A cat"), "png": Part()}
    sample = Sample("a", parts=parts)
    assert captions_of(sample) == (sample, {"en.txt": "A cat", "fr.txt": "Un chat"})
    with pytest.raises(SampleError):
        captions_of(sample.with_part("de.txt", b"\xff"))


def test_caption_that_did_not_change_keeps_its_part_and_scores() -> None:
    sample = Sample("a", parts={"txt": Part(data=b"A cat")}, scores={"caption_chars": 5.0})
    assert with_caption(sample, "txt", "A cat") is sample
    assert with_caption(sample, "txt", "A dog").scores == {}
