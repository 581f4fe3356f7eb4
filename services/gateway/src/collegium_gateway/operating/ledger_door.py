"""What operators ask of the ledger and of prices over HTTP: audits, corrections, calls, versions of prices.

One rule: money comes and goes as decimal strings of dollars.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from collegium_contracts import ledger as q
from collegium_contracts import subjects as s
from collegium_contracts.money import Price, by_class, picos_to_usd
from collegium_contracts.state import ModelRecord, PricePair
from collegium_settings.money import parse_usd, picos_per_token, scale_picos, usd_to_picos
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.admission.requests import parse
from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.replies import json_reply
from collegium_gateway.operating.askingdoor import AskingDoor
from collegium_gateway.operating.identity_door import MAX_BODY_BYTES
from collegium_gateway.tasks.views import rfc3339

AUDIT_SECONDS = 120.0
# Dollars per million tokens, or per call: more is a slip of the keyboard.
PRICE_USD_MAX = Decimal(1_000_000)
MARKUP_MAX = Decimal(1_000)
VERSION_DIGITS_MAX = 15


class CorrectionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/ledger/corrections``: more (or, below zero, less) of what a tenant owes."""

    id: str
    tenant: str
    usd: str
    reason: str


class PriceBlock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Dollars per million tokens by class, and per call; none means the class above it, as in the configuration."""

    input_usd_per_mtok: str | None = None
    output_usd_per_mtok: str | None = None
    cached_input_usd_per_mtok: str | None = None
    cache_write_usd_per_mtok: str | None = None
    reasoning_usd_per_mtok: str | None = None
    call_usd: str | None = None


class ChargeBlock(PriceBlock, frozen=True, forbid_unknown_fields=True):
    """What tenants pay: prices of their own, or the cost times ``markup``."""

    markup: str | None = None


class PriceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/models/{name}/price``: without ``charge`` tenants pay the cost."""

    cost: PriceBlock
    charge: ChargeBlock | None = None
    valid_from: str | None = None


_decode_correction = msgspec.json.Decoder(CorrectionRequest)
_decode_price = msgspec.json.Decoder(PriceRequest)


