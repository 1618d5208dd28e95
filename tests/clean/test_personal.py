"""What names a person: found in the spellings of the world, and nothing else."""

import time

import pytest

from mmcore.clean.personal import find_personal, is_iban, is_luhn, mask_personal


def masked(text: str) -> str:
    return mask_personal(text, find_personal(text))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Mail ann.o'neil+x@sub.example.co.uk.", "Mail [EMAIL]."),
        ("<ann@example.org>, bob@example.org", "<[EMAIL]>, [EMAIL]"),
        ("ann@\u4f8b\u3048.\u30c6\u30b9\u30c8", "[EMAIL]"),
        ("ann\uff20example.org", "[EMAIL]"),
        ("Call (555) 234-5678 now", "Call [PHONE] now"),
        ("555-234-5678 or 555.234.5678", "[PHONE] or [PHONE]"),
        ("+1 (212) 555-0187", "[PHONE]"),
        ("1-800-555-0199", "[PHONE]"),
        ("+44 20 7946 0958, London", "[PHONE], London"),
        ("+49 (0)30 901820", "[PHONE]"),
        ("00331 42 68 53 00", "[PHONE]"),
        ("Tel.: 030/90 18 20", "Tel.: [PHONE]"),
        ("whatsapp 0612345678", "whatsapp [PHONE]"),
        ("+\u0663\u0664 \u0669\u0661\u0662 \u0663\u0664\u0665 \u0666\u0667\u0668", "[PHONE]"),
        ("pay 4111 1111 1111 1111 now", "pay [CARD] now"),
        ("5555-5555-5555-4444", "[CARD]"),
        ("3782 822463 10005", "[CARD]"),
        ("6011111111111117", "[CARD]"),
        ("\uff14111\u00a01111\u00a01111\u20111111", "[CARD]"),
        ("DE89 3704 0044 0532 0130 00", "[IBAN]"),
        ("to GB82WEST12345698765432 and so", "to [IBAN] and so"),
        ("FR14 2004 1010 0505 0001 3M02 606 or else", "[IBAN] or else"),
        ("NO93 8601 1117 947", "[IBAN]"),
        ("SSN 219-09-9998", "SSN [NATIONAL_ID]"),
    ],
)
def test_personal_data_is_masked(text: str, wanted: str) -> None:
    assert masked(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A rocket.",
        "@username on the web, a@b, me @ home",
        "logo@2x.png",
        "From 1939-1945, 1914/18 and 2019-05-12 10:20:30",
        "ISBN 978-3-16-148410-0",
        "4111 1111 1111 1112",
        "41111111 11111111",
        "0000 0000 0000 0000",
        "1234 5678 9012 3456",
        "DE89 3704 0044 0532 0130 01",
        "ZZ89 3704 0044 0532 0130 00",
        "+20 000 000 people",
        "more than 10 000 000 or 1.234.567,89",
        "192.168.100.200 and 48.858370, 2.294481",
        "00 11 22 33 44 55 66",
        "1.0049301234567",
        "5551234567",
        "call 2019-05-12",
        "fax 12345",
        "155-234-5678",
        "555-134-5678",
        "The 7 wonders, 3.141592653589793",
        "a b c +++ 12 34",
        "Boeing 747-400, Airbus A380-800",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert masked(text) == text


def test_only_the_kinds_that_are_asked_for_are_found() -> None:
    text = "ann@example.org, +44 20 7946 0958"
    assert mask_personal(text, find_personal(text, ("phone",))) == "ann@example.org, [PHONE]"


def test_what_two_kinds_claim_is_found_once() -> None:
    found = find_personal("tel 4111111111111111")
    assert [one.kind for one in found] == ["card"]


def test_check_digits() -> None:
    assert is_luhn("79927398713")
    assert not is_luhn("79927398710")
    assert is_iban("NL91ABNA0417164300")
    assert not is_iban("NL91ABNA0417164301")
    assert not is_iban("NL91ABNA041716430")


@pytest.mark.parametrize(
    "piece", ["a", "1", "1 ", "a.b", "a@", "a-", "(1", "+1 ", "tel ", "tel 1 ", "DE89 3704 "]
)
def test_time_is_in_proportion_to_a_hostile_text(piece: str) -> None:
    def seconds(num_chars: int) -> float:
        text = (piece * num_chars)[:num_chars] + " @1"
        times = []
        for _ in range(3):
            started = time.process_time()
            find_personal(text)
            times.append(time.process_time() - started)
        return min(times)

    # squared it would be 64 times as long; a bound on growth, not on speed
    assert seconds(80_000) < 30 * max(seconds(10_000), 2e-3)
