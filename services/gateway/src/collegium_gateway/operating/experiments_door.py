"""Experiments and flags over HTTP: drafting, starting, looking, ending, and switching off.

An instruction is sealed here with its tenant's key and shown to nobody again: whoever looks sees its label and length.
One rule: who administrates one tenant sees and changes that tenant's alone.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from collegium_contracts import subjects as s
from collegium_contracts.experiment_requests import (
    ExperimentAct,
    ExperimentCreate,
    ExperimentRow,
    ExperimentsAsk,
    ExperimentsReply,
    FlagRow,
    FlagsAsk,
    FlagSet,
    FlagsReply,
    FlagSwitch,
    HoldoutSet,
)
from collegium_contracts.experiments import (
    INSTRUCTION_BYTES_MAX,
    INSTRUCTION_PURPOSE,
    Act,
    Change,
    Guardrails,
    Kind,
    Running,
    RunningFlag,
    TriedPlan,
    Unit,
    Winner,
)
from collegium_contracts.messages import Message
from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.admission.requests import parse
from collegium_gateway.asking import R, ask_evolution
from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.operating.experiment_views import experiment_view, flag_view
from collegium_gateway.operating.naming import domain_of

MAX_BODY_BYTES: Final = 128 * 1024
LABEL_CHARS_MAX: Final = 64
LIST_MAX: Final = 200
STATES: Final = ("", "draft", "running", "stopped", "rolled_back", "concluded")
# A look at many units takes a moment.
ASK_SECONDS: Final = 20.0
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
_RESERVED: Final = ("kill", "revive")


class ChangeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an arm or a flag changes: a model, a version of the tenant's policy, an instruction with its label, or a
    plan, of a panel with its members."""

    model: str = ""
    policy_version: int = 0
    instruction: str | None = None
    label: str = ""
    plan: TriedPlan = ""
    members: int = 3


class ExperimentBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/experiments``: a draft. Without ``tenant`` a member's own, and otherwise one of all tenants."""

    name: str
    kind: Kind
    candidate: ChangeBody
    control: ChangeBody = ChangeBody()
    tenant: str | None = None
    domain: str | None = None
    model: str = "auto"
    unit: Unit = "conversation"
    share: float = 1.0
    interleave: float = 0.0
    hypothesis: str = ""
    guardrails: Guardrails = Guardrails()
    level: float = 0.05
    margin: float = 0.02
    auto_stop: bool = False


class RampBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/experiments/{id}/ramp``: the share of units that take part from now on."""

    share: float
    reason: str = ""


class ReasonBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why something is done; ``tenant`` is whose, where it is not said otherwise."""

    reason: str = ""
    tenant: str | None = None


class ConcludeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/experiments/{id}/conclude``: which arm won, and whether everybody is given the candidate's."""

    winner: Winner
    rollout: bool = False
    reason: str = ""


class FlagBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``PUT /v1/admin/flags/{name}``: a change for a share of units, without comparing."""

    kind: Kind
    change: ChangeBody
    tenant: str | None = None
    domain: str | None = None
    model: str = "auto"
    unit: Unit = "conversation"
    share: float = 1.0


class HoldoutBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/experiments/holdout``: the share of units that no experiment and no flag touches."""

    share: float
    tenant: str | None = None


_decode_experiment = msgspec.json.Decoder(ExperimentBody)
_decode_ramp = msgspec.json.Decoder(RampBody)
_decode_reason = msgspec.json.Decoder(ReasonBody)
_decode_conclude = msgspec.json.Decoder(ConcludeBody)
_decode_flag = msgspec.json.Decoder(FlagBody)
_decode_holdout = msgspec.json.Decoder(HoldoutBody)

_E, _F = "/v1/admin/experiments", "/v1/admin/flags"
OPERATIONS: Final = (
    ("get", _E, "admin", "Lists experiments, the newest first.", None),
    ("post", _E, "admin", "Drafts an experiment.", ExperimentBody),
    ("post", f"{_E}/holdout", "admin", "Keeps a share of units out of everything.", HoldoutBody),
    ("get", f"{_E}/{{id}}", "admin", "Looks at an experiment; at any moment, as often as one likes.", None),
    ("post", f"{_E}/{{id}}/start", "admin", "Starts a draft.", ReasonBody),
    ("post", f"{_E}/{{id}}/ramp", "admin", "Raises the share of units that take part.", RampBody),
    ("post", f"{_E}/{{id}}/stop", "admin", "Stops an experiment.", ReasonBody),
    ("post", f"{_E}/{{id}}/conclude", "admin", "Says which arm won.", ConcludeBody),
    ("get", _F, "admin", "Lists flags.", None),
    ("post", f"{_F}/kill", "admin", "Switches all experiments and flags off.", ReasonBody),
    ("post", f"{_F}/revive", "admin", "Lets experiments and flags apply again.", ReasonBody),
    ("put", f"{_F}/{{name}}", "admin", "Sets a flag.", FlagBody),
    ("delete", f"{_F}/{{name}}", "admin", "Removes a flag.", None),
    ("post", f"{_F}/{{name}}/kill", "admin", "Switches a flag off.", ReasonBody),
    ("post", f"{_F}/{{name}}/revive", "admin", "Lets a flag apply again.", ReasonBody),
)
QUERY: Final = {_E: ("tenant", "state", "limit"), _F: ("tenant",), f"{_F}/{{name}}": ("tenant",)}
STATUSES: Final = {("post", _E): ("201",)}


