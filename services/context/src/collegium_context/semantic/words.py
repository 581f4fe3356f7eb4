"""What a text says, as far as it can be told without understanding it: content words, numbers, names, negations. Pure.

English is known best; of another language every word counts as content, so that fewer texts look alike. One rule: what
is read is only compared with what was read in the same way, and never shown.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final, NamedTuple


def words_of(text: str) -> list[str]:
    """Reads a list of words that are written one after the other."""
    return text.split()


# Words that carry no content of their own: who asks, how politely, and the shape of the question.
_EMPTY: Final = frozenset(
    words_of("""
    a an the this that these those there here it its it's i i'm i've i'd i'll me we we're we'd we've us you you're
    you'd your yours our am is are was were be been being do does did done doing have has had having having can could
    will would shall should may might must ought of to for at by as with and or so then if than that's what's who's
    how's when's where's what which who whom whose how when where why whether please pls thanks thank cheers hi hiya
    hello hey dear sorry um uh er hmm well okay ok yeah yes just quick quickly question wondering wonder like kind sort
    actually really basically maybe perhaps possible possibly able way any some anything something someone somebody
    anyone tell know let see want wants wanted wish need needs needed help get gets getting got obtain receive go goes
    going find show give bother silly many much lot advance in on into onto about also too very let's theyre they them
    their he she his her him exactly usually currently mind anyway btw lol kindly my mine from but one ones single
    through ahead onto among there's been make makes making made come comes came take takes taking took thing things
    case way ways step steps available entitled via
    """)
)
# Small words that turn a sentence round, by what they are about; texts that say other things about it differ.
_TURNS: Final = {
    "over": "amount above", "above": "amount above", "under": "amount below", "below": "amount below",
    "less": "amount below", "fewer": "amount below", "greater": "amount above", "higher": "amount above",
    "lower": "amount below", "minimum": "extreme below", "min": "extreme below", "maximum": "extreme above",
    "max": "extreme above", "least": "extreme below", "before": "time before", "after": "time after",
    "until": "time until", "since": "time since", "within": "time within", "during": "time within",
    "except": "set except", "excluding": "set except", "only": "set only", "off": "switch off", "on": "switch on",
    "out": "way out", "in": "way in", "into": "way in", "up": "height up", "down": "height down",
    "first": "rank first", "second": "rank second", "third": "rank third", "fourth": "rank fourth",
    "last": "rank last", "next": "rank next", "previous": "rank last", "former": "rank former",
    "latter": "rank latter", "am": "clock am", "pm": "clock pm", "inside": "side in", "outside": "side out",
    "best": "worth best", "worst": "worth worst", "same": "kind same", "different": "kind different",
    "true": "truth true", "false": "truth false", "left": "hand left", "right": "hand right",
}  # fmt: skip
# Where one text says one of these and the other nothing of the kind, they differ as well.
STRICT_TURNS: Final = frozenset({"amount", "extreme", "set", "rank", "worth"})
# What goes before one of these has another part than what goes behind it.
_LINKS: Final = frozenset({"from", "to", "into", "onto", "than", "versus", "vs", "over", "against", "by", "between"})
_NEGATIONS: Final = frozenset(
    words_of("""
    not no non never none nothing nobody neither nor cannot cant can't dont don't doesnt doesn't didnt didn't wont
    won't isnt isn't arent aren't wasnt wasn't werent weren't shouldnt shouldn't couldnt couldn't wouldnt wouldn't hasnt
    hasn't havent haven't hadnt hadn't mustnt mustn't needn't ain't without unable hardly
    """)
)
_NUMBER_WORDS: Final = {
    word: str(value)
    for value, word in enumerate(
        words_of("zero - two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen twenty")
    )
} | {
    "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80", "ninety": "90",
    "hundred": "100", "thousand": "1000", "million": "1000000", "billion": "1000000000", "half": "0.5",
    "quarter": "0.25", "dozen": "12", "twice": "2", "double": "2",
}  # fmt: skip
_DATES: Final = {
    word: word[:3]
    for word in words_of("""
    january february march april june july august september october november december monday tuesday wednesday
    thursday friday saturday sunday jan feb apr jun jul aug sept oct nov dec tue tues thu thur thurs fri
    """)
} | {
    word: word
    for word in words_of("""
    today tomorrow tonight yesterday morning afternoon evening night noon midnight weekday weekdays weekend weekends
    spring summer autumn winter easter christmas
    """)
}
# Common words for the same, as stems; the first stands for all.
_SAME: Final = {
    stem: group.split("/")[0]
    for group in words_of("""
    kid/child/children cost/pric/fee buy/purchas fast/quick fastest/quickest start/begin shop/stor repair/fix
    chang/updat/modify/edit/alter submit/fil clos/shut show/display delet/eras photo/pictur/imag film/movi big/larg
    small/littl car/vehicl holiday/vacation phon/telephon/mobil job/work luggag/baggag call/ring ask/request/inquir
    deliver/ship delivery/shipment creat/set document/paperwork doctor/physician cancel/terminat error/mistak
    answer/reply/respond sick/ill build/construct choos/select/pick connect/link vaccin/jab
    """)
    for stem in group.split("/")
}
_PREFIXES: Final = ("un", "non", "in", "im", "ir", "il", "dis", "de", "anti", "mis", "re")

_WORD: Final = re.compile(r"[^\W_]+(?:['’.+#][^\W_]+)*[+#]*", re.UNICODE)
_NUMBER: Final = re.compile(r"\d+(?:[.,:/]\d+)*")
_QUOTED: Final = re.compile(r"\"([^\"]{1,400})\"|“([^”]{1,400})”|`([^`]{1,400})`|(?<!\w)'([^']{2,400})'(?!\w)")
_CODE: Final = re.compile(
    r"\b\w+(?:_\w+)+\b|\b[a-z]+(?:[A-Z][a-z0-9]+)+\b|\b\w+(?:\.\w+)+\(|\b\w+\(\)|(?:[\w.~-]*/){2,}[\w.-]+"
    r"|\b\w+@[\w.]+\b|(?<!\S)--?[a-z][\w-]+(?=\s|$)|\b(?=\w*\d)(?=\w*[A-Za-z])\w{5,}\b|==|!=|<=|>=|->|=>"
)
_SENTENCE_END: Final = '.!?:;\n"“('


class Read(NamedTuple):
    """What was read of one text; everything in lower case but ``code`` and ``quoted``."""

    content: tuple[str, ...]
    stems: frozenset[str]
    numbers: tuple[str, ...]
    negations: int
    turns: frozenset[str]
    linked: frozenset[tuple[str, str]]
    dates: frozenset[str]
    names: frozenset[str]
    quoted: tuple[str, ...]
    code: tuple[str, ...]
    grams: frozenset[str]
    words: int
    questions: frozenset[str]


_ASKING: Final = {"who": "who", "whom": "who", "where": "where", "when": "when", "why": "why", "how": "how"}
_AMOUNT: Final = frozenset({"much", "many", "long", "often", "far", "old"})


@lru_cache(maxsize=8192)
def read(text: str) -> Read:
    """Reads a text; takes time in proportion to its length."""
    plain = unicodedata.normalize("NFKC", text).replace("’", "'")
    quoted = tuple(next(part for part in found if part) for found in _QUOTED.findall(plain))
    code = tuple(_CODE.findall(plain))
    content: list[str] = []
    numbers: list[str] = []
    turns: set[str] = set()
    linked: set[tuple[str, str]] = set()
    link = ""
    dates: set[str] = set()
    names: set[str] = set()
    asking: set[str] = set()
    negations = words = 0
    before = ""
    for match in _WORD.finditer(plain):
        raw = match.group()
        word = raw.lower()
        words += 1
        if word in _LINKS:
            link = word
        _mark_asking(word, before, asking)
        before = word
        if word in _NEGATIONS or word.endswith("n't"):
            negations += 1
            if word != "without":
                continue
        digits = _NUMBER.findall(word)
        if digits:
            numbers.extend(digit.replace(",", "") for digit in digits)
            # `7am` is no `7pm`.
            numbers.extend(filter(None, re.split(r"[^a-z]+", _NUMBER.sub(" ", word))))
        elif word in _NUMBER_WORDS:
            numbers.append(_NUMBER_WORDS[word])
        elif word in _DATES:
            dates.add(_DATES[word])
        elif word in _TURNS and word not in code:
            turns.add(_TURNS[word])
        elif word not in _EMPTY:
            stem = stem_of(word)
            stem = _SAME.get(stem, stem)
            content.append(stem)
            if link:
                linked.add((link, stem))
                link = ""
            if raw[:1].isupper() and not _begins_sentence(plain, match.start()):
                names.add(stem)
            if len(raw) > 1 and raw.isupper():
                names.add(stem)
    squeezed = " ".join(content)
    grams = frozenset(squeezed[i : i + 3] for i in range(max(1, len(squeezed) - 2)))
    return Read(
        tuple(content), frozenset(content), tuple(numbers), negations, frozenset(turns),
        frozenset(linked), frozenset(dates),
        frozenset(names), quoted, code, grams, words, frozenset(asking),
    )  # fmt: skip


def _mark_asking(word: str, before: str, asking: set[str]) -> None:
    if before == "how" and word in _AMOUNT:
        asking.discard("how")
        asking.add(f"how {word}")
    elif (kind := _ASKING.get(word)) is not None:
        asking.add(kind)


def _begins_sentence(text: str, at: int) -> bool:
    before = text[:at].rstrip(" \t")
    return not before or before[-1] in _SENTENCE_END


def stem_of(word: str) -> str:
    """Returns a word without the endings of number and tense; crude, and the same for both texts."""
    word = word.removesuffix("'s").replace("'", "").replace("-", "")
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("ing", ""), ("ed", ""), ("es", ""), ("s", ""), ("ly", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not (ending == "s" and word.endswith("ss")):
            word = word[: len(word) - len(ending)] + instead
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word


def is_slip(a: str, b: str) -> bool:
    """Whether one word is the other mistyped: a letter left out, doubled or put in, or two letters changed places."""
    short, long = sorted((a, b), key=len)
    if len(long) < 5 or short[:1] != long[:1]:
        return False
    at = next((i for i, (mine, its) in enumerate(zip(short, long, strict=False)) if mine != its), len(short))
    if len(short) == len(long):
        return short[at:] == long[at : at + 2][::-1] + long[at + 2 :]
    return len(long) == len(short) + 1 and short[at:] == long[at + 1 :]


def is_opposite_form(a: str, b: str) -> bool:
    """Whether one word is the other with a prefix that turns it round (`transferable`, `nontransferable`)."""
    short, long = sorted((a, b), key=len)
    return len(short) >= 3 and any(long == prefix + short for prefix in _PREFIXES)
