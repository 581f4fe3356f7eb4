"""Whom a task asks, from what its request and the operator's rules say, pinned before it is stored. Pure.

One rule: rules of the operator are added to what a request asks for, and a request can take none of them away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from collegium_contracts.gates import GateRule
from collegium_contracts.messages import TaskSubmitted
from collegium_contracts.people import EXPIRES_MS_MAX, QUESTIONS_MAX, People, Question, QuestionKind, Whom, numbered
from collegium_settings.people import CLIENT, PeopleRuleSettings, PeopleSettings, price_picos

from collegium_gateway.admission.requests import Options
from collegium_gateway.errors import ApiError

EXPIRES_SECONDS_MIN = 1.0


def with_people(submitted: TaskSubmitted, options: Options, settings: PeopleSettings) -> TaskSubmitted:
    """Returns a task with whom it asks; raises ApiError ``unknown_queue`` or ``invalid_value``."""
    task = submitted.task
    rules = [one for one in settings.rules if _concerns(one, task.tenant, task.domain)]
    if not rules and options.approval is None and options.ask_below is None and options.ask is None:
        return submitted
    asks = _Asks(settings, options, task.tenant, task.domain)
    approval = options.approval
    before = [asks.question(name, "approval") for name in (approval.names("before") if approval is not None else ())]
    after = [asks.question(name, "approval") for name in (approval.names("after") if approval is not None else ())]
    before += [asks.question(one.ask, "approval", is_rule=True) for one in rules if one.when == "before"]
    after += [asks.question(one.ask, "approval", is_rule=True) for one in rules if one.when == "after"]
    unsure, below = _unsure(options, [one for one in rules if one.when == "unsure"], asks)
    people = People(
        before=numbered("request", _once(before)),
        after=_once(after),
        unsure=unsure,
        below=below,
        expires_ms=_expires_ms(options, settings),
    )
    return msgspec.structs.replace(submitted, task=msgspec.structs.replace(task, people=people))


def with_rules(
    submitted: TaskSubmitted, rules: Iterable[GateRule], settings: PeopleSettings, options: Options
) -> TaskSubmitted:
    """Returns a task with whom the gates of its answer ask."""
    task = submitted.task
    asks = _Asks(settings, options, task.tenant, task.domain)
    found = {rule.name: asks.question(rule.ask, "approval", rule=rule.name) for rule in rules}
    if not found:
        return submitted
    people = task.people or People(expires_ms=_expires_ms(options, settings))
    people = msgspec.structs.replace(people, rules=found)
    return msgspec.structs.replace(submitted, task=msgspec.structs.replace(task, people=people))


def asked_by_gates(submitted: TaskSubmitted, rules: Sequence[GateRule], settings: PeopleSettings) -> TaskSubmitted:
    """Returns a task that waits for an approval besides, because rules found something in its request."""
    task = submitted.task
    people = task.people or People(expires_ms=settings.expires_seconds * 1000)
    asks = _Asks(settings, Options(), task.tenant, task.domain)
    asked = [asks.question(rule.ask, "approval", rule=rule.name) for rule in rules]
    before = numbered("request", [*asked, *people.before][:QUESTIONS_MAX])
    people = msgspec.structs.replace(people, before=before)
    return msgspec.structs.replace(submitted, task=msgspec.structs.replace(task, people=people))


def asks_first(submitted: TaskSubmitted) -> bool:
    """Whether people are asked before a task begins."""
    people = submitted.task.people
    return people is not None and bool(people.before)


class _Asks:
    """Makes questions for one task."""

    def __init__(self, settings: PeopleSettings, options: Options, tenant: str, domain: str) -> None:
        self._settings = settings
        self._options = options
        self._tenant = tenant
        self._domain = domain

    def question(self, name: str, kind: QuestionKind, *, rule: str = "", is_rule: bool = False) -> Question:
        """Returns a question to the client or a queue; one of the operator's rules may name any queue."""
        reason = "gate" if rule else "unsure" if kind == "answer" else "requested"
        on_expiry = self._options.on_expiry or self._settings.on_expiry or ("best" if kind == "answer" else "fail")
        labels = [self._domain] if self._domain else []
        if name == CLIENT:
            return Question(id="", kind=kind, reason=reason, rule=rule, labels=labels, on_expiry=on_expiry)
        queue = self._settings.queues.get(name)
        is_open = queue is not None and (not queue.tenants or self._tenant in queue.tenants)
        if queue is None or not (is_open or is_rule or rule):
            raise ApiError("unknown_queue", f"there is no queue {name[:64]!r} that this tenant may ask", param="ask")
        whom: Whom = "tenant" if queue.staff == "tenant" else "operator"
        return Question(
            id="",
            kind=kind,
            of=whom,
            queue=name,
            reason=reason,
            rule=rule,
            labels=[*queue.labels, *labels],
            price_picos=price_picos(queue) if kind == "answer" else 0,
            on_expiry=on_expiry,
        )


def _unsure(options: Options, rules: Sequence[PeopleRuleSettings], asks: _Asks) -> tuple[Question | None, float]:
    wanted = options.ask_below
    if wanted is not None and not 0 < wanted <= 1:
        raise ApiError("invalid_value", "ask_below must be above 0 and at most 1", param="ask_below")
    below = max([wanted or 0.0, *(one.below or 0.0 for one in rules)])
    if rules:
        return asks.question(rules[0].ask, "answer", is_rule=True), below
    if wanted is None and options.ask is None:
        return None, 0.0
    return asks.question(options.ask or CLIENT, "answer"), below


def _expires_ms(options: Options, settings: PeopleSettings) -> int:
    seconds = options.input_expires_seconds
    if seconds is None:
        return settings.expires_seconds * 1000
    if not EXPIRES_SECONDS_MIN <= seconds <= EXPIRES_MS_MAX / 1000:
        text = f"input_expires_seconds must be between {EXPIRES_SECONDS_MIN:g} and {EXPIRES_MS_MAX // 1000}"
        raise ApiError("invalid_value", text, param="input_expires_seconds")
    return int(seconds * 1000)


def _once(questions: Iterable[Question]) -> list[Question]:
    """Returns each question once: nobody is asked the same twice."""
    found: dict[tuple[str, str], Question] = {}
    for one in questions:
        found.setdefault((one.of, one.queue), one)
    return list(found.values())[:QUESTIONS_MAX]


def _concerns(rule: PeopleRuleSettings, tenant: str, domain: str) -> bool:
    return (not rule.tenants or tenant in rule.tenants) and (not rule.domains or domain in rule.domains)