class ExperimentsDoor:
    """The routes about experiments and flags."""

    def __init__(self, platform: Platform, directory: Directory) -> None:
        self._platform = platform
        self._directory = directory

    def routes(self) -> list[Route]:
        """The routes of this door; fixed names before those that are ids."""
        acts: tuple[Act, ...] = ("start", "ramp", "stop", "conclude")
        return [
            Route(_E, self._list, methods=["GET"]),
            Route(_E, self._draft, methods=["POST"]),
            Route(f"{_E}/holdout", self._hold_out, methods=["POST"]),
            Route(f"{_E}/{{id}}", self._show, methods=["GET"]),
            *(Route(f"{_E}/{{id}}/{act}", self._act, methods=["POST"]) for act in acts),
            Route(_F, self._flags, methods=["GET"]),
            Route(f"{_F}/kill", self._switch, methods=["POST"]),
            Route(f"{_F}/revive", self._switch, methods=["POST"]),
            Route(f"{_F}/{{name}}", self._set_flag, methods=["PUT"]),
            Route(f"{_F}/{{name}}", self._remove_flag, methods=["DELETE"]),
            Route(f"{_F}/{{name}}/kill", self._switch, methods=["POST"]),
            Route(f"{_F}/{{name}}/revive", self._switch, methods=["POST"]),
        ]

    def _principal(self, request: Request) -> Principal:
        return self._directory.keys.authenticate(request.headers.get("authorization"))

    async def _body(self, request: Request) -> bytes:
        return await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES)

    async def _ask(self, question: Message, expected: type[R]) -> R:
        return await ask_evolution(
            self._platform, s.SVC_EVOLUTION_EXPERIMENTS, question, expected, timeout_seconds=ASK_SECONDS
        )

    async def _list(self, request: Request) -> Response:
        query = request.query_params
        tenant, state, limit = self._principal(request).within(query.get("tenant")), query.get("state", ""), 50
        if state not in STATES:
            raise ApiError("invalid_value", f"state is one of {', '.join(STATES[1:])}", param="state")
        if (text := query.get("limit")) is not None:
            if not (text.isascii() and text.isdigit() and 1 <= int(text) <= LIST_MAX):
                raise ApiError("invalid_value", f"limit must be 1 to {LIST_MAX}", param="limit")
            limit = int(text)
        reply = await self._ask(ExperimentsAsk(tenant=tenant, state=state, limit=limit), ExperimentsReply)
        return json_reply({"data": [experiment_view(row) for row in reply.rows]})

    async def _show(self, request: Request) -> Response:
        tenant = self._principal(request).within(None)
        reply = await self._ask(ExperimentsAsk(tenant=tenant, id=request.path_params["id"]), ExperimentsReply)
        return json_reply(experiment_view(_one(reply.rows)))

    async def _draft(self, request: Request) -> Response:
        principal = self._principal(request)
        body = parse(_decode_experiment, await self._body(request))
        tenant = self._tenant(principal, body.tenant)
        running = Running(
            id="",
            kind=body.kind,
            control=self._change(tenant, body.control, "control"),
            candidate=self._change(tenant, body.candidate, "candidate"),
            tenant=tenant,
            domain=domain_of(body.domain),
            model=body.model,
            unit=body.unit,
            share=body.share,
            interleave=body.interleave,
        )
        question = ExperimentCreate(
            running=running,
            name=body.name,
            by=principal.key_id,
            hypothesis=body.hypothesis,
            guardrails=body.guardrails,
            level=body.level,
            margin=body.margin,
            auto_stop=body.auto_stop,
        )
        reply = await self._ask(question, ExperimentsReply)
        return json_reply(experiment_view(_one(reply.rows)), 201)

    async def _act(self, request: Request) -> Response:
        principal, name = self._principal(request), request.path_params["id"]
        act: Any = request.url.path.rpartition("/")[2]
        asked = ExperimentAct(id=name, act=act, by=principal.key_id, tenant=principal.within(None))
        raw = await self._body(request)
        if act == "ramp":
            ramp = parse(_decode_ramp, raw)
            asked = msgspec.structs.replace(asked, share=ramp.share, reason=_reason(ramp.reason))
        elif act == "conclude":
            body = parse(_decode_conclude, raw)
            asked = msgspec.structs.replace(
                asked, winner=body.winner, rollout=body.rollout, reason=_reason(body.reason)
            )
        else:
            asked = msgspec.structs.replace(asked, reason=_reason(parse(_decode_reason, raw or b"{}").reason))
        reply = await self._ask(asked, ExperimentsReply)
        return json_reply(experiment_view(_one(reply.rows)))

    async def _hold_out(self, request: Request) -> Response:
        principal = self._principal(request)
        body = parse(_decode_holdout, await self._body(request))
        tenant = self._tenant(principal, body.tenant)
        reply = await self._ask(HoldoutSet(tenant=tenant, share=body.share, by=principal.key_id), FlagsReply)
        return json_reply({"tenant": tenant or None, "share": reply.holdouts.get(tenant, 0.0)})

    async def _flags(self, request: Request) -> Response:
        tenant = self._principal(request).within(request.query_params.get("tenant"))
        reply = await self._ask(FlagsAsk(tenant=tenant), FlagsReply)
        return json_reply(
            {
                "data": [flag_view(row) for row in reply.rows],
                "killed": [one or None for one in reply.killed],
                "holdouts": [{"tenant": one or None, "share": share} for one, share in reply.holdouts.items()],
            }
        )

    async def _set_flag(self, request: Request) -> Response:
        principal, name = self._principal(request), request.path_params["name"]
        if _NAME.fullmatch(name) is None or name in _RESERVED:
            text = "a flag's name is 1 to 60 of a-z, 0-9, _ and -, and neither kill nor revive"
            raise ApiError("invalid_value", text, param="name")
        body = parse(_decode_flag, await self._body(request))
        tenant = self._tenant(principal, body.tenant)
        flag = RunningFlag(
            name=name,
            kind=body.kind,
            change=self._change(tenant, body.change, "change"),
            tenant=tenant,
            domain=domain_of(body.domain),
            model=body.model,
            unit=body.unit,
            share=body.share,
        )
        reply = await self._ask(FlagSet(flag=flag, by=principal.key_id), FlagsReply)
        return json_reply(flag_view(_one_flag(reply.rows)))

    async def _remove_flag(self, request: Request) -> Response:
        principal = self._principal(request)
        tenant = self._tenant(principal, request.query_params.get("tenant"))
        question = FlagSwitch(tenant=tenant, name=request.path_params["name"], to="removed", by=principal.key_id)
        reply = await self._ask(question, FlagsReply)
        return json_reply(flag_view(_one_flag(reply.rows)))

    async def _switch(self, request: Request) -> Response:
        principal, name = self._principal(request), request.path_params.get("name", "")
        body = parse(_decode_reason, await self._body(request) or b"{}")
        tenant = self._tenant(principal, body.tenant)
        to = "killed" if request.url.path.endswith("/kill") else "on"
        question = FlagSwitch(tenant=tenant, name=name, to=to, by=principal.key_id, reason=_reason(body.reason))
        reply = await self._ask(question, FlagsReply)
        if name:
            return json_reply(flag_view(_one_flag(reply.rows)))
        return json_reply({"tenant": tenant or None, "killed": tenant in reply.killed})

    def _tenant(self, principal: Principal, named: str | None) -> str:
        """Returns whose something is to be; empty for the operator's, of all tenants."""
        tenant = principal.within(named) or ""
        return self._directory.keys.known(tenant) if tenant else ""

    def _change(self, tenant: str, body: ChangeBody, param: str) -> Change:
        if len(body.label) > LABEL_CHARS_MAX or not 0 <= body.policy_version < 2**63:
            text = f"a label has at most {LABEL_CHARS_MAX} characters, a version is a number from 0 on"
            raise ApiError("invalid_value", text, param=param)
        told, sealed = (body.instruction or "").strip().encode(), None
        if told:
            if not tenant:
                text = "an instruction is one tenant's, sealed with its key: name it"
                raise ApiError("invalid_value", text, param="tenant")
            if len(told) > INSTRUCTION_BYTES_MAX:
                text = f"an instruction has at most {INSTRUCTION_BYTES_MAX} bytes"
                raise ApiError("invalid_value", text, param=f"{param}.instruction")
            sealed = self._platform.keyring.seal(tenant, told, INSTRUCTION_PURPOSE)
        return Change(
            model=body.model,
            policy_version=body.policy_version,
            instruction=sealed,
            instruction_bytes=len(told),
            label=body.label,
            plan=body.plan,
            members=body.members,
        )


def _reason(text: str) -> str:
    if len(text) > 300 or "\x00" in text:
        raise ApiError("invalid_value", "a reason has at most 300 characters", param="reason")
    return text


def _one(rows: list[ExperimentRow]) -> ExperimentRow:
    if not rows:
        raise ApiError("not_found", "there is no experiment of this id", param="id")
    return rows[0]


def _one_flag(rows: list[FlagRow]) -> FlagRow:
    if not rows:
        raise ApiError("not_found", "there is no such flag", param="name")
    return rows[0]
