"""Encoding of captions: `txt`, UTF-8, NFC."""

from pathlib import Path

import pytest

from mmcore.encode.text import EncodeText, TokenIds
from mmcore.encode.tokenizer import TokenizerWork
from mmcore.errors import ConfigError, SampleError
from mmcore.media.array import array_of
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


@pytest.mark.parametrize(
    ("stage", "found", "wanted"),
    [
        (EncodeText(form="NFKC"), "\uff21 \ufb01ne cat\u00b2", "A fine cat2"),
        (EncodeText(repair=True), "caf\u00c3\u00a9", "caf\u00e9"),
        (EncodeText(), "caf\u00c3\u00a9", "caf\u00c3\u00a9"),
    ],
)
def test_text_is_folded_and_repaired_only_where_that_is_asked_for(
    stage: EncodeText, found: str, wanted: str
) -> None:
    outcome = stage.build()(Sample("a", parts={"txt": Part(data=found.encode())}))
    assert isinstance(outcome, Sample)
    assert outcome.data("txt").decode() == wanted


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    path = tmp_path / "tokenizer.json"
    path.write_text(TokenizerWork(vocab_size=60).train(["a blue bird", "a red bird"]).to_str())
    return str(path)


def test_token_ids_are_an_array_beside_the_text(tokenizer: str) -> None:
    sample = Sample("a", parts={"txt": Part(data=b"A red bird")})
    outcome = TokenIds(tokenizer=tokenizer).build()(sample)
    assert isinstance(outcome, Sample)
    ids = array_of(outcome.data("ids.npy"))
    assert ids.dtype == "int32"
    assert (ids[0], ids[-1]) == (2, 3)
    assert len(ids) > 4
    cut = TokenIds(tokenizer=tokenizer, max_tokens=4).build()(sample)
    assert isinstance(cut, Sample)
    assert array_of(cut.data("ids.npy")).tolist() == [*ids[:3], 3]


def test_without_a_tokenizer_of_its_own_it_takes_the_one_that_the_recipe_trained(
    tokenizer: str,
) -> None:
    stage = TokenIds()
    assert (stage.needs, TokenIds(tokenizer=tokenizer).needs) == (("tokenizer",), ())
    sample = Sample("a", parts={"txt": Part(data=b"A red bird")})
    placed = stage.placed({"tokenizer": str(Path(tokenizer).parent)})
    assert placed.build()(sample) == TokenIds(tokenizer=tokenizer).build()(sample)
    assert stage.identity()["tokenizer"] == ""


def test_where_a_tokenizer_lies_is_no_part_of_the_identity_and_what_it_holds_is(
    tokenizer: str, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_bytes(Path(tokenizer).read_bytes())
    assert TokenIds(tokenizer=str(elsewhere)).identity() == TokenIds(tokenizer=tokenizer).identity()
    given = TokenizerWork(path=tokenizer).identity()
    assert TokenizerWork(path=str(elsewhere), vocab_size=500).identity() == given
    elsewhere.write_text(TokenizerWork(vocab_size=60).train(["another"]).to_str())
    assert TokenIds(tokenizer=str(elsewhere)).identity() != TokenIds(tokenizer=tokenizer).identity()
    assert TokenizerWork(path=str(elsewhere)).identity() != given


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"x.json holds no tokenizer.*Give a tokenizer.json"):
        TokenIds(tokenizer=str(tmp_path / "x.json")).build()
    with pytest.raises(ConfigError, match=r"gone.json holds no tokenizer.*does not exist"):
        TokenizerWork(path=str(tmp_path / "gone.json")).identity()
    with pytest.raises(ConfigError, match="max_tokens=0"):
        TokenIds(tokenizer="x", max_tokens=0)
