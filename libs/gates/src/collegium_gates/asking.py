"""Rules that an endpoint of the operator decides: one POST, one word back.

Asked is ``{"rule", "version", "point", "texts": [{"role", "text"}]}``; the answer is ``{"allow": true}`` or
``{"allow": false, "reason": "…"}`` with the status 200. Anything else, a redirect too, is no decision. One rule: the
address stands in the configuration, and nothing that a client sends changes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import aiohttp
import msgspec
from collegium_contracts.audit import printable
from collegium_contracts.gates import GateRule, Point

from collegium_gates.errors import RuleFailedError
from collegium_gates.finding import NOTHING, Findings
from collegium_gates.units import Unit

MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_REASON_CHARACTERS: Final = 120


class _Said(msgspec.Struct):
    allow: bool
    reason: str = ""


_decode = msgspec.json.Decoder(_Said).decode
_encode = msgspec.json.Encoder().encode


class Asker:
    """The HTTP client of such rules; opened at its first use."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def ask(
        self, rule: GateRule, version: str, point: Point, units: Sequence[Unit], keys: Mapping[str, str]
    ) -> Findings:
        """Returns what the endpoint decides; raises RuleFailedError."""
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        headers = {"content-type": "application/json"}
        if rule.name in keys:
            headers["authorization"] = f"Bearer {keys[rule.name]}"
        texts = [{"role": unit.role, "text": unit.text} for unit in units if _is_meant(rule, unit)]
        body = _encode({"rule": rule.name, "version": version, "point": point, "texts": texts})
        timeout = aiohttp.ClientTimeout(total=rule.timeout_ms / 1000)
        try:
            async with self._session.post(
                rule.url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                answer = await response.content.read(MAX_ANSWER_BYTES)
                if response.status != 200:
                    raise RuleFailedError(f"its endpoint answered {response.status}")
                said = _decode(answer)
        except TimeoutError:
            raise RuleFailedError(f"its endpoint took longer than {rule.timeout_ms / 1000:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise RuleFailedError(f"its endpoint cannot be asked: {type(error).__name__}") from None
        except msgspec.DecodeError:
            raise RuleFailedError("its endpoint answered no decision") from None
        if said.allow:
            return NOTHING
        why = printable(said.reason, MAX_REASON_CHARACTERS)
        return Findings(f"its endpoint refuses: {why}" if why else "its endpoint refuses", is_whole=True)

    async def close(self) -> None:
        """Closes its connections."""
        if self._session is not None:
            await self._session.close()


def _is_meant(rule: GateRule, unit: Unit) -> bool:
    return not rule.roles or not unit.role or unit.role in rule.roles