class LedgerDoor(AskingDoor):
    """The ledger and prices over HTTP."""

    def routes(self) -> list[Route]:
        """The routes of this door."""
        return [
            Route("/v1/admin/ledger/audit", self._audit, methods=["GET"]),
            Route("/v1/admin/ledger/calls", self._calls, methods=["GET"]),
            Route("/v1/admin/ledger/corrections", self._correct, methods=["POST"]),
            Route("/v1/admin/models/{name:path}/prices", self._prices, methods=["GET"]),
            Route("/v1/admin/models/{name:path}/price", self._price, methods=["POST"]),
            Route("/v1/admin/models/{name:path}/prices/{version}", self._withdraw, methods=["DELETE"]),
        ]

    async def _audit(self, request: Request) -> Response:
        self._principal(request, "admin")
        asked = q.LedgerAudit(
            from_ms=self._time_of(request, "from", -timedelta(days=1)),
            to_ms=self._time_of(request, "to", timedelta(seconds=1)),
        )
        reply = await self._ask(s.SVC_BILLING_LEDGER_AUDIT, asked, q.LedgerAuditReply, timeout_seconds=AUDIT_SECONDS)
        first = rfc3339(reply.first_ms) if reply.first_ms is not None else None
        return json_reply({"data": [msgspec.structs.asdict(law) for law in reply.laws], "first_at": first})

    async def _calls(self, request: Request) -> Response:
        self._principal(request, "admin")
        asked = q.LedgerCalls(
            from_ms=self._time_of(request, "from", -timedelta(days=30)),
            to_ms=self._time_of(request, "to", timedelta(seconds=1)),
        )
        reply = await self._ask(s.SVC_BILLING_LEDGER_CALLS, asked, q.LedgerCallsReply, timeout_seconds=AUDIT_SECONDS)
        return json_reply({"data": [msgspec.structs.asdict(row) for row in reply.rows]})

    async def _correct(self, request: Request) -> Response:
        self._principal(request, "admin")
        body = parse(_decode_correction, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
        asked = q.LedgerCorrect(id=body.id, tenant=body.tenant, usd=body.usd, reason=body.reason)
        reply = await self._ask(s.SVC_BILLING_LEDGER_CORRECT, asked, q.LedgerCorrectReply)
        shown = {"id": reply.id, "tenant": reply.tenant, "usd": reply.usd, "reason": reply.reason}
        return json_reply({**shown, "at": rfc3339(reply.at_ms)}, 201 if reply.is_new else 200)

    async def _prices(self, request: Request) -> Response:
        self._principal(request, "admin")
        asked = q.PriceList(model=request.path_params["name"])
        reply = await self._ask(s.SVC_BILLING_PRICES, asked, q.PricesReply)
        model = next((one for one in self._directory.models if one.name == asked.model), None)
        return json_reply({"data": version_views(model, reply.prices)})

    async def _price(self, request: Request) -> Response:
        self._principal(request, "admin")
        body = parse(_decode_price, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
        price = _price_of(body.cost, "cost")
        asked = q.PriceSet(
            model=request.path_params["name"],
            prices=PricePair(price=price, charge=_charge_of(body, price)),
            from_ms=_moment(body.valid_from) if body.valid_from is not None else 0,
        )
        reply = await self._ask(s.SVC_ROUTER_PRICE, asked, q.PriceSetReply)
        shown = {"model": reply.model, "version": reply.version, "valid_from": rfc3339(reply.version)}
        return json_reply(shown, 201 if reply.is_new else 200)

    async def _withdraw(self, request: Request) -> Response:
        self._principal(request, "admin")
        text: str = request.path_params["version"]
        if not (text.isascii() and text.isdigit() and len(text) <= VERSION_DIGITS_MAX):
            raise ApiError(
                "not_found", f"no version {text[:40]!r} of this model's prices is scheduled", param="version"
            )
        asked = q.PriceWithdraw(model=request.path_params["name"], version=int(text))
        reply = await self._ask(s.SVC_ROUTER_PRICE, asked, q.PriceSetReply)
        return json_reply({"model": reply.model, "version": reply.version, "withdrawn": True})


def _price_of(block: PriceBlock, param: str) -> Price:
    if all(one is None for one in msgspec.structs.astuple(block)):
        raise ApiError("invalid_price", f'{param} says no price; what is free says so, as "0"', param=param)

    def picos(text: str | None, name: str) -> int:
        return picos_per_token(_usd("0" if text is None else text, f"{param}.{name}_usd_per_mtok"))

    def given(text: str | None, name: str) -> int | None:
        return None if text is None else picos(text, name)

    return Price(
        input_picos=picos(block.input_usd_per_mtok, "input"),
        output_picos=picos(block.output_usd_per_mtok, "output"),
        cached_input_picos=given(block.cached_input_usd_per_mtok, "cached_input"),
        cache_write_picos=given(block.cache_write_usd_per_mtok, "cache_write"),
        reasoning_picos=given(block.reasoning_usd_per_mtok, "reasoning"),
        call_picos=usd_to_picos(f"{_usd('0' if block.call_usd is None else block.call_usd, f'{param}.call_usd'):f}"),
    )


def _charge_of(body: PriceRequest, price: Price) -> Price:
    if body.charge is None:
        return price
    own = _price_of(body.charge, "charge")
    if body.charge.markup is None:
        return own
    if own != Price():
        raise ApiError("invalid_price", "a charge is a markup or prices, not both", param="charge")
    markup = _usd(body.charge.markup, "charge.markup", MARKUP_MAX)
    fields: dict[str, int | None] = msgspec.structs.asdict(price)
    scaled: dict[str, Any] = {name: None if one is None else scale_picos(one, markup) for name, one in fields.items()}
    return Price(**scaled)


def _usd(text: str, param: str, most: Decimal = PRICE_USD_MAX) -> Decimal:
    try:
        amount = parse_usd(text)
    except ValueError:
        reason = "a price is a decimal string, zero or more, with at most 6 decimals"
        raise ApiError("invalid_price", reason, param=param) from None
    if amount > most:
        raise ApiError("invalid_price", f"at most {most}", param=param)
    return amount


def _moment(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ApiError("invalid_value", "valid_from must be a time in RFC 3339", param="valid_from") from None
    return max(1, int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp() * 1000))


def version_views(model: ModelRecord | None, used: Sequence[q.PriceRow]) -> list[dict[str, Any]]:
    """Returns all versions, newest first: those that calls were made with, and of the roster the one in force and
    those that begin later."""
    rows = {row.version: (row.cost, row.charge, "past") for row in used}
    if model is not None:
        now = (by_class(model.price), by_class(model.charge), "in_force")
        rows[model.price_version] = now
        for one in model.upcoming:
            rows[one.version] = (by_class(one.prices.price), by_class(one.prices.charge), "scheduled")
    return [
        {
            "version": version,
            "valid_from": rfc3339(version),
            "state": rows[version][2],
            "cost": _shown(rows[version][0]),
            "charge": _shown(rows[version][1]),
        }
        for version in sorted(rows, reverse=True)
    ]


def _shown(picos: dict[str, int]) -> dict[str, Any]:
    shown = {f"{name}_usd_per_mtok": picos_to_usd(one * 1_000_000) for name, one in picos.items() if name != "call"}
    return {**shown, "call_usd": picos_to_usd(picos.get("call", 0))}
