"""From a client's request to TaskSubmitted: defaults, bounds, and what is refused at the door. Pure.

Everything that can be refused without asking anybody is refused here, before anything is stored. One rule: an option
that this version does not carry out is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from collegium_contracts.content import ChatMessage, decode_messages, encode_content
from collegium_contracts.envelope import Keyring
from collegium_contracts.ids import CONVERSATION_ID
from collegium_contracts.memory_paths import OFF, PathError, parse_path, path_text
from collegium_contracts.messages import Plan, Sampling, TaskRef, TaskSubmitted
from collegium_contracts.parts import Surface
from collegium_contracts.state import ModelRecord
from collegium_contracts.students import may_ask
from collegium_contracts.wording import words_sealed
from collegium_settings.settings import OffPeakSettings

from collegium_gateway.admission.budgeting import budget_picos, check_budget
from collegium_gateway.admission.code_tests import answer_of, check_tests, sealed_tests
from collegium_gateway.admission.requests import ChatRequest, Options, TaskRequest
from collegium_gateway.admission.timing import begins_at, refuse_times
from collegium_gateway.errors import ApiError
from collegium_gateway.identity.principal import Principal

AUTO = "auto"
# Cancellations are remembered for an hour, so no deadline may be longer.
MAX_DEADLINE_SECONDS = 3600.0
MAX_PANEL = 9
MAX_CHOICES = 16
MAX_TAGS = 16
MAX_TAG_CHARS = 128
MAX_MESSAGES = 2_000
# As many as one can tell from each other in a text; a label is a word or two.
MAX_LABELS = 64
MAX_LABEL_CHARS = 200
# More than any model writes, and what a 32-bit reader of the message can hold.
MAX_OUTPUT_TOKENS = 2**31 - 1
MAX_SEED = 2**63 - 1
DEFAULT_OFF_PEAK = OffPeakSettings()
_NO_OPTIONS = Options()
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
BYTES_PER_TOKEN_AT_MOST = 6


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request, whatever door it came through: messages as JSON, sampling, options."""

    model: str
    messages: bytes
    sampling: Sampling
    options: Options
    surface: Surface
    streamed: bool = False
    include_usage: bool = False
    messages_param: str = "messages"
    callback_url: str | None = None


def asked_by_chat(request: ChatRequest, surface: Surface = "chat") -> Asked:
    """Returns what a chat request asks for."""
    if request.collegium is not None:
        refuse_times(request.collegium, "is for tasks, as a chat waits for its answer: use POST /v1/tasks")
    stop = [request.stop] if isinstance(request.stop, str) else request.stop
    n = 1 if request.n is None else request.n
    options = request.collegium or _NO_OPTIONS
    sampling = Sampling(
        max_tokens=request.max_completion_tokens if request.max_tokens is None else request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        seed=request.seed,
        stop=stop,
        n=n,
        tools=_present(request.tools),
        tool_choice=_present(request.tool_choice),
        response_format=_present(request.response_format),
        stream=request.stream and n == 1,
        answer=answer_of(options),
        labels=options.labels,
    )
    return Asked(
        model=request.model,
        messages=bytes(request.messages),
        sampling=sampling,
        options=options,
        surface=surface,
        streamed=request.stream,
        include_usage=request.stream_options is not None and request.stream_options.include_usage,
    )


def asked_by_task(request: TaskRequest, options: Options, surface: Surface = "tasks") -> Asked:
    """Returns what a task request asks for; its text becomes one user message."""
    if options.cache in ("use", "refresh"):
        raise _unsupported("cache")
    raw = bytes(request.input)
    messages = raw
    if raw[:1] == b'"':
        messages = encode_content([ChatMessage(role="user", content=msgspec.json.decode(raw, type=str))])
    stop = [request.stop] if isinstance(request.stop, str) else request.stop
    sampling = Sampling(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed,
        stop=stop,
        tools=_present(request.tools),
        tool_choice=_present(request.tool_choice),
        response_format=_present(request.response_format),
        stream=True,
        answer=answer_of(options),
        labels=options.labels,
    )
    return Asked(
        model=request.model,
        messages=messages,
        sampling=sampling,
        options=options,
        surface=surface,
        messages_param="input" if surface == "tasks" else "messages",
        callback_url=request.callback_url,
    )


