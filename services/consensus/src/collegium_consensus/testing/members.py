"""Ended attempts of a task with tests: an answer counts from when it was tested, and in the order of that.

Whoever folds a plan then finds for every answer what its tests said, stored once, so that the verdict is the same
whoever comes to it and however slow the machine was. One rule: only where time is over an answer counts untested.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec
import structlog
from collegium_bus.direct import Stored
from collegium_bus.errors import GoneError
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Keyring, UnknownKeyError
from collegium_contracts.errors import UndecodableMessageError
from collegium_contracts.messages import AttemptAnswered, AttemptTested, TaskRef
from collegium_runtime.platform import Platform

from collegium_consensus.members import AGAIN_SECONDS, Event, Member, member_of

log = structlog.get_logger(__name__)

# No text is read as one of these.
PASSED = "\x00passed"
_FAILED = "\x00failed "


def told(events: Sequence[Event]) -> dict[int, AttemptTested]:
    """Returns what events say of tested answers, by attempt number."""
    found: dict[int, AttemptTested] = {}
    for event in events:
        if isinstance(event.message, AttemptTested):
            found.setdefault(event.message.attempt.number, event.message)
    return found


async def counted(
    platform: Platform,
    task: TaskRef,
    of: int,
    ends: Sequence[Member] = (),
    tested: Mapping[int, AttemptTested] | None = None,
    *,
    is_over: bool = False,
) -> tuple[list[Member], list[Member]]:
    """Returns what counts of the events that were handed over, and of all ended attempts, in the order of the stream.

    ``is_over``: untested answers count too. Raises as :func:`collegium_consensus.members.standing`.
    """
    tested = tested or {}
    of = max(of, *(member.number for member in ends), *tested, 1)
    subjects = {s.attempt_ended(task.tenant, task.id, number): number for number in range(1, of + 1)}
    results = {s.attempt_tested(task.tenant, task.id, number): number for number in range(1, of + 1)}
    own = {s.attempt_ended(task.tenant, task.id, member.number) for member in ends}
    own |= {s.attempt_tested(task.tenant, task.id, number) for number in tested}
    # A result stands after its end, so whoever was handed it finds both.
    own |= {s.attempt_ended(task.tenant, task.id, number) for number in tested}
    for again_seconds in (*AGAIN_SECONDS, None):
        found = await platform.direct.newest(s.EVENTS, [*subjects, *results])
        if own <= found.keys():
            members = [await member_of(platform, found[subject]) for subject in subjects if subject in found]
            said = {number: await _result(platform, found[one]) for one, number in results.items() if one in found}
            counting = [one for member in members if (one := _counting(member, said, is_over=is_over)) is not None]
            here = {member.number for member in ends} | tested.keys()
            counting.sort(key=lambda member: member.sequence)
            return [one for one in counting if one.number in here], counting
        if again_seconds is not None:
            await asyncio.sleep(again_seconds)
    raise GoneError(f"task {task.id}: what ended cannot be read back; its tenant may have been erased")


def _counting(member: Member, said: Mapping[int, tuple[AttemptTested, int]], *, is_over: bool) -> Member | None:
    message = member.message
    if not isinstance(message, AttemptAnswered) or message.attempt.judges:
        return member
    if member.number in said:
        result, sequence = said[member.number]
        return member._replace(sequence=sequence, tested=result)
    return member if is_over else None


async def _result(platform: Platform, stored: Stored) -> tuple[AttemptTested, int]:
    claim = stored.headers.get(s.H_CLAIM)
    message = codec.journey.decode(await platform.claims.get(claim) if claim else stored.payload)
    if not isinstance(message, AttemptTested):
        raise UndecodableMessageError(f"{type(message).__name__} on {stored.subject}, where only results may stand")
    return message, stored.sequence


def keys_of(members: Sequence[Member], keys: Mapping[int, str], keyring: Keyring) -> dict[int, str]:
    """Returns what tested answers say, by number: equal where they do the same, whatever their texts.

    ``keys`` are their texts', which stand for those that could not be run.
    """
    found = dict(keys)
    for member in members:
        result = member.tested
        if result is None or member.number not in keys:
            continue
        if result.state == "passed":
            found[member.number] = PASSED
        elif result.state == "failed":
            found[member.number] = f"{_FAILED}{result.note} {_behaviour(result, keyring)}"
    return found


def _behaviour(result: AttemptTested, keyring: Keyring) -> str:
    if result.behaviour is None:
        return ""
    try:
        return keyring.open(result.task.tenant, result.behaviour).hex()
    except (UnknownKeyError, msgspec.DecodeError, ValueError) as error:
        log.warning("what an answer did cannot be read", task=result.task.id, error=type(error).__name__)
        return f"unknown {result.attempt.number}"
