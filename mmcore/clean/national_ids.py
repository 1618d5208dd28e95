"""Numbers that states give to people, told from other digits by their check digits.

A number is looked for in the spelling that its country uses, and is one only if it adds up.
"""

import re
from collections.abc import Iterator

# Nothing of a longer number: no letter, digit or separator with a digit may stand beside it
_BEFORE = r"(?<![\w])(?<!\d[-./,])"
_AFTER = r"(?![\w])(?![-./,]\d)"

_US_SSN = re.compile(_BEFORE + r"(\d{3})-(\d{2})-(\d{4})" + _AFTER)
_US_SSN_NAMED = re.compile(
    r"\b(?:ssn|social security(?: number| no\.?)?)[ :#]{1,3}(\d{3}) ?(\d{2}) ?(\d{4})" + _AFTER,
    re.IGNORECASE,
)
_ES_NIF = re.compile(_BEFORE + r"(\d{8}|\d{2}\.\d{3}\.\d{3})-?([A-Za-z])" + _AFTER)
_ES_NIE = re.compile(_BEFORE + r"([XYZxyz])-?(\d{7})-?([A-Za-z])" + _AFTER)
_FR_NIR = re.compile(
    _BEFORE + r"[1-478] ?\d{2} ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d{2}|2[ABab]) ?\d{3} ?\d{3} ?\d{2}"
    + _AFTER
)  # fmt: skip
_BR_CPF = re.compile(_BEFORE + r"(?:\d{3}\.\d{3}\.\d{3}-\d{2}|\d{9}-?\d{2})" + _AFTER)
_DE_TAX_ID = re.compile(_BEFORE + r"[1-9]\d(?: ?\d{3}){3}" + _AFTER)

_NIF_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"


def find_national_ids(text: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of US SSN, Spanish NIF and NIE, French NIR, Brazilian CPF, German tax ID.

    Spans of different kinds may overlap: several countries use eleven digits.
    """
    for pattern in (_US_SSN, _US_SSN_NAMED):
        for match in pattern.finditer(text):
            if is_us_ssn(match[1], match[2], match[3]):
                yield match.start(1), match.end(3)
    for match in _ES_NIF.finditer(text):
        if is_spanish_id(match[1].replace(".", ""), match[2]):
            yield match.span()
    for match in _ES_NIE.finditer(text):
        digit = "XYZ".index(match[1].upper())
        if is_spanish_id(f"{digit}{match[2]}", match[3]):
            yield match.span()
    for pattern, is_valid in ((_FR_NIR, is_nir), (_BR_CPF, is_cpf), (_DE_TAX_ID, is_german_tax_id)):
        for match in pattern.finditer(text):
            if is_valid(re.sub(r"[-. ]", "", match[0])):
                yield match.span()


def is_us_ssn(area: str, group: str, serial: str) -> bool:
    """Return whether the US would give it: it has no check digit, but numbers it leaves out.

    >>> is_us_ssn("219", "09", "9998"), is_us_ssn("666", "09", "9998")
    (True, False)
    """
    never = area in ("000", "666") or area >= "900"
    return not never and group != "00" and serial != "0000"


def is_spanish_id(digits: str, letter: str) -> bool:
    """Return whether the letter is the one of eight digits (Real Decreto 1553/2005).

    >>> is_spanish_id("12345678", "Z")
    True
    """
    return _NIF_LETTERS[int(digits) % 23] == letter.upper()


def is_nir(number: str) -> bool:
    """Return whether the two last of fifteen digits are the key of the first thirteen (INSEE).

    >>> is_nir("255081416802538")
    True
    """
    body, key = number[:13].upper(), int(number[13:])
    # Corsica: 2A counts as 19, 2B as 18
    body = body.replace("2A", "19").replace("2B", "18")
    return 97 - int(body) % 97 == key


def is_cpf(number: str) -> bool:
    """Return whether the two last of eleven digits check the first nine (Receita Federal).

    >>> is_cpf("52998224725"), is_cpf("11111111111")
    (True, False)
    """
    digits = [int(char) for char in number]
    if len(set(digits)) == 1:
        return False
    for length in (9, 10):
        total = sum(
            digit * weight
            for digit, weight in zip(digits[:length], range(length + 1, 1, -1), strict=True)
        )
        if total * 10 % 11 % 10 != digits[length]:
            return False
    return True


def is_german_tax_id(number: str) -> bool:
    """Return whether eleven digits are a Steuer-ID: one digit repeats, ISO 7064 MOD 11,10 holds.

    >>> is_german_tax_id("86095742719")
    True
    """
    counts = sorted((number[:10].count(digit) for digit in set(number[:10])), reverse=True)
    # of the first ten, one digit is there two or three times, and the others at most once
    if counts[0] not in (2, 3) or counts[1] != 1 or number[0] == "0":
        return False
    product = 10
    for char in number[:10]:
        total = (int(char) + product) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10 == int(number[10])
