"""Ended attempts in; requests for more of them, or one settled message, out.

Each ended attempt has one move (course.py), which follows from it and from what ended before it, and whoever is handed
the event makes it: asks for the next attempts (asking.py), settles create-once, or leaves it to an event that will
come. Nothing is remembered between events but when to look after a plan whose time is over (overdue.py), and whoever
forgets that is a little late. One rule: an event is acknowledged only after its move was made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog
from collegium_bus.errors import BrokerUnavailableError, BusError, GoneError, QueueFullError
from collegium_bus.settle import settle, standing_failure
from collegium_contracts import subjects as s
from collegium_contracts.content import Answer
from collegium_contracts.envelope import UnknownKeyError, held
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import (
    AttemptAnswered,
    AttemptEnded,
    AttemptFailed,
    AttemptRef,
    AttemptTested,
    SettledMessage,
    TaskCompleted,
    TaskFailed,
    TaskRef,
)
from collegium_contracts.plans import JUDGE_ATTEMPTS, SEVERAL
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform
from collegium_runtime.spans import about, received
from collegium_telemetry import names
from collegium_telemetry.hop import Hop

from collegium_consensus.asking import Asking, text_of
from collegium_consensus.course import Ask, Late, Move, Seen, Settle, Terms, Wait, close, follow, resume
from collegium_consensus.inputs import begun, input_of
from collegium_consensus.members import Event, Member, known, opened, seen, standing
from collegium_consensus.overdue import Overdue
from collegium_consensus.people.asking import questions_of
from collegium_consensus.people.pausing import Pausing
from collegium_consensus.policies import Policies
from collegium_consensus.probing import Probing
from collegium_consensus.reading import Reading, Wanted
from collegium_consensus.telemetry import DESTINATION, SPAN_DECIDE
from collegium_consensus.testing.members import counted, keys_of, told
from collegium_consensus.verdict import decide

log = structlog.get_logger(__name__)

# Tasks of one batch that are decided at the same time: each reads a few messages, so this many fill a round trip.
CONCURRENT_TASKS = 32


class Verdicts:
    """Carries on cascades and panels, and settles them."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._asking = Asking(platform)
        self._reading = Reading(platform)
        self._probing = Probing(platform, self._reading)
        self.policies = Policies(platform)
        # Unique to this process, so that a lost acknowledgement can be told from another replica's settlement.
        self._settler = f"consensus.{platform.connection.instance}"
        self._slots = asyncio.Semaphore(CONCURRENT_TASKS)
        self._pausing = Pausing(platform, self._settler)
        self.overdue = Overdue(platform.now_ms, self._close)

    async def handle(self, batch: Sequence[Event]) -> None:
        """Makes the move of every event; raises what the broker raised, to be handed the batch again."""
        by_task: dict[str, list[Event]] = {}
        for event in batch:
            by_task.setdefault(_task_of(event), []).append(event)
        results = await asyncio.gather(*map(self._task, by_task.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _task(self, events: Sequence[Event]) -> None:
        async with self._slots:
            try:
                await self._judge(events)
            except BusError:
                raise
            except GoneError as error:
                log.warning("plan is left alone", error=str(error))
            except ContractError as error:
                await self._bury(events, error.code, str(error))
            except Exception as error:  # one task that cannot be judged must not stop the verdicts of all others
                log.error("plan cannot be judged", task=_task_of(events[0]), exc_info=error)
                await self._bury(events, "handler_failed", type(error).__name__)

    async def _judge(self, events: Sequence[Event]) -> None:
        here, tested = known(events), told(events)
        message = here[0].message if here else next(iter(tested.values()), None)
        if message is None or not _is_settled_here(message):
            return
        wanted = await self._reading.wanted(message.task)
        of = _attempts(message.attempt, wanted)
        if message.task.tests:
            here, members = await counted(self._platform, message.task, of, here, tested)
            if not here:
                # Answers are being tested; the word of that is an event of its own.
                self.overdue.watch(message.task, message.attempt)
                return
        else:
            members = await standing(self._platform, message.task, of, here)
        settled = await self._moves(here, members, wanted)
        if isinstance(settled, TaskFailed):
            kept = await input_of(self._platform, settled.task)
            await self._platform.dead_letters.keep_failed(settled, kept or events[0].delivery)

    async def _moves(self, here: Sequence[Member], members: Sequence[Member], wanted: Wanted) -> SettledMessage | None:
        """Makes the move of each end that was handed over; returns the terminal message where it stands by now."""
        message = here[0].message
        answers = await self._opened(members)
        terms = self._terms(message.task, message.attempt, wanted)
        ends = seen(members, await self._keys(message.task, terms, wanted, answers, members))
        for member in here:
            until = members.index(member) + 1
            move = await self._move(ends[:until], terms, message.task)
            if isinstance(move, Ask):
                move = await self._ask(move, members[:until], members[until:], terms, ends[:until], answers)
            if isinstance(move, Settle):
                self.overdue.forget(member.message.task.id)
                settled = await self._settle(move, members[:until], answers)
                if message.task.probe is not None:
                    await self._probing.compare(members[:until], answers)
                return settled
            if isinstance(move, Late):
                log.info("attempt ended after its verdict", task=member.message.task.id, attempt=member.number)
            else:
                self.overdue.watch(member.message.task, member.message.attempt)
        return None

    async def _move(self, ends: Sequence[Seen], terms: Terms, task: TaskRef) -> Move:
        """Returns the move of the last of these ends.

        What was learned, or whether context could be asked, may have changed since an earlier one: then what is thought
        to be settled may not be, and the plan is judged as it stands.
        """
        move = follow(ends, terms)
        if isinstance(move, Late) and not await self._is_settled(task):
            log.info("plan judged again", task=task.id)
            return resume(ends, terms)
        if isinstance(move, Ask) and await self._is_settled(task):
            return Late()
        return move

    async def _is_settled(self, task: TaskRef) -> bool:
        """Whether a plan's verdict stands: as its task's end, or as what people are asked about."""
        last = self._platform.direct.last
        if await last(s.EVENTS, s.task_settled(task.tenant, task.id)) is not None:
            return True
        paused = s.task_paused(task.tenant, task.id, "answer")
        return task.people is not None and await last(s.EVENTS, paused) is not None

    async def _ask(
        self,
        ask: Ask,
        members: Sequence[Member],
        later: Sequence[Member],
        terms: Terms,
        ends: Sequence[Seen],
        answers: Mapping[int, Answer],
    ) -> Wait | Settle:
        """Asks for more attempts; settles with what there is where nobody can be asked."""
        task = members[-1].message.task
        if {member.number for member in later} >= set(ask.numbers):
            # The event comes again, and what it asked for has ended meanwhile.
            return Wait()
        beginning = await begun(self._platform, task)
        if beginning is None:
            log.error("what a plan began with is gone", task=task.id)
            return Settle("exhausted", ask.judgement)
        asked = [member.message.attempt.model for member in members]
        with self._hop(members) as hop:
            try:
                judging = await self._asking.judging(beginning[0], ask, terms, ends, answers)
                await self._asking.ask(task, beginning[0], ask, terms, asked, hop.traceparent, judging)
            except UnknownKeyError as error:
                log.warning("judges cannot be shown the question", task=task.id, error=str(error))
                return Settle("decided", ask.judgement)
            except QueueFullError as error:
                log.warning("no place for another attempt", task=task.id, error=str(error))
                return Settle("exhausted", ask.judgement)
        return Wait()

    async def _settle(
        self, move: Settle, members: Sequence[Member], answers: dict[int, Answer]
    ) -> SettledMessage | None:
        """Settles the task; returns its terminal message where this one stands, or where it stands as failed."""
        messages = [member.message for member in members]
        task = messages[0].task
        with self._hop(members) as hop:
            settled = decide(messages, answers, move, self._platform.now_ms())
            if hop.sampled:
                hop.describe(about(settled))
            if isinstance(settled, TaskCompleted) and (asked := questions_of(settled, messages)):
                await self._pausing.pause(settled, asked, hop.traceparent)
                return None
            failpoint("consensus.before-settle")
            stored = await settle(self._platform.publisher, settled, settler=self._settler, traceparent=hop.traceparent)
            failpoint("consensus.after-settle")
        if stored:
            return settled
        return await standing_failure(self._platform.direct, task) if isinstance(settled, TaskFailed) else None

    def _hop(self, members: Sequence[Member]) -> Hop:
        """Begins the hop of a step that is made of several ends: below the last, linked with the others."""
        last, links = members[-1], [member.traceparent for member in members[:-1]]
        hop = self._platform.tracing.hop(SPAN_DECIDE, "consumer", last.traceparent, links=links)
        if hop.sampled:
            # Ends of several ranks may lead to it.
            said = received(DESTINATION) | about(last.message) | {names.RANK: None}
            hop.describe(said | {names.MESSAGING_BATCH_COUNT: len(members) if links else None})
        return hop

    async def _close(self, task: TaskRef, attempt: AttemptRef) -> None:
        """Settles a plan whose time is over with what had been answered, whoever is still out."""
        if await self._is_settled(task):
            return
        wanted = await self._reading.wanted(task)
        of = _attempts(attempt, wanted)
        if task.tests:
            _, members = await counted(self._platform, task, of, is_over=True)
        else:
            members = await standing(self._platform, task, of)
        if not members:
            return
        answers, terms = await self._opened(members), self._terms(task, attempt, wanted)
        move = close(seen(members, await self._keys(task, terms, wanted, answers, members)), terms)
        if move.judgement is not None:
            await self._settle(move, members, answers)

    async def _opened(self, members: Sequence[Member]) -> dict[int, Answer]:
        sealed = [member.message.answer for member in members if isinstance(member.message, AttemptAnswered)]
        sealed += [one.tested.behaviour for one in members if one.tested is not None and one.tested.behaviour]
        await held(self._platform.keyring, members[0].message.task.tenant, *sealed)
        return opened(members, self._platform.keyring)

    async def _keys(
        self, task: TaskRef, terms: Terms, wanted: Wanted, answers: Mapping[int, Answer], members: Sequence[Member]
    ) -> dict[int, str]:
        """Returns what members say, in a form that equal answers share, and what judges say, as it stands."""
        theirs = {number: answer for number, answer in answers.items() if number <= terms.of}
        judges = {number: text_of(answer) for number, answer in answers.items() if number > terms.of}
        keys = await self._reading.keys(task, wanted.shape, theirs)
        return (keys_of(members, keys, self._platform.keyring) if task.tests else keys) | judges

    def _terms(self, task: TaskRef, attempt: AttemptRef, wanted: Wanted) -> Terms:
        learned, version = self.policies.of(task.tenant)
        proven = learned.threshold(task.domain) if learned is not None else None
        stated = self._platform.settings.routing.cascade_confidence if proven is None else proven
        return Terms(
            attempt.plan,
            attempt.of,
            task.deadline_ms,
            task.domain,
            task.quality_min or stated,
            wanted.shape.kind,
            len(wanted.shape.labels),
            learned,
            version,
            wanted.judge,
            task.tests,
        )

    async def _bury(self, events: Sequence[Event], cause: str, detail: str) -> None:
        for event in events:
            if not await self._platform.dead_letters.bury(event.delivery, cause, detail):
                raise BrokerUnavailableError(f"event {event.sequence} can neither be judged nor dead-lettered now")


def _attempts(attempt: AttemptRef, wanted: Wanted) -> int:
    """Returns how many attempts a plan may have, its judges included."""
    return attempt.of + (JUDGE_ATTEMPTS if wanted.judge is not None else 0)


def _task_of(event: Event) -> str:
    message = event.message
    # Anything else is buried by itself, under a name that no task has.
    is_known = isinstance(message, AttemptAnswered | AttemptFailed | AttemptTested)
    return message.task.id if is_known else f"event {event.sequence}"


def _is_settled_here(message: AttemptEnded | AttemptTested) -> bool:
    return message.attempt.plan in SEVERAL or message.task.people is not None or message.task.tests > 0
