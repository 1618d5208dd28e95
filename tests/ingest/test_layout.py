import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcore.ingest.layout import RawSample, SourceFile, make_key, with_unique_keys


def raw(original_key: str, *, key: str = "") -> RawSample:
    files = {"txt": SourceFile(f"{original_key}.txt", 1, "00")}
    return RawSample(key or make_key(original_key), original_key, files)


@pytest.mark.parametrize(
    ("original", "key"),
    [
        ("animals/birds/owl", "animals__birds__owl"),
        ("Cat", "cat"),
        ("a-b_c", "a-b_c"),
    ],
)
def test_plain_names_stay_readable(original: str, key: str) -> None:
    assert make_key(original) == key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a/b", "a__b"),
        ("a/_b", "a_/b"),
        ("caf\u00e9", "caf\u00e8"),
        ("a b", "a_b"),
        ("a.b", "a_b"),
        ("x" * 90 + "1", "x" * 90 + "2"),
        ("\u732b", "\u72ac"),
        ("\u212a", "k"),
    ],
)
def test_names_that_look_alike_have_keys_of_their_own(one: str, other: str) -> None:
    assert make_key(one) != make_key(other)


@given(st.text(min_size=1))
def test_a_key_is_short_ascii_without_dots(original: str) -> None:
    assert re.fullmatch(r"[a-z0-9_-]{1,80}", make_key(original))


@given(st.text(alphabet="aA_/-.\u00e9", min_size=1), st.text(alphabet="aA_/-.\u00e9", min_size=1))
def test_only_names_that_differ_in_case_alone_share_a_key(one: str, other: str) -> None:
    lower = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
    assert (make_key(one) == make_key(other)) == (one.translate(lower) == other.translate(lower))


def test_a_name_that_is_not_utf8_has_a_key() -> None:
    assert make_key("caf\udce9").startswith("caf_-")


def test_the_first_of_two_samples_by_path_keeps_the_key() -> None:
    unique = with_unique_keys([raw("a/cat"), raw("a/Cat"), raw("a/dog")])
    assert [sample.original_key for sample in unique] == ["a/Cat", "a/cat", "a/dog"]
    assert [sample.problem for sample in unique] == [
        None,
        ("key_taken", "a/cat would have the key a__cat of a/Cat"),
        None,
    ]
    assert len({sample.key for sample in unique}) == 3


def test_three_samples_of_one_key_are_all_told_apart() -> None:
    unique = with_unique_keys([raw("cat"), raw("Cat"), raw("CAT")])
    assert len({sample.key for sample in unique}) == 3
    assert [sample.problem is None for sample in unique] == [True, False, False]