def submission(
    asked: Asked,
    principal: Principal,
    models: Iterable[ModelRecord],
    keyring: Keyring,
    *,
    task_id: str,
    reply: str,
    now_ms: int,
    off_peak: OffPeakSettings = DEFAULT_OFF_PEAK,
) -> TaskSubmitted:
    """Returns the message that starts the journey, or raises ApiError for what cannot be accepted."""
    options = asked.options
    _check_messages(asked.messages, asked.messages_param)
    _check_sampling(asked.sampling)
    _check_options(options)
    _check_plan(asked)
    check_tests(options, asked.sampling.n)
    check_allowed(asked.model, principal)
    able = [model for model in models if is_open_to(model, principal)]
    _check_model(asked, able)
    not_before_ms = begins_at(options, off_peak, now_ms)
    memory = memory_path(options.memory)
    if memory not in ("", OFF):
        principal.need("knowledge")
        _check_reach(memory, principal)
    task = TaskRef(
        id=task_id,
        tenant=principal.tenant,
        project=principal.project,
        key_id=principal.key_id,
        tier=principal.tier,
        created_at_ms=now_ms,
        deadline_ms=max(now_ms, not_before_ms) + int(options.deadline_seconds * 1000),
        model=asked.model,
        priority=options.priority,
        plan=_plan(asked),
        surface=asked.surface,
        domain=options.domain,
        reply=reply,
        conversation=options.conversation or "",
        tags=options.tags,
        callback=asked.callback_url is not None,
        not_before_ms=not_before_ms,
        models=list(principal.models),
        pool=principal.pool,
        memory=memory,
        quality_min=options.quality_min or 0.0,
        collects_since_ms=principal.collects_since_ms,
        cost_max_picos=budget_picos(options.budget_usd_max),
        tests=len(options.tests or ()),
    )
    submitted = TaskSubmitted(
        task=task,
        prompt=keyring.seal(principal.tenant, asked.messages),
        sampling=words_sealed(keyring, principal.tenant, asked.sampling),
        prompt_bytes=len(asked.messages),
        panel_size=options.panel_size,
        judge=options.judge,
        tests=sealed_tests(keyring, principal.tenant, options),
    )
    check_budget(submitted, able)
    return submitted


def check_people(submitted: TaskSubmitted, models: Iterable[ModelRecord], principal: Principal) -> None:
    """Raises ApiError ``budget_too_small`` where it surely fits no more beside the person whom a task may ask."""
    if submitted.task.cost_max_picos and submitted.task.people is not None:
        check_budget(submitted, [model for model in models if is_open_to(model, principal)])


def _present(raw: msgspec.Raw) -> bytes | None:
    return None if bytes(raw) == b"null" else bytes(raw)


def _check_messages(messages: bytes, param: str) -> None:
    try:
        decoded = decode_messages(messages)
    except msgspec.DecodeError as error:
        reason, _, path = str(error).partition(" - at `$")
        raise ApiError("invalid_value", reason, param=param + path.rstrip("`")) from None
    if not decoded:
        raise ApiError("invalid_value", f"{param} must hold at least one message", param=param)
    if len(decoded) > MAX_MESSAGES:
        raise ApiError("invalid_value", f"{param} holds more than {MAX_MESSAGES} messages", param=param)
    for index, message in enumerate(decoded):
        if message.role not in ROLES:
            raise ApiError(
                "invalid_value",
                f"role {message.role!r} is not one of {', '.join(sorted(ROLES))}",
                param=f"{param}[{index}].role",
            )


def _check_sampling(sampling: Sampling) -> None:
    if sampling.max_tokens is not None and not 1 <= sampling.max_tokens <= MAX_OUTPUT_TOKENS:
        raise ApiError("invalid_value", f"max_tokens must be between 1 and {MAX_OUTPUT_TOKENS}", param="max_tokens")
    if sampling.seed is not None and not -MAX_SEED <= sampling.seed <= MAX_SEED:
        raise ApiError("invalid_value", f"seed must be between -{MAX_SEED} and {MAX_SEED}", param="seed")
    if not 1 <= sampling.n <= MAX_CHOICES:
        raise ApiError("invalid_value", f"n must be between 1 and {MAX_CHOICES}", param="n")
    if sampling.temperature is not None and not 0 <= sampling.temperature <= 2:
        raise ApiError("invalid_value", "temperature must be between 0 and 2", param="temperature")
    if sampling.top_p is not None and not 0 <= sampling.top_p <= 1:
        raise ApiError("invalid_value", "top_p must be between 0 and 1", param="top_p")


def _check_options(options: Options) -> None:
    check_deadline(options.deadline_seconds)
    if not 1 <= options.panel_size <= MAX_PANEL:
        raise ApiError("invalid_value", f"panel_size must be between 1 and {MAX_PANEL}", param="panel_size")
    if options.conversation is not None and CONVERSATION_ID.match(options.conversation) is None:
        raise ApiError(
            "invalid_value", "conversation must be 1 to 128 of letters, digits and . _ : -", param="conversation"
        )
    check_tags(options.tags)
    _check_labels(options)


def _check_labels(options: Options) -> None:
    labels = options.labels
    if (labels is not None) != (options.answer == "label"):
        raise ApiError("invalid_value", "labels go with answer 'label', and it with them", param="labels")
    if labels is not None and (
        not 2 <= len(set(labels)) == len(labels) <= MAX_LABELS
        or not all(one.strip() and len(one) <= MAX_LABEL_CHARS for one in labels)
    ):
        raise ApiError(
            "invalid_value",
            f"labels: 2 to {MAX_LABELS} different ones, of 1 to {MAX_LABEL_CHARS} characters each",
            param="labels",
        )


