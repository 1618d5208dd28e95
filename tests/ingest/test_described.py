"""What is told of a sample: by rule from its path, or from the metadata beside it."""

from typing import Any

import pytest

from mmcore.errors import ConfigError, SampleError
from mmcore.ingest.described import DescribedLayout, find_field
from mmcore.sample import Json


def described(told: dict[str, Json], key: str = "a/b/c/1", **rules: Any) -> dict[str, Json]:
    layout = DescribedLayout(**rules)
    found = layout.described(told, where="a/b/c/1.json", original_key=key)
    return {**found.meta, "caption": found.caption}


@pytest.mark.parametrize(
    ("rule", "label"),
    [
        ("folder", "c"),
        ("folder:0", "a"),
        ("folder:1", "b"),
        ("folder:-2", "b"),
        ("path", "a/b/c"),
        ("json:kind", "owl"),
        ("json:is.a", "7"),
    ],
)
def test_a_label_follows_from_its_rule(rule: str, label: str) -> None:
    assert described({"kind": "owl", "is": {"a": 7}}, label_from=rule)["label"] == label


@pytest.mark.parametrize("rule", ["folder:3", "folder:-4", "json:nothing", "json:list"])
def test_a_rule_that_finds_no_label_breaks_the_sample(rule: str) -> None:
    with pytest.raises(SampleError) as caught:
        described({"list": ["a"]}, label_from=rule)
    assert caught.value.reason == "label_missing"


def test_caption_licence_and_language_come_from_fields() -> None:
    told: dict[str, Json] = {"text": "An owl.", "terms": {"spdx": "CC0-1.0"}, "lang": "en"}
    found = described(
        told, caption_from="json:text", licence_from="json:terms.spdx", language_from="json:lang"
    )
    assert (found["caption"], found["licence"], found["language"]) == ("An owl.", "CC0-1.0", "en")


def test_a_licence_in_american_spelling_is_a_licence() -> None:
    assert described({"license": "CC0-1.0"})["licence"] == "CC0-1.0"
    assert described({"license": "a", "licence": "b"})["licence"] == "b"


def test_of_several_captions_the_first_is_taken_and_all_are_kept() -> None:
    found = described({"captions": ["One.", "Two."]}, caption_from="json:captions")
    assert (found["caption"], found["captions"]) == ("One.", ["One.", "Two."])


@pytest.mark.parametrize("caption", [3, ["a", 3], {"a": "b"}])
def test_a_caption_that_is_no_text_breaks_the_sample(caption: Json) -> None:
    with pytest.raises(SampleError, match="not text"):
        described({"text": caption}, caption_from="json:text")


def test_no_caption_is_no_mistake() -> None:
    assert described({}, caption_from="json:text")["caption"] is None


@pytest.mark.parametrize("rule", ["caption", "json:", "txt"])
def test_an_unknown_rule_is_refused(rule: str) -> None:
    with pytest.raises(ConfigError, match="licence_from"):
        DescribedLayout(licence_from=rule)


def test_a_name_with_a_dot_goes_before_a_path() -> None:
    assert find_field({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert find_field({"a": {"b": 2}}, "a.b") == 2
    assert find_field({"a": 1}, "a.b") is None
