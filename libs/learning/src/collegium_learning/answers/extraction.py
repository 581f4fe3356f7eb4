"""What an answer says, by the type of answer that was asked for: a key that equal answers share. Pure.

Code is compared as the text of its blocks here; what it does is for whoever runs it against tests. One rule: a key is
empty only where nothing was said, and an answer that does not have the form of its type is compared as text, so that
nothing is guessed into it.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import msgspec
from collegium_contracts.parts import AnswerKind

from collegium_learning.answers.normalise import normalise

AnswerType = AnswerKind

# Where an answer stands in a long text: at its end. Nothing before that is looked at, whatever the text's length.
TAIL_CHARS = 2_000
# A text of more than this is a solution with an answer at its end; a shorter one is the answer.
SHORT_CHARS = 120
# More than this is no JSON answer that two models would give alike, and takes long to read.
JSON_CHARS_MAX = 100_000
# Below this a float holds every integer exactly.
FLOAT_EXACT_MAX = 2.0**53
# Beyond this a text is compared as it stands.
CODE_CHARS_MAX = 500_000
# Python's own parser is slower, and its memory grows with what it reads.
LITERAL_CHARS_MAX = 10_000
# Digits beyond these are an answer of their own kind (a sequence, a key), compared as text.
DIGITS_MAX = 40

_NOTHING = re.compile(
    r"(?:[_\s.?\u2026-]*|n/?a|(?:the )?(?:final )?answer(?: is)?:?|"
    r"(?:i |we )?(?:can ?not|can't|could not|am unable to|unable to|do not|don't) "
    r"(?:be )?(?:determined?|answer|know|say|tell|provide|help|compute|solve)\b.{0,200}|"
    r"(?:i'm sorry|i am sorry|sorry|as an ai)\b.{0,300}|(?:not enough|insufficient) information.{0,100})",
    re.DOTALL,
)
# Values in code, and nothing at all where a number or a name was asked for.
_VOID = frozenset({"none", "null", "nan", "unknown", "undetermined"})
_MARKED = re.compile(r"(?:####|\\boxed\s*\{|(?:final )?answer(?: is)?\s*:?|answer\s*=)\s*\**\s*\$?\s*", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?<![\w.^{])([-+\u2212]?)\s?[$\u20ac\u00a3]?\s?([-\u2212]?)((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)"
    r"(?:[eE]([-+]?\d{1,3}))?(?:\s?/\s?(\d+))?(?![\w^]*[\^({])"
)
_FRACTION = re.compile(r"([-\u2212]?)\s*\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_CHOICE = re.compile(r"[\s(*\[\"'`]*([A-Za-z])[\s)*\].:,\"'`]*")
_CHOICE_FIRST = re.compile(r"[\s(*\[\"'`]*([A-Z])\s*(?:[).:\]]|\*\*)")
_CHOICE_MARKED = re.compile(r"(?:answer|option|choice)(?:\s+is)?\s*:?\s*[(*\[\s]*([A-Z])(?![\w'])")
_EXPRESSION = re.compile(
    r"[\^_*\u221a\u2264\u2265<>]|\d\s*[-+]\s*\w|sqrt|\bpi\b|\d[a-z]\b|(?<!\w)[a-z]\s*[-+/]|\\(?!d?frac|tfrac|text|boxed|left|right)[a-z]"
)
_FENCE = re.compile(r"```(?:json|python)?\s*\n(.*?)```", re.DOTALL)
_BLOCK = re.compile(r"^[ \t]*```[^\n]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
_sorted_json = msgspec.json.Encoder(order="sorted")


def key_of(text: str | None, kind: AnswerType = "text", labels: Sequence[str] = ()) -> str:
    """Returns what a text says; empty where it says nothing. ``labels`` are the labels of ``label``."""
    if text is None or not text.strip():
        return ""
    if kind == "json":
        return json_value(text)
    if kind == "code":
        return "" if says_nothing(text) else code(text)
    if says_nothing(text):
        return ""
    if kind == "text":
        return normalise(text) or text.strip()
    if text.strip().casefold() in _VOID:
        return ""
    if kind == "number":
        return number(text)
    return choice(text) if kind == "choice" else label(text, labels)


def code(text: str) -> str:
    """Returns the code of an answer, its blocks one after the other, without what lies around and behind its lines."""
    blocks = _BLOCK.findall(text) if len(text) <= CODE_CHARS_MAX else []
    lines = [line.rstrip() for line in "\n".join(blocks or [text]).splitlines()]
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("#")) or text.strip()


def says_nothing(text: str) -> bool:
    """Whether a text is no answer: empty, a placeholder, or the words for not knowing."""
    return len(text) <= 2 * SHORT_CHARS and _NOTHING.fullmatch(" ".join(text.casefold().split())) is not None


def number(text: str) -> str:
    """Returns a number as a fraction in lowest terms, or as a whole number.

    In a long text: the number behind the last mark (``####``, ``\\boxed{``, ``answer``), else the last of its last
    line. In a short one: the number it holds with its unit; where it holds several, and no mark, it is text.
    """
    tail = text[-TAIL_CHARS:]
    marked = list(_MARKED.finditer(tail))
    if marked:
        found = _numbers(tail[marked[-1].end() :])
        if found:
            return found[0]
    if len(text) > SHORT_CHARS:
        found = _numbers(tail.rstrip().rsplit("\n", 1)[-1])
        return found[-1] if found else normalise(text)
    found = _numbers(text)
    if "=" in text and not re.search(r"[<>,;]", text):
        found = _numbers(text.rsplit("=", 1)[1])
    return found[0] if len(set(found)) == 1 and not _is_expression(text) else normalise(text)


def choice(text: str) -> str:
    """Returns the capital letter of an option: alone, at the start, or behind a mark; else the text."""
    alone = _CHOICE.fullmatch(text) if len(text) <= SHORT_CHARS else None
    if alone:
        return alone[1].upper()
    marked = _CHOICE_MARKED.findall(text[-TAIL_CHARS:])
    if marked:
        return marked[-1]
    first = _CHOICE_FIRST.match(text)
    return first[1] if first else normalise(text)


def label(text: str, labels: Sequence[str]) -> str:
    """Returns the label that a text names: the only one in it, or the only one behind its last mark; else the text."""
    known = {normalise(one): one for one in labels}
    whole = normalise(text)
    if whole in known:
        return whole
    tail = text[-TAIL_CHARS:]
    marked = list(_MARKED.finditer(tail))
    for part in (tail[marked[-1].end() :] if marked else "", tail):
        folded = f" {normalise(part)} "
        named = [one for one in known if re.search(rf"(?<!\w){re.escape(one)}(?!\w)", folded)]
        widest = [one for one in named if not any(one != other and one in other for other in named)]
        if len(widest) == 1:
            return widest[0]
    return whole


def json_value(text: str, is_valid: Callable[[Any], bool] | None = None) -> str:
    """Returns JSON, or a literal of Python, with sorted keys and without its white space.

    A text that is neither stands for itself, as a string would. What does not pass ``is_valid``, the schema's check,
    is no answer.
    """
    if len(text) > JSON_CHARS_MAX:
        return "" if is_valid is not None else normalise(text)
    fenced = _FENCE.search(text)
    body = (fenced[1] if fenced else text).strip().strip("`")
    try:
        value = _literal(body)
        if is_valid is not None and not is_valid(value):
            return ""
        return _sorted_json.encode(_plain(value)).decode()
    except (msgspec.MsgspecError, ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return "" if is_valid is not None else _sorted_json.encode(body).decode()


def is_json(text: str) -> bool:
    """Whether a text is a JSON object or list as a whole, fenced or not."""
    fenced = _FENCE.fullmatch(text.strip())
    body = (fenced[1] if fenced else text).strip()
    if len(body) > JSON_CHARS_MAX or body[:1] not in ("{", "["):
        return False
    try:
        return isinstance(msgspec.json.decode(body), dict | list)
    except (msgspec.DecodeError, RecursionError):
        return False


def kind_of(samples: Sequence[str], share: float = 0.9) -> AnswerType:
    """Returns the type that most right answers of a domain have (of structured ones: half); text where none is."""
    said = [text for text in samples if not says_nothing(text)]
    if not said:
        return "text"
    if sum(_CHOICE.fullmatch(text) is not None for text in said) >= share * len(said):
        return "choice"
    if sum(is_number(number(text)) for text in said) >= share * len(said):
        return "number"
    return "json" if 2 * sum(map(_is_structured, said)) >= len(said) else "text"


def is_number(key: str) -> bool:
    """Whether a key is one that :func:`number` makes of a number."""
    return re.fullmatch(r"-?\d+(?:/\d+)?", key) is not None


def _numbers(text: str) -> list[str]:
    fractions = [(match.start(), _ratio(match[1], match[2], match[3])) for match in _FRACTION.finditer(text)]
    rest = _FRACTION.sub(lambda match: " " * len(match[0]), text)
    plain = [
        (match.start(), _decimal(match[1] or match[2], match[3], match[4], match[5]))
        for match in _NUMBER.finditer(rest)
    ]
    return [key for _, key in sorted(fractions + plain) if key]


def _ratio(sign: str, above: str, below: str) -> str:
    if len(above) + len(below) > DIGITS_MAX or not int(below):
        return ""
    return str(Fraction(int(above), int(below)) * (-1 if sign else 1))


def _decimal(sign: str, digits: str, exponent: str | None, below: str | None) -> str:
    if len(digits) > DIGITS_MAX or len(below or "") > DIGITS_MAX or (below is not None and not int(below)):
        return ""
    power = int(exponent or 0)
    if abs(power) > DIGITS_MAX:
        return ""
    value = Fraction(digits.replace(",", "")) * Fraction(10) ** power / int(below or 1)
    return str(-value if sign in ("-", "\u2212") else value)


def _is_expression(text: str) -> bool:
    """Whether a text computes something: a root, a power, an operator between operands, a name."""
    return _EXPRESSION.search(text.replace("**", "").lower()) is not None


def _literal(body: str) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        if len(body) > LITERAL_CHARS_MAX:
            raise
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # what is no literal is often nearly one
        return ast.literal_eval(body)


def _is_structured(text: str) -> bool:
    try:
        return isinstance(_literal(text.strip()), dict | list | tuple | set | str)
    except (msgspec.DecodeError, ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return False


def _plain(value: Any) -> Any:
    """Makes equal values equal, and no others: what JSON does not have is marked by its type."""
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < FLOAT_EXACT_MAX else value
    if isinstance(value, dict):
        return {_name(name): _plain(one) for name, one in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [_plain(one) for one in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, tuple):
        return {"\0tuple": [_plain(one) for one in value]}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, set | frozenset):
        return {"\0set": sorted(_sorted_json.encode(_plain(one)).decode() for one in value)}  # pyright: ignore[reportUnknownVariableType]
    return value if isinstance(value, int) else {f"\0{type(value).__name__}": repr(value)}  # pyright: ignore[reportUnknownArgumentType]


def _name(name: Any) -> str:
    return name if isinstance(name, str) else f"\0{name!r}"
