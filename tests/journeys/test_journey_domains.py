"""Domains that nobody named, found in what is asked on a running platform: given, kept, named, merged."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from collegium_testing import Behaviour, ModelSimulator, Rule, eventually

from tests.journeys.school import School, school_of

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

TENANT, STRANGER = "asker", "stranger"
# Of so many questions about one thing so many at least are of one domain.
ASKED, ALIKE_MIN = 10, 4
# A machine may be busy with other tests meanwhile.
LEARNING_SECONDS = 240
# Of each kind every way to ask goes with every thing: a hundred questions.
KINDS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "pet": (
        (
            "How often do I feed {}?", "What does {} like to eat?", "Who looks after {} in summer?",
            "How old does {} get?", "Why does {} sleep so long?", "May {} live in a small flat?", "How do I wash {}?",
            "Does {} need a vaccination?", "What do I do when {} is ill?", "Can {} stay alone for a day?",
            "Why does {} scratch so much?", "How much does {} cost a month?", "Is {} good with small children?",
            "How do I take {} to the vet?", "What toys does {} like?", "How warm does {} want it?",
            "Can I teach {} a trick?", "Where should {} sleep?", "How heavy may {} be?",
            "Does {} get on with others of its kind?",
        ),
        ("an old cat", "my puppy", "a parrot", "my rabbit", "the goldfish"),
    ),
    "flight": (
        (
            "How early do I board {}?", "May I take a dog on {}?", "Is breakfast served on {}?", "How late is {}?",
            "From which gate leaves {}?", "Can I change my seat on {}?", "How much luggage may I take on {}?",
            "Who is the pilot of {}?", "When lands {}?", "Is there a window seat left on {}?", "I missed {}",
            "Please cancel my seat on {}", "Is there wifi on {}?", "How long does {} take?", "Has {} been cancelled?",
            "Can I sit beside my son on {}?", "Who pays my hotel when {} is cancelled?", "May I carry water on {}?",
            "Is {} full?", "How do I check in for {}?",
        ),
        ("the flight to Lisbon", "my flight to Rome", "the plane to Madrid", "a flight to Paris", "my plane to Athens"),
    ),
    "bake": (
        (
            "How long do I bake {}?", "How much sugar goes into {}?", "Which flour is best for {}?",
            "Can I leave the eggs out of {}?", "At what heat do I bake {}?", "How do I keep {} moist?",
            "What icing suits {}?", "Why did {} not rise?", "May I freeze {}?", "How much butter does {} need?",
            "How many people does {} serve?", "Which tin do I take for {}?", "Can I make {} without milk?",
            "How do I know that {} is done?", "Why did {} burn below?", "What do I dust {} with?",
            "How long does {} keep?", "Can I put nuts into {}?", "Why is {} so dry?", "How do I slice {}?",
        ),
        ("sourdough bread", "an apple pie", "cinnamon rolls", "oat biscuits", "a chocolate cake"),
    ),
}  # fmt: skip


NUMBERS = itertools.count(100)


def anew(text: str) -> str:
    """A question as it was not asked before: what is asked word for word again is a crowd of its own."""
    return f"{next(NUMBERS)}. {text}"


def words_of(kind: str) -> set[str]:
    """The words that a kind is asked with."""
    return set(re.findall(r"\w+", " ".join(itertools.chain(*KINDS[kind])).lower()))


def questions(kind: str) -> list[str]:
    """A hundred questions of a kind, mixed, always in the same order; every fifth one is about the first thing."""
    ways, things = KINDS[kind]
    return [ways[(4 * at + row) % 20].format(things[at]) for row, at in itertools.product(range(20), range(5))]


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator) -> Iterator[School]:
    probes = {"shadow_share": 1, "budget_share": 1, "all_tenants": True, "account": "operator", "delay": "1s"}
    evolution = {"probes": probes, "auto_spawn_students": False}
    folder = tmp_path_factory.mktemp("domains")
    # Some dozens of answers in a domain are to be enough.
    routing = {"tolerance": 0.2}
    with school_of(folder, simulator, [TENANT, STRANGER], routing=routing, evolution=evolution) as school:
        # The small model knows of pets and of baking as much as its teacher, and of flights nothing.
        lost = [Rule(Behaviour(answer="no idea"), model="small", match=word) for word in ("flight", "plane")]
        simulator.script(*lost, Rule(Behaviour(answer="seven")))
        yield school


async def listed(school: School) -> dict[str, dict[str, Any]]:
    """The tenant's domains by id, as the owner of the platform lists them."""
    rows = json.loads(await school.cli("domain", "ls", "--tenant", TENANT, "--json"))
    return {row["id"]: row for row in rows}


