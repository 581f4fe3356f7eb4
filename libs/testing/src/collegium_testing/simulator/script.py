"""How a simulated model behaves: recorded answers, and rules that make it slow, wrong or broken.

Here: `Behaviour`, `Rule`, `Recording`, their JSON Lines form, and `Script`, which picks what applies to a call.
Not here: sockets, or the text of an answer to an unknown prompt (answers.py).
The one rule: one behaviour per call. A behaviour written into the prompt wins, then the first rule that
matches and has times left, then the simulator's default.

A file holds one JSON object per line: `{"input": …, "answers": {model: text}, "usage": {…}}` is a recording,
`{"behaviour": …, "model": …, "match": …, "times": …, "told": …}` a rule. In a prompt, `[[sim:hang]]` or
`[[sim:{"status": 429}]]` names a behaviour.
"""

import gzip
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

ANY_MODEL = "*"
_MAGIC_OPENS, _MAGIC_CLOSES = "[[sim:", "]]"


class ScriptError(ValueError):
    """A rule, a recording or a behaviour in a prompt cannot be read; the text says where and why."""

    code = "invalid_script"


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A function the model asks for, with its arguments as JSON text."""

    name: str
    arguments: str = "{}"


class Behaviour(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What happens to one call; the default answers at once and well.

    `delay_ms` passes before the first byte, `token_delay_ms` between two stream chunks (None: the simulator's
    default). `status` answers with that HTTP error, with `retry_after_seconds` (429: 1), `error_code` and
    `error_message` over the usual ones. `hang` never answers. `cut_stream_after` closes the connection after
    that many content chunks; a plain reply is then closed in its middle. `garbage` answers 200 with broken JSON,
    with JSON of another shape, or with an HTML page. `transcript` answers with the messages the model saw, one
    `role: text` a line; `answer` with that text, which ends in the call's number where it is `numbered`, so that no
    two are equal; `tool_calls` with those calls in place of a text (max_tokens does not cut them). `cached_tokens`
    appears in the usage's details.
    """

    delay_ms: float | None = None
    token_delay_ms: float | None = None
    status: int | None = None
    retry_after_seconds: float | None = None
    error_code: str | None = None
    error_message: str | None = None
    hang: bool = False
    cut_stream_after: int | None = None
    garbage: Literal["json", "shape", "html"] | None = None
    no_usage: bool = False
    ignore_max_tokens: bool = False
    transcript: bool = False
    answer: str | None = None
    numbered: bool = False
    tool_calls: tuple[ToolCall, ...] = ()
    cached_tokens: int | None = None

    def __post_init__(self) -> None:
        """Refuses values no call could follow."""
        if self.status is not None and not 400 <= self.status <= 599:
            message = f"behaviour.status is {self.status}; it takes an HTTP error, 400 to 599"
            raise ValueError(message)
        for name in ("delay_ms", "token_delay_ms", "cut_stream_after", "retry_after_seconds", "cached_tokens"):
            value = getattr(self, name)
            if value is not None and value < 0:
                message = f"behaviour.{name} is {value}; it takes 0 or more"
                raise ValueError(message)


