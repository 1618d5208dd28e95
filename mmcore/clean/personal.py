"""Where a text names a person's address, phone, card, account or number.

By patterns and check digits alone, and for precision: what could as well be a year, a score, a
price or a part number is left alone. Names and postal addresses are not looked for.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from mmcore.clean.national_ids import find_national_ids

PersonalKind = Literal["email", "iban", "card", "national_id", "phone"]
KINDS: tuple[PersonalKind, ...] = get_args(PersonalKind)
"""Where two overlap, the earlier in this order has the characters."""


@dataclass(frozen=True, slots=True)
class Found:
    """A stretch of a text, and what it is."""

    kind: PersonalKind
    start: int
    end: int


_CLUE = re.compile(r"[\d@\uff20]")
# Bounded, and only from where a word begins: a long run of letters costs one look at each
_EMAIL = re.compile(
    r"(?<![\w.%+'-])[\w%+'-]{1,64}(?:\.[\w%+'-]{1,64}){0,8}"
    r"@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}([^\W\d_]{2,24})(?![\w-])"
)
# icon@2x.png is a file
_FILE_ENDINGS = frozenset(
    ("bmp", "css", "gif", "heic", "htm", "html", "ico", "jpeg", "jpg", "js", "json", "m4a", "mov",
     "mp3", "mp4", "pdf", "php", "png", "svg", "tif", "tiff", "txt", "wav", "webm", "webp", "xml",
     "zip")
)  # fmt: skip

# The first digits and the lengths of the brands (ISO/IEC 7812; the brands' own tables)
_CARD = re.compile(r"(?<![\w])(?<!\d[-.,/])\d(?:[ -]?\d){12,18}(?![\w])(?![-.,/]\d)")
_CARD_GROUPS = frozenset(
    {(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3), (4, 4, 5), (4, 4, 4, 1)}
)
_CARD_BRANDS = (
    (re.compile(r"4"), (13, 16, 19)),  # Visa
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),  # Mastercard
    (re.compile(r"3[47]"), (15,)),  # American Express
    (re.compile(r"6011|65|64[4-9]"), (16, 19)),  # Discover
    (re.compile(r"30[0-5]|3[689]"), (14, 16)),  # Diners Club
    (re.compile(r"35(?:2[89]|[3-8])"), (16,)),  # JCB
    (re.compile(r"62"), (16, 17, 18, 19)),  # UnionPay
    (re.compile(r"50|5[6-9]|6[37]"), (16, 18, 19)),  # Maestro
    (re.compile(r"220[0-4]"), (16,)),  # Mir
)  # fmt: skip

# ISO 13616: the length of an account number by country (SWIFT's registry)
_IBAN = re.compile(
    r"(?<![\w])[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?(?![\w])"
)
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22,
    "BI": 27, "BR": 29, "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27,
    "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27,
    "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32,
    "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24,
    "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31,
    "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23,
    "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}  # fmt: skip

# ITU-T E.164, annex: the country codes in use, then up to fifteen digits in all
_INTERNATIONAL = re.compile(
    r"(?<![\w+])(?<!\d[-.,:/])(?:\+|(?<!\d )00)"
    r"((?:1|7|2(?:0|7|[1-6]\d|9[0-9])|3(?:[0-469]|[578]\d)|4(?:[013-9]|2\d)|5(?:[1-8]|[09]\d)"
    r"|6(?:[0-6]|[789]\d)|8(?:[1246]|[0578]\d)|9(?:[0-58]|[679]\d)))"
    r"((?:[ .-]?(?:\(\d{1,5}\)|\d)){6,14})(?![\w])"
)
# North American Numbering Plan: neither area nor exchange begins with 0 or 1
_NANP = re.compile(
    r"(?<![\w.+-])(?<!\d )(?:1[ .-])?"
    r"(?:\([2-9]\d{2}\) ?|[2-9]\d{2}([ .-]))[2-9]\d{2}[-. ]\d{4}(?![\w])(?![-.,/ ]\d)"
)
# Any other national number, where a word says that it is one
_NAMED_PHONE = re.compile(
    r"\b(?:tel|telephone|phone|call|fax|mobile|whatsapp|sms|telefon|telefono|telefone)"
    r"(?: (?:me|us|at|on|no\.?|number|nr\.?)){0,2}[ :.]{1,3}"
    r"(\(?\d(?:[ ./()-]{0,2}\d){6,13})(?![\w])",
    re.IGNORECASE,
)
_WIDE_SIGNS = {"\uff0b": "+", "\uff20": "@", "\uff0e": ".", "\uff08": "(", "\uff09": ")"}
# round amounts, not numbers to be called
_ROUND = "000000"
_DATE = re.compile(r"\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{2,4}")


def find_personal(text: str, kinds: tuple[PersonalKind, ...] = KINDS) -> list[Found]:
    """Return what was found, in the order of the text; no two of them overlap."""
    # most texts hold neither, and need not be searched
    if _CLUE.search(text) is None:
        return []
    plain = _plain(text)
    taken = bytearray(len(plain))
    found = []
    for kind in KINDS:
        for start, end in _FINDERS[kind](plain) if kind in kinds else ():
            if not any(taken[start:end]):
                taken[start:end] = b"\x01" * (end - start)
                found.append(Found(kind, start, end))
    return sorted(found, key=lambda one: one.start)


def mask_personal(text: str, found: list[Found]) -> str:
    """Return the text with each stretch replaced by its kind.

    >>> text = "Write to ann@example.org"
    >>> mask_personal(text, find_personal(text))
    'Write to [EMAIL]'
    """
    pieces, at = [], 0
    for one in found:
        pieces += [text[at : one.start], f"[{one.kind.upper()}]"]
        at = one.end
    return "".join([*pieces, text[at:]])


def is_luhn(digits: str) -> bool:
    """Return whether the last digit checks the others (ISO/IEC 7812-1, annex B).

    >>> is_luhn("4111111111111111")
    True
    """
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(int(digit) for digit in digits[::-2])) % 10 == 0


def is_iban(number: str) -> bool:
    """Return whether a number without spaces has its country's length and adds up (ISO 7064).

    >>> is_iban("GB82WEST12345698765432")
    True
    """
    number = number.upper()
    if len(number) != _IBAN_LENGTHS.get(number[:2]):
        return False
    return int("".join(str(int(char, 36)) for char in number[4:] + number[:4])) % 97 == 1


def _emails(text: str) -> Iterator[tuple[int, int]]:
    for match in _EMAIL.finditer(text):
        if match[1].lower() not in _FILE_ENDINGS:
            yield match.span()


def _cards(text: str) -> Iterator[tuple[int, int]]:
    for match in _CARD.finditer(text):
        groups = re.split(r"[ -]", match[0])
        is_written = len(groups) == 1 or tuple(map(len, groups)) in _CARD_GROUPS
        digits = "".join(groups)
        if is_written and _has_brand(digits) and is_luhn(digits) and len(set(digits)) > 1:
            yield match.span()


def _has_brand(digits: str) -> bool:
    return any(
        len(digits) in lengths and pattern.match(digits) for pattern, lengths in _CARD_BRANDS
    )


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    for match in _IBAN.finditer(text):
        # what follows may be a word that looks like a last group: take as much as the country has
        length = _IBAN_LENGTHS.get(match[0][:2].upper(), 0)
        end = match.start()
        for _ in range(length):
            end += 1
            while end < match.end() and text[end] == " ":
                end += 1
        end = match.start() + len(text[match.start() : end].rstrip())
        is_whole = end == len(text) or not text[end].isalnum()
        if length and is_whole and is_iban(text[match.start() : end].replace(" ", "")):
            yield match.start(), end


def _phones(text: str) -> Iterator[tuple[int, int]]:
    for match in _INTERNATIONAL.finditer(text):
        digits = re.sub(r"\D", "", match[1] + match[2])
        if 8 <= len(digits) <= 15 and not digits.endswith(_ROUND):
            yield match.span()
    for match in _NANP.finditer(text):
        yield match.span()
    for match in _NAMED_PHONE.finditer(text):
        digits = re.sub(r"\D", "", match[1])
        if not _DATE.fullmatch(match[1]) and not digits.endswith(_ROUND):
            yield match.span(1)


_FINDERS = {
    "email": _emails,
    "iban": _ibans,
    "card": _cards,
    "national_id": find_national_ids,
    "phone": _phones,
}


def _plain(text: str) -> str:
    """Return text of the same length with digits, spaces and hyphens of all kinds as in ASCII."""
    if text.isascii():
        return text
    return "".join(char if char.isascii() else _ascii(char) for char in text)


def _ascii(char: str) -> str:
    digit = unicodedata.decimal(char, None)
    if digit is not None:
        return str(digit)
    category = unicodedata.category(char)
    if category == "Pd":
        return "-"
    if category == "Zs":
        return " "
    return _WIDE_SIGNS.get(char, char)