async def told(school: School, tenant: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    """Asks and returns who answered each, and of which discovered domain it is, as ``task show`` says.

    One after the other: a question is looked at for a quarter of a second at most.
    """
    answers = await school.ask(tenant, map(anew, texts), at_once=1)
    shown = await school.cli("task", "show", *(answer["task_id"] for answer in answers), "--json")
    found = [re.search(r"domain (topic-\w+)", line) for line in shown.splitlines()]
    return [(answer["model"], one[1] if one is not None else "") for answer, one in zip(answers, found, strict=True)]


async def taught(school: School, texts: Sequence[str]) -> None:
    """Asks and says that every answer was right."""
    answers = await school.ask(TENANT, map(anew, texts))
    await school.judge(TENANT, answers, 1.0)


class Kind(NamedTuple):
    """A discovered domain that questions of one kind are given, and those of them that were asked."""

    domain: str
    texts: list[str]


async def test_domains_are_found_given_kept_named_and_merged(school: School) -> None:
    await school.cli("tenant", "set", TENANT, "--collect", "on")
    asked = {kind: questions(kind) for kind in KINDS}
    assert await told(school, TENANT, asked["pet"][:1]) == [("large", "")], "nothing was discovered yet"
    kinds = await _discovered(school, asked)
    await _routed(school, asked, kinds)
    await _kept(school, asked, kinds)
    await _called_and_merged(school, kinds)
    assert await told(school, STRANGER, kinds["pet"].texts[:1]) == [("large", "")], "a map is one tenant's"
    status, refused = await school.call("GET", f"/v1/admin/domains?tenant={TENANT}", tenant=STRANGER)
    assert status == 403, refused


async def _discovered(school: School, asked: dict[str, list[str]]) -> dict[str, Kind]:
    """Asks until domains are found; returns of each kind of question the domain that most of it are given.

    Questions are looked at once the tenant's policy wants it; a busy machine has no time for some.
    """
    rounds = itertools.count()

    async def found() -> dict[str, Kind]:
        at = next(rounds) % 2 * 40
        await taught(school, [text for texts in asked.values() for text in texts[at : at + 40]])
        await school.round()
        domains = await listed(school)
        assert domains, "not yet"
        return await _given(school, asked)

    kinds = await eventually(found, deadline_seconds=LEARNING_SECONDS)
    domains = await listed(school)
    assert all(re.fullmatch(r"topic-[0-9a-z]{8}", name) for name in domains)
    # Of a tenant whose questions are collected its own words name them.
    for kind, one in kinds.items():
        shown = domains[one.domain]
        assert shown["state"] == "live"
        assert set(shown["terms"]) <= words_of(kind), shown
        assert shown["name"] == ", ".join(shown["terms"])
    [shown] = json.loads(await school.cli("domain", "show", kinds["pet"].domain, "--json"))
    assert shown == domains[kinds["pet"].domain]
    return kinds


async def _given(school: School, asked: dict[str, list[str]]) -> dict[str, Kind]:
    """The domain that most questions about each kind's first thing are given; no two kinds share one."""
    firsts = {kind: texts[::5] for kind, texts in asked.items()}
    told_of = await told(school, TENANT, [text for texts in firsts.values() for text in texts[:ASKED]])
    names = [name for _, name in told_of]
    of = {kind: names[ASKED * at : ASKED * (at + 1)] for at, kind in enumerate(firsts)}
    most = {kind: Counter(filter(None, found)).most_common(1) for kind, found in of.items()}
    assert all(one and one[0][1] >= ALIKE_MIN for one in most.values()), of
    for kind, other in itertools.combinations(of, 2):
        assert not set(filter(None, of[kind])) & set(of[other]), of
    return {
        kind: Kind(name, [text for text, one in zip(firsts[kind], of[kind], strict=False) if one == name])
        for kind, [(name, _)] in most.items()
    }


async def _routed(school: School, asked: dict[str, list[str]], kinds: dict[str, Kind]) -> None:
    """By what shadows and words told of each discovered domain the cheaper model answers there, or does not."""
    firsts = [one.texts[0] for one in kinds.values()]
    by = {"pet": "small", "flight": "large", "bake": "small"}

    async def learned() -> bool:
        await taught(school, [text for texts in asked.values() for text in texts[::5]])
        await school.round()
        found = await told(school, TENANT, firsts)
        wanted = [(by[kind], one.domain) for kind, one in kinds.items()]
        assert found == wanted, await school.cli("policy", "show", TENANT)
        return True

    await eventually(learned, deadline_seconds=LEARNING_SECONDS, every_seconds=2)
    policy = await school.cli("policy", "show", TENANT)
    board = await school.cli("scoreboard", "--tenant", TENANT)
    assert all(one.domain in policy and one.domain in board for one in kinds.values())


async def _kept(school: School, asked: dict[str, list[str]], kinds: dict[str, Kind]) -> None:
    """Domains are looked for anew once a fifth as many questions were asked since, and are the same ones."""

    async def refitted() -> bool:
        await taught(school, [text for texts in asked.values() for text in texts])
        return any("domains in" in line for lines in (await school.round()).values() for line in lines)

    await eventually(refitted, deadline_seconds=LEARNING_SECONDS)
    domains = await listed(school)
    assert {domains[one.domain]["state"] for one in kinds.values()} == {"live"}

    async def same() -> bool:
        return [await _most_are_given(school, one) for one in kinds.values()] == [one.domain for one in kinds.values()]

    await eventually(same, deadline_seconds=LEARNING_SECONDS)


async def _most_are_given(school: School, kind: Kind) -> str:
    """The domain that most of five questions of a kind are given: a single one may lie between domains."""
    given = await told(school, TENANT, kind.texts[-5:])
    return Counter(name for _, name in given).most_common(1)[0][0]


async def _called_and_merged(school: School, kinds: dict[str, Kind]) -> None:
    """A name is shown; of a merged domain questions are given the other's id, until the merger is taken back."""
    pet, bake = kinds["pet"].domain, kinds["bake"].domain
    assert "pets at home" in await school.cli("domain", "rename", pet, "pets at home")
    assert "pets at home" in await school.cli("domain", "ls", "--tenant", TENANT)
    assert pet in await school.cli("domain", "merge", bake, pet)
    row = (await listed(school))[bake]
    assert (row["state"], row["into"]) == ("merged", pet)

    async def is_given(name: str) -> bool:
        return await _most_are_given(school, kinds["bake"]) == name

    await eventually(lambda: is_given(pet), deadline_seconds=LEARNING_SECONDS)
    await school.cli("domain", "merge", bake)
    await eventually(lambda: is_given(bake), deadline_seconds=LEARNING_SECONDS)