_BY_NAME: dict[str, Behaviour] = {
    "ok": Behaviour(),
    "hang": Behaviour(hang=True),
    "transcript": Behaviour(transcript=True),
    "no_usage": Behaviour(no_usage=True),
    "ignore_max_tokens": Behaviour(ignore_max_tokens=True),
    "garbage": Behaviour(garbage="json"),
    "cut": Behaviour(cut_stream_after=1),
    "rate_limited": Behaviour(status=429),
    "server_error": Behaviour(status=500),
    "unauthorized": Behaviour(status=401),
    "context_length": Behaviour(status=400),
}


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A behaviour for the calls of one model (None: all) whose last user message contains `match`.

    With `told` only for calls whose instructions (system messages) contain that. `times` is how many calls it
    applies to before it is spent (None: for ever). The behaviour may be given by name: ok, hang, transcript,
    no_usage, ignore_max_tokens, garbage, cut, rate_limited, server_error, unauthorized, context_length.
    """

    behaviour: Behaviour | str
    model: str | None = None
    match: str | None = None
    times: int | None = None
    told: str | None = None

    def __post_init__(self) -> None:
        """Refuses a name nobody defined."""
        named(self.behaviour)


class RecordedUsage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The usage a recorded call had; what is None is counted from the text."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cost_usd: float | None = None


class Recording(msgspec.Struct, frozen=True):
    """A prompt with each model's answer (None: that model has none; `*`: every other model).

    `usage` holds for every model, `usage_by_model` for the ones it names.
    """

    input: str
    answers: dict[str, str | None]
    usage: RecordedUsage | None = None
    usage_by_model: dict[str, RecordedUsage] = {}


class Replay(msgspec.Struct, frozen=True):
    """What a recording says about one call."""

    answer: str
    usage: RecordedUsage


def named(behaviour: Behaviour | str) -> Behaviour:
    """Returns the behaviour a name stands for; raises ScriptError for an unknown name."""
    if isinstance(behaviour, Behaviour):
        return behaviour
    if behaviour not in _BY_NAME:
        message = f"unknown behaviour {behaviour!r}; accepted: {', '.join(_BY_NAME)}"
        raise ScriptError(message)
    return _BY_NAME[behaviour]


class Script:
    """The recordings and rules of a running simulator."""

    def __init__(self, default: Behaviour) -> None:
        self.default = default
        self._rules: list[tuple[Rule, Behaviour]] = []
        self._times_left: list[int | None] = []
        self._recordings: dict[str, Recording] = {}

    @property
    def models(self) -> set[str]:
        """The models that recordings and rules name."""
        recorded = {model for recording in self._recordings.values() for model in recording.answers}
        return (recorded | {rule.model for rule, _ in self._rules if rule.model is not None}) - {ANY_MODEL}

    def replace_rules(self, rules: Iterable[Rule | Mapping[str, Any]]) -> None:
        """Puts these rules in place of all earlier ones; none of them is taken if one is wrong."""
        try:
            read = [rule if isinstance(rule, Rule) else msgspec.convert(rule, Rule) for rule in rules]
        except (msgspec.ValidationError, ValueError) as problem:
            raise ScriptError(str(problem)) from problem
        self._rules = [(rule, named(rule.behaviour)) for rule in read]
        self._times_left = [rule.times for rule in read]

    def record(self, recordings: Iterable[Recording]) -> None:
        """Adds recordings; a later one for the same prompt replaces the earlier."""
        self._recordings.update((recording.input.strip(), recording) for recording in recordings)

    def choose(self, model: str, prompt: str, instructions: str = "") -> Behaviour:
        """Returns what happens to a call, and uses up one of the rule's times."""
        if _MAGIC_OPENS in prompt:
            return _magic(prompt)
        for index, (rule, behaviour) in enumerate(self._rules):
            left = self._times_left[index]
            if left == 0 or rule.model not in {None, model} or (rule.match or "") not in prompt:
                continue
            if (rule.told or "") not in instructions:
                continue
            if left is not None:
                self._times_left[index] = left - 1
            return behaviour
        return self.default

    def replay(self, model: str, prompt: str) -> Replay | None:
        """Returns the recorded answer of this model to this prompt, or None."""
        recording = self._recordings.get(prompt.strip()) if self._recordings else None
        if recording is None:
            return None
        answer = recording.answers.get(model)
        if answer is None and model not in recording.answers:
            answer = recording.answers.get(ANY_MODEL)
        if answer is None:
            return None
        usage = recording.usage_by_model.get(model) or recording.usage or RecordedUsage()
        return Replay(answer, usage)


def read_script(path: Path) -> tuple[list[Recording], list[Rule]]:
    """Reads a JSON Lines file (`.gz`: compressed) of recordings and rules; raises ScriptError with the line."""
    recordings: list[Recording] = []
    rules: list[Rule] = []
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            if "behaviour" in msgspec.json.decode(line, type=dict[str, Any]):
                rules.append(msgspec.json.decode(line, type=Rule))
            else:
                recordings.append(msgspec.json.decode(line, type=Recording))
        except (msgspec.DecodeError, ValueError) as problem:
            message = f"{path}:{number}: {problem}"
            raise ScriptError(message) from problem
    return recordings, rules


def _magic(prompt: str) -> Behaviour:
    inner = prompt.split(_MAGIC_OPENS, 1)[1].split(_MAGIC_CLOSES, 1)[0].strip()
    if not inner.startswith("{"):
        return named(inner)
    try:
        return msgspec.json.decode(inner, type=Behaviour)
    except (msgspec.DecodeError, ValueError) as problem:
        message = f"behaviour in the prompt: {problem}"
        raise ScriptError(message) from problem
