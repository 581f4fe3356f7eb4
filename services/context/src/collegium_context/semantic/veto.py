"""What two texts may not differ in, however alike they are: the lexical veto. Pure.

One rule: a veto is never outweighed. It is strict, because a question that is asked again costs a call, and a wrong
answer costs trust.
"""

from __future__ import annotations

from typing import Final, Literal

from collegium_context.semantic.words import STRICT_TURNS, Read, is_opposite_form, words_of

Veto = Literal["number", "negation", "direction", "date", "name", "order", "quoted", "code", "opposite", "context"]

# Pairs of common words that say the opposite, as stems (words.py); each is a difference and no rewording.
_OPPOSITES: Final = frozenset(
    frozenset(pair.split("/"))
    for pair in words_of("""
    open/clos open/shut includ/exclud allow/ban allow/forbid permit/prohibit legal/illegal increas/decreas rais/lower
    ris/fall add/remov add/delet creat/delet buy/sell lend/borrow accept/declin accept/reject approv/reject
    approv/deny grant/revok pass/fail win/los start/stop start/end begin/end enabl/disabl lock/unlock mut/unmut
    upgrad/downgrad upload/download import/export encrypt/decrypt push/pull send/receiv pros/con benefit/drawback
    advantag/disadvantag compulsory/optional mandatory/optional requir/optional public/privat busy/quiet hot/cold
    mild/spicy cheap/expensiv fast/slow long/short early/lat big/small larg/small hir/fir insert/remov paus/resum
    arriv/depart arrival/departur entry/exit left/right north/south east/west old/new adult/kid adult/child
    adult/children men/women male/femal boy/girl mother/father husband/wif buyer/seller landlord/tenant employer/employe
    member/nonmember inbound/outbound domestic/international deposit/withdraw credit/debit positiv/negativ true/fals
    success/failur input/output read/writ save/delet connect/disconnect install/uninstall subscrib/unsubscrib
    activat/deactivat
    archiv/unarchiv follow/unfollow eat/avoid safe/dangerou claim/pay weekday/weekend
    """)
)


def vetoes(a: Read, b: Read, *, in_order: bool = False) -> frozenset[Veto]:
    """Returns in what the texts differ that no rewording changes; empty where nothing speaks against them.

    With ``in_order`` what both say must come in the same order: what is offered first may be taken by its place.
    """
    found: set[Veto] = set()
    if (a.numbers != b.numbers) if in_order else (sorted(a.numbers) != sorted(b.numbers)):
        found.add("number")
    if (a.negations - b.negations) % 2:
        found.add("negation")
    if _turned(a, b):
        found.add("direction")
    if a.dates != b.dates:
        found.add("date")
    if a.names - b.stems or b.names - a.stems:
        found.add("name")
    if sorted(a.quoted) != sorted(b.quoted):
        found.add("quoted")
    if sorted(a.code) != sorted(b.code):
        found.add("code")
    found |= _of_content(a, b)
    if in_order and swapped(a, b):
        found.add("order")
    return frozenset(found)


def _of_content(a: Read, b: Read) -> set[Veto]:
    found: set[Veto] = set()
    only_a, only_b = a.stems - b.stems, b.stems - a.stems
    for left in only_a:
        for right in only_b:
            if frozenset((left, right)) in _OPPOSITES or is_opposite_form(left, right):
                found.add("opposite")
    if swapped(a, b) and a.linked != b.linked:
        found.add("order")
    return found


def _turned(a: Read, b: Read) -> bool:
    """Whether one says the other's opposite in a small word, or says one that the other must say too."""
    for about in {turn.partition(" ")[0] for turn in a.turns ^ b.turns}:
        left = {turn for turn in a.turns if turn.startswith(about + " ")}
        right = {turn for turn in b.turns if turn.startswith(about + " ")}
        if (left and right) or about in STRICT_TURNS:
            return True
    return False


def swapped(a: Read, b: Read) -> bool:
    """Whether what both name comes in another order."""
    common = a.stems & b.stems
    left = [word for word in dict.fromkeys(a.content) if word in common]
    right = [word for word in dict.fromkeys(b.content) if word in common]
    return left != right
