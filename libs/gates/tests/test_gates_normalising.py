"""A blocked text is found however it is written: 1,000 seeded encodings, whole and split over chunks of a stream."""

from __future__ import annotations

import base64
import random
import unicodedata
from collections.abc import Callable

import pytest
from collegium_contracts.gates import GateRule
from collegium_gates.checking import Checking
from collegium_gates.finding import readings
from collegium_gates.folding import _look_alikes, fold, skeleton
from collegium_gates.kinds import patterns, topics
from collegium_gates.streaming import GatedStream
from collegium_gates.units import Segment, Unit

PHRASE = "operation nightfall"
REGEX = GateRule(name="code-name", kind="regex", on=["request", "answer"], patterns=[r"operation\s+nightfall"])
TOPIC = GateRule(name="code-name", kind="topics", on=["request", "answer"], deny=[PHRASE])
BEFORE = "Between us, and to nobody else: the plan is called "
AFTER = ", it begins at dawn and nobody outside of this room has heard of it so far."
UNSEEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u180e\ufe0f\u2063\u061c\U000e0001\u3164\u200e"


def _alike() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for character, plain in _look_alikes().items():
        found.setdefault(plain.lower(), []).append(character)
    for code in range(0x80, 0x1FBFF):
        plain = unicodedata.normalize("NFKC", chr(code))
        if len(plain) == 1 and plain.isascii() and plain.isalpha():
            found.setdefault(plain.lower(), []).append(chr(code))
    return found


ALIKE = _alike()


def look_alikes(text: str, chance: random.Random) -> str:
    return "".join(
        chance.choice(ALIKE[one]) if one in ALIKE and one.isalpha() and chance.random() < 0.7 else one for one in text
    )


def zero_width(text: str, chance: random.Random) -> str:
    return "".join(one + "".join(chance.choices(UNSEEN, k=chance.randrange(4))) for one in text)


def marks(text: str, chance: random.Random) -> str:
    return "".join(one + chr(chance.randrange(0x300, 0x36F)) if one.isalpha() else one for one in text)


def base_64(text: str, chance: random.Random) -> str:
    raw = ("x" * chance.randrange(6) + " " + text + " " + "y" * chance.randrange(6)).encode()
    coded = (base64.urlsafe_b64encode if chance.random() < 0.3 else base64.b64encode)(raw).decode()
    if chance.random() < 0.3:
        coded = coded.rstrip("=")
    if chance.random() < 0.2:
        coded = "\n".join(coded[place : place + 16] for place in range(0, len(coded), 16))
    return "".join(chance.choices("abcXYZ123", k=chance.randrange(5))) + coded if chance.random() < 0.3 else coded


def hexadecimal(text: str, chance: random.Random) -> str:
    between = chance.choice(["", " ", ":", "-", ","])
    coded = text.encode().hex(between) if between else text.encode().hex()
    return coded.upper() if chance.random() < 0.5 else coded


def escapes(text: str, chance: random.Random) -> str:
    way: Callable[[str], str] = chance.choice(
        [
            lambda one: f"%{ord(one):02x}",
            lambda one: f"&#{ord(one)};",
            lambda one: f"&#x{ord(one):x};",
            lambda one: f"\\x{ord(one):02x}",
            lambda one: f"\\u{ord(one):04x}",
        ]
    )
    return "".join(way(one) if chance.random() < 0.8 else one for one in text)


def leet(text: str, chance: random.Random) -> str:
    signs = {"a": "4", "e": "3", "i": "1", "o": "0", "l": "1", "t": "7"}
    return "".join(signs[one] if one in signs and chance.random() < 0.6 else one for one in text)


def case(text: str, chance: random.Random) -> str:
    return "".join(one.upper() if chance.random() < 0.5 else one for one in text)


def tags(text: str, _: random.Random) -> str:
    return "".join(chr(0xE0000 + ord(one)) for one in text)


def twice(text: str, chance: random.Random) -> str:
    return base64.b64encode(base64.b64encode(f" {text} ".encode())).decode()


def mixed(text: str, chance: random.Random) -> str:
    return base_64(zero_width(look_alikes(text, chance), chance), chance)


WAYS = [look_alikes, zero_width, marks, base_64, hexadecimal, escapes, leet, case, tags, twice, mixed]


def encodings(count: int, seed: int) -> list[tuple[str, str]]:
    chance = random.Random(seed)
    made: list[tuple[str, str]] = []
    while len(made) < count:
        way = WAYS[len(made) % len(WAYS)]
        coded = way(PHRASE, chance)
        if way in (look_alikes, case) and chance.random() < 0.5:
            coded = zero_width(coded, chance)
        made.append((way.__name__, coded))
    return made


@pytest.mark.parametrize(
    ("rule", "evaluate"), [(REGEX, patterns.evaluate), (TOPIC, topics.evaluate)], ids=["regex", "topic"]
)
def test_none_of_a_thousand_encodings_passes(rule: GateRule, evaluate: Callable) -> None:
    passed = [
        (way, coded)
        for way, coded in encodings(1_000, seed=6)
        if not evaluate(rule, readings([Unit(f"{BEFORE}{coded}{AFTER}", "user")])).places
    ]
    assert passed == []


async def test_none_of_a_thousand_encodings_passes_split_over_a_stream() -> None:
    chance = random.Random(7)
    checking = Checking()
    for way, coded in encodings(1_000, seed=8):
        sent: list[str] = []
        stream = GatedStream(checking, [REGEX], {}, sent.append)
        # The text before is long enough for some of it to go out before the phrase is there.
        before = "It was a quiet evening by the sea. " * chance.randrange(1, 9)
        text = f"{before}{BEFORE}{coded}{AFTER * chance.randrange(1, 6)}"
        whole = text
        while text:
            size = chance.randrange(1, 24)
            stream.feed(text[:size])
            text = text[size:]
            if stream._task is not None:
                await stream._task
        await stream.finish()
        assert stream.blocked, (way, coded)
        # Not one character of it went out, and what went out is what stands before.
        assert whole[: whole.index(coded)].startswith("".join(sent)), (way, coded, "".join(sent))
    await checking.close()


@pytest.mark.parametrize(
    "text",
    [
        "What is the weather in Paris? It was 23 degrees at 10:45, said R2D2.",
        "Операция прошла успешно, ночь была тихой.",
        "Die Operation verlief gut; die Nacht fällt früh ein.",
        "def f(x): return x['operation'] + nightfall2  # aGVsbG8gd29ybGQgaGVsbG8=",
        "operational nightfalls",
    ],
)
def test_what_is_something_else_passes(text: str) -> None:
    assert not topics.evaluate(TOPIC, readings([Unit(text, "user")])).reason


def test_a_place_in_a_reading_leads_back_to_the_original() -> None:
    text = "see оper\u200bation%20nightfall now, and b3BlcmF0aW9uIG5pZ2h0ZmFsbA== too"
    found = patterns.evaluate(REGEX, readings([Unit(text, "user", (Segment((0,), 0, len(text)),))])).places
    assert {text[place.start : place.end] for place in found} == {
        "оper\u200bation%20nightfall",
        "b3BlcmF0aW9uIG5pZ2h0ZmFsbA==",
    }


def test_plain_texts_are_not_written_anew() -> None:
    assert fold("Plain text, 2 + 2 = 4.\n").starts is None
    assert skeleton("IlI1|") == "lllll"
