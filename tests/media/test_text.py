"""Text: UTF-8 and nothing else."""

import pytest

from mmcore.errors import SampleError
from mmcore.media.text import MAX_TEXT_BYTES, decode_text, text_of
from mmcore.sample import Part, Sample


def test_utf8_is_decoded_and_its_byte_order_mark_removed() -> None:
    assert decode_text("\ufeffcaf\u00e9".encode()) == "caf\u00e9"


@pytest.mark.parametrize(
    "data", [b"caf\xe9", b"\xff\xfea\0", b"\xed\xa0\x80", b"\xc0\x80", b"ab\xe2"]
)
def test_anything_else_is_undecodable(data: bytes) -> None:
    with pytest.raises(SampleError) as caught:
        decode_text(data)
    assert caught.value.reason == "text_undecodable"
    assert "at byte" in caught.value.detail


def test_text_is_found_by_modality() -> None:
    assert text_of(Sample("a", parts={"caption.txt": Part(data=b"A cat.")})) == "A cat."


def test_text_at_the_limit_is_taken_and_more_refused() -> None:
    assert len(decode_text(b"a" * MAX_TEXT_BYTES)) == MAX_TEXT_BYTES
    with pytest.raises(SampleError) as caught:
        decode_text(b"a" * (MAX_TEXT_BYTES + 1))
    assert caught.value.reason == "text_over_limit"