def _plan(asked: Asked) -> Plan:
    """Returns the plan that ``auto`` means; whoever states a quality wants one that can ask on until it is reached.

    So does whoever gives tests, where a model may be chosen.
    """
    plan = asked.options.plan
    if plan != AUTO:
        return plan
    asks_on = asked.options.quality_min is not None or (asked.options.tests and asked.model == AUTO)
    return "cascade" if asks_on else "single"


def _check_plan(asked: Asked) -> None:
    plan, quality_min = _plan(asked), asked.options.quality_min
    if quality_min is not None and not 0 <= quality_min <= 1:
        raise ApiError("invalid_value", "quality_min must be between 0 and 1", param="quality_min")
    if quality_min is not None and plan != "cascade":
        raise ApiError(
            "unsupported_option",
            f"quality_min says when a cascade may stop, and plan {plan!r} does not ask on; leave one of them out",
            param="quality_min",
        )
    if asked.options.judge is not None and plan != "panel":
        raise ApiError("unsupported_option", "judges are asked of a panel: add plan 'panel'", param="judge")
    if plan == "cascade" and asked.model != AUTO:
        raise ApiError(
            "unsupported_plan",
            "a named model is never cascaded: ask model 'auto', or leave plan and quality_min out",
            param="plan",
        )


def check_deadline(seconds: float) -> None:
    """Raises ApiError for a deadline that has passed or is too far."""
    if seconds <= 0:
        raise ApiError(
            "deadline_in_past",
            f"deadline_seconds is {seconds:g}, which has passed; give a positive number of seconds",
            param="deadline_seconds",
        )
    if seconds > MAX_DEADLINE_SECONDS:
        raise ApiError(
            "invalid_value", f"deadline_seconds may be at most {MAX_DEADLINE_SECONDS:g}", param="deadline_seconds"
        )


def check_tags(tags: dict[str, str]) -> None:
    """Raises ApiError for tags that are too many or too long."""
    if len(tags) > MAX_TAGS or any(
        len(name) > MAX_TAG_CHARS or len(value) > MAX_TAG_CHARS for name, value in tags.items()
    ):
        raise ApiError(
            "invalid_value", f"tags: at most {MAX_TAGS}, of at most {MAX_TAG_CHARS} characters each", param="tags"
        )


def memory_path(asked: str | None) -> str:
    """Returns the path whose memory a request wants in its one spelling; empty for none, ``off`` where it says so."""
    if not asked or asked == OFF:
        return asked or ""
    try:
        return path_text(parse_path(asked))
    except PathError as error:
        raise ApiError("invalid_value", str(error), param="memory") from None


def _check_reach(memory: str, principal: Principal) -> None:
    if not principal.memory_reach.reads(parse_path(memory)):
        text = f"key {principal.key_id} is of project {principal.project}, which has no part in memory {memory}"
        raise ApiError("insufficient_scope", text, param="memory")


def _unsupported(name: str) -> ApiError:
    return ApiError(
        "unsupported_option", f"option {name!r} is not carried out by this version; leave it out", param=name
    )


def is_open_to(model: ModelRecord, principal: Principal) -> bool:
    """Whether a key may ask a model: it is not kept from it, and no other tenant's student."""
    return (not principal.models or model.name in principal.models) and may_ask(model.student, principal.tenant)


def check_allowed(model: str, principal: Principal) -> None:
    """Raises ApiError where a key may not ask a model."""
    if principal.models and model != AUTO and model not in principal.models:
        raise ApiError(
            "model_not_allowed",
            f"key {principal.key_id} may not ask model {model[:128]!r}; it may ask: {', '.join(principal.models)}",
            param="model",
        )


def _check_model(asked: Asked, models: list[ModelRecord]) -> None:
    enabled = [model for model in models if model.enabled and model.kind == "chat"]
    if asked.model == AUTO:
        candidates = [model for model in enabled if not model.domains or asked.options.domain in model.domains]
        if not candidates:
            raise ApiError(
                "no_eligible_model", f"no enabled model serves domain {asked.options.domain!r}", param="model"
            )
    else:
        candidates = [model for model in enabled if model.name == asked.model]
        if not candidates:
            raise ApiError(
                "unknown_model", f"model {asked.model!r} is not in the roster; see GET /v1/models", param="model"
            )
    if all(len(asked.messages) // BYTES_PER_TOKEN_AT_MOST >= model.context_tokens for model in candidates):
        raise ApiError(
            "context_length_exceeded",
            f"{asked.messages_param} of {len(asked.messages)} bytes is longer than any eligible model's context",
            param=asked.messages_param,
        )
