"""National numbers: those that add up are found, and one digit off is not."""

import pytest

from mmcore.clean.national_ids import find_national_ids

VALID = [
    "219-09-9998",
    "12345678Z",
    "12345678-z",
    "12.345.678-Z",
    "X1234567L",
    "Y-1234567-X",
    "255081416802538",
    "2 55 08 14 168 025 38",
    "1 85 05 2A 006 084 35",
    "529.982.247-25",
    "52998224725",
    "86095742719",
    "86 095 742 719",
    "65929970489",
]


def found(text: str) -> set[str]:
    return {text[start:end] for start, end in find_national_ids(text)}


@pytest.mark.parametrize("number", VALID)
def test_valid_number_is_found_in_a_sentence(number: str) -> None:
    assert found(f"Her number is {number}, she said.") == {number}
    assert found(number) == {number}


@pytest.mark.parametrize("number", VALID[1:])
def test_number_with_another_check_digit_is_not_found(number: str) -> None:
    last = number[-1]
    wrong = chr(ord(last) + 1) if last not in "9Zz" else chr(ord(last) - 1)
    assert found(f"Her number is {number[:-1]}{wrong}, she said.") == set()


@pytest.mark.parametrize(
    "text",
    [
        "000-12-3456",
        "666-12-3456",
        "900-12-3456",
        "123-00-4567",
        "123-45-0000",
        "219-09-99981",
        "1-219-09-9998",
        "219 09 9998",
        "111.111.111-11",
        "11111111111",
        "a52998224725",
        "529982247250",
        "3.52998224725",
        "12345678A",
        "12345678Zx",
        "20190512 t",
        "1939-1945",
        "10:20:30",
        "",
    ],
)
def test_other_digits_are_left_alone(text: str) -> None:
    assert found(text) == set()


@pytest.mark.parametrize("text", ["SSN 219 09 9998", "social security number: 219099998"])
def test_plain_digits_are_an_ssn_where_a_word_says_so(text: str) -> None:
    assert len(found(text)) == 1
