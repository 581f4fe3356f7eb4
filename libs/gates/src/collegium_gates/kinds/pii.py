"""Personal data by its form: addresses, numbers of cards and accounts, telephones, identities. Pure.

What has a check digit is checked (Luhn, IBAN's mod 97), what is bounded by rule is checked against it (social security
numbers that are never given out, parts of IPv4 addresses), so that order numbers and dates pass. Every pattern is
bounded and looks at a character a bounded number of times. Names of persons and places have no form: see names. One
rule: a digit of any script is a digit.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final

from collegium_contracts.gates import GateRule

from collegium_gates.finding import Findings, Found, Reading, found, told

_IBAN_LENGTHS: Final = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18,
    "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24,
    "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24,
    "XK": 20,
}  # fmt: skip
_EMAIL_REACH: Final = 64


def luhn(digits: str) -> bool:
    """Whether digits end in the right check digit of ISO/IEC 7812."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def iban_length(text: str) -> int:
    """Returns how many of the first letters and digits are a valid IBAN; 0: they are none."""
    plain = text.upper()
    length = _IBAN_LENGTHS.get(plain[:2], 0)
    if not length or len(plain) < length:
        return 0
    turned = plain[4:length] + plain[:4]
    number = "".join(str(int(one, 36)) for one in turned)
    return length if int(number) % 97 == 1 else 0


def _card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return 13 <= len(digits) <= 19 and digits[0] in "23456" and len(set(digits)) > 1 and luhn(digits)


def _ssn(text: str) -> bool:
    area, group, serial = text[:3], text[4:6], text[-4:]
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


def _phone(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return 9 <= len(digits) <= 15 and len(set(digits)) > 2


def _address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


_FORMS: Final[dict[str, tuple[re.Pattern[str], Callable[[str], bool]]]] = {
    "CARD": (re.compile(r"(?<![\d.])\d(?:[ \-]?\d){12,18}(?![\d])"), _card),
    "SSN": (re.compile(r"(?<![\d\-])\d{3}([- ])\d{2}\1\d{4}(?![\d\-])"), _ssn),
    "PHONE": (
        re.compile(
            r"(?<![\w+])(?:\+|00)[1-9]\d{0,2}[ .\-]?(?:\(\d{1,4}\)[ .\-]?)?\d{1,4}(?:[ .\-]?\d{2,4}){2,4}(?!\w)"
            r"|(?<![\w+\-])(?:\(\d{3}\) ?|\d{3}[ .\-])\d{3}[ .\-]\d{4}(?![\w\-])"
        ),
        _phone,
    ),
    "IP": (
        re.compile(
            r"(?<![\w.:])(?:(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d)|(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4})(?![\w:])"
        ),
        lambda text: len(text) > 6 and _address(text),
    ),
}
_AT: Final = re.compile(r"@")
_BEFORE_AT: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-]{1,64}\Z")
_AFTER_AT: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z][A-Za-z0-9\-]{1,23}")
_IBAN_START: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?=[ ]?[A-Za-z0-9])")
_IBAN_RUN: Final = re.compile(r"[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){8,30}")

ENTITIES: Final = ("EMAIL", "IBAN", *_FORMS)


def evaluate(rule: GateRule, read: list[Reading]) -> Findings:
    """Finds personal data of the rule's entities; none named means all."""
    wanted = rule.entities or list(ENTITIES)
    places: list[Found] = []
    for reading in read:
        for number, view in enumerate(reading.views(normalise=rule.normalise)):
            for entity in wanted:
                # Several rules may look for the same.
                if (known := reading.known.get((entity, number))) is None:
                    known = reading.known[entity, number] = spans(entity, view.text)
                places += [found(reading, view, *span, entity) for span in known]
    return told(places, "personal data")


def spans(entity: str, text: str) -> list[tuple[int, int]]:
    """Returns the places of one entity in a text."""
    if entity == "EMAIL":
        return _emails(text)
    if entity == "IBAN":
        return _ibans(text)
    expression, is_right = _FORMS[entity]
    return [match.span() for match in expression.finditer(text) if is_right(match.group())]


def _emails(text: str) -> list[tuple[int, int]]:
    # From each @ outwards: a search for what may stand before one would look at the text again and again.
    places: list[tuple[int, int]] = []
    for at in _AT.finditer(text):
        before = _BEFORE_AT.search(text, max(0, at.start() - _EMAIL_REACH), at.start())
        after = _AFTER_AT.match(text, at.end())
        if before is not None and after is not None:
            places.append((before.start(), after.end()))
    return places


def _ibans(text: str) -> list[tuple[int, int]]:
    places: list[tuple[int, int]] = []
    for start in _IBAN_START.finditer(text):
        run = _IBAN_RUN.match(text, start.start())
        if run is None:
            continue
        length = iban_length(run.group().replace(" ", ""))
        if length:
            places.append((run.start(), run.start() + _nth(run.group(), length)))
    return places


def _nth(text: str, wanted: int) -> int:
    """Returns after how many characters so many that are no space have passed."""
    seen = 0
    for place, character in enumerate(text, 1):
        seen += character != " "
        if seen == wanted:
            return place
    return len(text)
