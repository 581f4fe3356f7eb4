"""The process that evaluates heavy rules: questions in by its standard input, findings out by its standard output.

Frames are msgpack. To a question it answers first that it has begun, which may take seconds
where a library has to be loaded, and then once for each rule. It takes one question at a time, so that whoever waits
too long knows which rule it is and ends the process. One rule: it ends with its parent, at the end of its input.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import BinaryIO, Final

import msgspec
from collegium_children.frames import answers, bodies, put
from collegium_contracts.gates import GateRule

from collegium_gates.errors import GateError
from collegium_gates.evaluating import evaluate, prepare
from collegium_gates.finding import Findings, Reading, readings
from collegium_gates.units import Unit

BEGUN: Final = -1
# Later than its parent would have ended it.
ALARM_TIMES: Final = 5
ALARM_CHARACTERS: Final = 25_000


class Question(msgspec.Struct, frozen=True):
    """Rules to be evaluated, in order, on units."""

    number: int
    rules: list[GateRule]
    units: list[Unit]


class Answer(msgspec.Struct, frozen=True):
    """What the rule at ``index`` found, or why it could not be evaluated; BEGUN: what was asked is being evaluated."""

    number: int
    index: int
    findings: Findings | None = None
    failure: str = ""


encode_question = msgspec.msgpack.Encoder().encode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Question).decode


def main() -> None:
    """Serves until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = answers()
    for body in bodies(sys.stdin.buffer):
        try:
            question = _decode(body)
        except msgspec.DecodeError:
            break
        _answer(question, out)
    os._exit(0)


def _answer(question: Question, out: BinaryIO) -> None:
    unusable = [_failure(rule) for rule in question.rules]
    _write(out, Answer(question.number, BEGUN))
    read = readings(question.units)
    characters = sum(len(unit.text) for unit in question.units)
    for index, rule in enumerate(question.rules):
        if failure := unusable[index]:
            _write(out, Answer(question.number, index, failure=failure))
        else:
            # A parent that was killed cannot end a rule that hangs: then the alarm does, whose default is to.
            signal.setitimer(
                signal.ITIMER_REAL, ALARM_TIMES * (rule.timeout_ms / 1000) * (1 + characters / ALARM_CHARACTERS)
            )
            _write(out, _evaluated(question, index, rule, read))
            signal.setitimer(signal.ITIMER_REAL, 0)


def _failure(rule: GateRule) -> str:
    try:
        prepare(rule)
    except GateError as error:
        return str(error)
    return ""


def _evaluated(question: Question, index: int, rule: GateRule, read: list[Reading]) -> Answer:
    try:
        return Answer(question.number, index, evaluate(rule, read))
    except GateError as error:
        return Answer(question.number, index, failure=str(error))
    except Exception as error:  # a library's own: told to the parent, which says so
        return Answer(question.number, index, failure=f"it threw {type(error).__name__}")


def _write(out: BinaryIO, answer: Answer) -> None:
    put(out, _encode(answer))


if __name__ == "__main__":
    main()
