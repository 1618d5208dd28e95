"""Text parts: UTF-8, nothing guessed."""

from mmcore.errors import SampleError
from mmcore.sample import Sample

MAX_TEXT_BYTES = 1 << 20
"""A book has less; all work on text is in proportion to its length."""


def decode_text(data: bytes) -> str:
    """Return UTF-8 text without its byte order mark; SampleError `text_undecodable` otherwise.

    No other encoding is tried: a wrong guess would be stored as if it were right. SampleError
    `text_over_limit` beyond a mebibyte.
    """
    if len(data) > MAX_TEXT_BYTES:
        raise SampleError("text_over_limit", f"{len(data)} bytes > {MAX_TEXT_BYTES}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = data[error.start : error.start + 8]
        detail = f"not UTF-8 at byte {error.start} of {len(data)}: {found!r}"
        raise SampleError("text_undecodable", detail) from error


def text_of(sample: Sample) -> str:
    """Return the text of a sample that has one, decoded once for all stages of a step."""
    extension = sample.extension("text")
    assert extension is not None, f"{sample.key} has no text"
    at = (extension, "text")
    if at not in sample.scratch:
        sample.scratch[at] = decode_text(sample.data(extension))
    text: str = sample.scratch[at]
    return text
