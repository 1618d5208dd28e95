import pytest

from mmcore.errors import SampleError
from mmcore.ingest.layout import SourceFile
from mmcore.ingest.sidecar import MAX_SIDECAR_BYTES, read_metadata, read_text


def read(data: bytes) -> dict[str, object]:
    return dict(read_metadata(SourceFile("a/cat.json", len(data), "00"), lambda _: data))


def test_an_object_is_read() -> None:
    assert read(b'\xef\xbb\xbf{"label": "cat", "tags": ["a"]}') == {"label": "cat", "tags": ["a"]}


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b'["cat"]', "not an object"),
        (b'"cat"', "not an object"),
        (b'{"a": 1, "a": 2}', "occurs twice"),
        (b'{"b": {"a": 1, "a": 1}}', "occurs twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": "\\ud800"}', "surrogates"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"a": ' * 40 + b"1" + b"}" * 40, "nested deeper"),
        (b"[" * 100_000, "recursion"),
        (b'{"a": 1', "Expecting"),
        (b"", "Expecting"),
        (b'{"a": "\xe9"}', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    ],
)
def test_anything_else_is_a_broken_sample(data: bytes, complaint: str) -> None:
    with pytest.raises(SampleError, match=complaint) as caught:
        read(data)
    assert caught.value.reason == "metadata_unreadable"
    assert "a/cat.json" in caught.value.detail


def test_thirty_two_levels_are_read() -> None:
    assert read(b'{"a": ' * 32 + b"1" + b"}" * 32)


def test_a_file_over_the_limit_is_not_even_read() -> None:
    def read_file(_: SourceFile) -> bytes:
        raise AssertionError

    with pytest.raises(SampleError, match="1048577 bytes"):
        read_text(SourceFile("a/cat.json", MAX_SIDECAR_BYTES + 1, "00"), read_file)
