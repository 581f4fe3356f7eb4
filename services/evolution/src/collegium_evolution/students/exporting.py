"""Exports for fine-tuning: a tenant's verified samples as JSON lines, sealed, in the object store, with a manifest.

The lines lie among the claims, and are gone after some days as those are; the manifest stays: what was written, what
was left out and why, under which licences, since when its tenant agrees. One rule: an export is of one tenant, and
opens with that tenant's key alone.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from collegium_bus.embed import EmbedClient
from collegium_bus.errors import RequestRefusedError
from collegium_bus.kv import Bucket
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.state import Roster
from collegium_contracts.students import DistillExport, DistillReply
from collegium_learning.distill import lines
from collegium_learning.distill.evaluating import contaminated
from collegium_learning.distill.selecting import HELD_OUT_PERMILLE, choose, is_held_out, plain
from collegium_learning.distill.soft import TEMPERATURE_MAX, TEMPERATURE_MIN
from collegium_learning.distill.tries import PERSON, Tried, known_already, rejected
from collegium_runtime.platform import Platform
from msgspec import msgpack

from collegium_evolution.students import examining
from collegium_evolution.students.export_store import ExportStore
from collegium_evolution.students.opened import Opened, opened, opened_tries
from collegium_evolution.students.sample_store import WORTH_MIN, SampleStore

BYTES_MAX: Final = 64 * 1024 * 1024
# How long an export waits for those before it; who asked waits no longer than for one.
TURN_SECONDS: Final = 10.0
EMBED_SECONDS: Final = 120.0
# What an answer is worth that nobody judged and a sure teacher gave.
UNJUDGED: Final = 0.75
UNSTATED: Final = "unstated"
EVALUATION_MAX: Final = 2_000
EVALUATION_BYTES_MAX: Final = 256 * 1024
_encode = msgpack.Encoder().encode


class _Written(NamedTuple):
    """Lines, the samples they are of, and those held out."""

    lines: list[bytes]
    used: list[Opened]
    held: list[Opened]


class Exports:
    """Writes exports."""

    def __init__(self, platform: Platform, samples: SampleStore, exports: ExportStore) -> None:
        self._platform = platform
        self._samples = samples
        self._exports = exports
        self._models = Bucket(platform.connection, s.KV_MODELS)
        self._claims = platform.claims
        self._embed = EmbedClient(platform.connection, platform.keyring)

    async def export(self, asked: DistillExport) -> DistillReply:
        """Writes what a tenant's samples come to; raises RequestRefusedError ``too_few_samples`` where there are none.

        One at a time: ``evolution_unavailable`` where others take too long.
        """
        _check(asked)
        turn = self._samples.turn
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await turn.acquire()
        except TimeoutError:
            raise RequestRefusedError("evolution_unavailable", "other exports are being written; ask again") from None
        try:
            return await self._export(asked)
        finally:
            turn.release()

    async def _export(self, asked: DistillExport) -> DistillReply:
        """Of a preference both answers are told, so that samples that were judged badly are taken too."""
        left_out: Counter[str] = Counter()
        pairs = asked.shape == "preference"
        known = await self._samples.rows(asked.tenant, asked.domain or None, everything=pairs)
        samples = await opened(self._platform.keyring, asked.tenant, known, left_out)
        samples = await self._clean(asked, samples, left_out)
        # Only to what is verified and not held out another answer is told as the worse one.
        tasks = [one.known.task_id for one in samples if not pairs or self._is_preferred(one)]
        tried = await opened_tries(self._platform.keyring, asked.tenant, await self._samples.tries(asked.tenant, tasks))
        licences = await self._licences()
        if pairs:
            written = self._pairs(asked, samples, tried, licences, left_out)
        else:
            written = await self._answers(asked, samples, tried, licences, left_out)
        if not written.lines:
            raise RequestRefusedError("too_few_samples", "no verified sample of this tenant stands here", "domain")
        content = b"\n".join(written.lines) + b"\n"
        if len(content) > BYTES_MAX:
            raise RequestRefusedError("body_too_large", f"an export is at most {BYTES_MAX} bytes; ask for fewer rows")
        manifest = self._manifest(asked, written, licences, left_out, content)
        sealed = self._platform.keyring.seal(asked.tenant, content, f"distill:{asked.tenant}")
        claim = await self._claims.put(_encode(sealed))
        await self._exports.put(manifest, claim, examining.chosen(one.known for one in written.held))
        return DistillReply(
            content=claim,
            rows=len(written.lines),
            held_out=len(written.held),
            left_out=dict(left_out),
            manifest=msgspec.json.encode(manifest),
            id=manifest["id"],
        )

    def _pairs(
        self,
        asked: DistillExport,
        samples: Sequence[Opened],
        tried: dict[str, list[Tried]],
        licences: dict[str, str],
        left_out: Counter[str],
    ) -> _Written:
        """A question that is held out is told nowhere, whoever asked it again."""
        held = [one for one in samples if is_held_out(one.known.task_id)]
        questions = {plain(_whole(one)) for one in held}
        rest = [one for one in samples if not is_held_out(one.known.task_id)]
        kept = [one for one in rest if plain(_whole(one)) not in questions]
        left_out["like_held_out"] += len(rest) - len(kept)
        bare = asked.format == "openai"
        told = list(lines.preferences([_line(one, licences) for one in kept], bare=bare))
        for one in kept:
            if self._is_preferred(one):
                for model, answer, why in rejected(tried.get(one.known.task_id, ()), one.known.model, one.answer):
                    told.append(lines.preference(_line(one, licences), model, answer, why, bare=bare))
        return _Written(told[: asked.max_rows], kept, held)

    async def _answers(
        self,
        asked: DistillExport,
        samples: Sequence[Opened],
        tried: dict[str, list[Tried]],
        licences: dict[str, str],
        left_out: Counter[str],
    ) -> _Written:
        teaching: list[Opened] = []
        for one in samples:
            if known_already(tried.get(one.known.task_id, ()), one.known.model, one.answer):
                left_out["student_knows"] += 1
            elif asked.shape == "reasoning" and not one.reasoning:
                left_out["no_reasoning"] += 1
            elif asked.shape == "soft" and not one.likely:
                left_out["no_logprobs"] += 1
            else:
                teaching.append(one)
        kept, held = await self._chosen(asked, teaching, left_out)
        told = [_line(one, licences) for one in kept]
        mean = sum(one.worth for one in told) / len(told) if told else 1.0
        written = [
            lines.response(
                one,
                with_worth=asked.shape == "metric",
                mean_worth=mean,
                with_reasoning=asked.shape == "reasoning",
                temperature=asked.temperature if asked.shape == "soft" else None,
                bare=asked.format == "openai",
            )
            for one in told
        ]
        return _Written(written, kept, held)

    async def _clean(self, asked: DistillExport, samples: list[Opened], left_out: Counter[str]) -> list[Opened]:
        """Leaves out what is like an evaluation item."""
        if not asked.evaluation or not samples:
            return samples
        texts = [_whole(one) for one in samples]
        vectors = await self._vectors(asked.tenant, [*texts, *asked.evaluation])
        bad = await asyncio.to_thread(
            contaminated, texts, asked.evaluation, vectors[: len(texts)], vectors[len(texts) :]
        )
        left_out["like_evaluation"] += sum(bad)
        return [one for one, is_bad in zip(samples, bad, strict=True) if not is_bad]

    async def _chosen(
        self, asked: DistillExport, samples: Sequence[Opened], left_out: Counter[str]
    ) -> tuple[list[Opened], list[Opened]]:
        if not samples:
            return [], []
        texts = [_whole(one) for one in samples]
        vectors = await self._vectors(asked.tenant, texts)
        tasks, labels = [one.known.task_id for one in samples], [one.answer for one in samples]
        chosen = await asyncio.to_thread(choose, texts, tasks, vectors, labels, asked.max_rows)
        left_out.update(chosen.left_out)
        return [samples[place] for place in chosen.trained], [samples[place] for place in chosen.held_out]

    async def _vectors(self, tenant: str, texts: list[str]) -> np.ndarray:
        embedded = await self._embed.embed(tenant, texts, timeout_seconds=EMBED_SECONDS)
        vectors = np.frombuffer(embedded.vectors, "<f4").reshape(len(texts), embedded.dimensions)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def _is_preferred(self, one: Opened) -> bool:
        known = one.known
        if is_held_out(known.task_id):
            return False
        if known.worth is not None:
            return known.worth >= WORTH_MIN
        sure = known.rank == "teacher" and (known.confidence or 0.0) >= self._samples.confidence_min
        return sure or known.model.partition(":")[0] == PERSON

    def _manifest(
        self,
        asked: DistillExport,
        written: _Written,
        licences: dict[str, str],
        left_out: Counter[str],
        content: bytes,
    ) -> dict[str, Any]:
        """Says what an export is made of, in counts, times and names, and nothing that anybody said."""
        now_ms = self._platform.now_ms()
        models = Counter(one.known.model for one in written.used)
        consents = [one.known.consent_ms for one in written.used]
        digest = hashlib.sha256(content).hexdigest()
        return {
            "id": f"exp_{ids.cycle_id(now_ms, bytes.fromhex(digest)[:10]).partition('_')[2]}",
            "tenant": asked.tenant,
            "domain": asked.domain,
            "shape": asked.shape,
            "format": asked.format,
            "made_ms": now_ms,
            "by": asked.by,
            "rows": len(written.lines),
            "sha256": digest,
            "models": dict(sorted(models.items())),
            "licences": dict(sorted(_by_licence(models, licences).items())),
            "consent_ms": {"first": min(consents, default=0), "last": max(consents, default=0)},
            "held_out": {"rows": len(written.held), "share": HELD_OUT_PERMILLE / 1000, "by": "sha256 of the task's id"},
            "evaluation_items": len(asked.evaluation),
            "left_out": dict(left_out),
        } | ({"temperature": asked.temperature} if asked.shape == "soft" else {})

    async def _licences(self) -> dict[str, str]:
        """Under which licence models' answers are given, as their labels in the configuration say."""
        entry = await self._models.get(s.ROSTER_KEY)
        roster = codec.state.decode(entry.value) if entry is not None else None
        if not isinstance(roster, Roster):
            return {}
        return {model.name: model.labels.get("licence", UNSTATED) for model in roster.models}


def _check(asked: DistillExport) -> None:
    if not TEMPERATURE_MIN <= asked.temperature <= TEMPERATURE_MAX:
        text = f"a temperature is {TEMPERATURE_MIN:g} to {TEMPERATURE_MAX:g}"
        raise RequestRefusedError("invalid_value", text, "temperature")
    if asked.format == "openai" and asked.shape in ("reasoning", "soft"):
        text = "that provider takes chats and pairs; ask for the shape response or preference"
        raise RequestRefusedError("invalid_value", text, "format")
    size = sum(len(text) for text in asked.evaluation)
    if len(asked.evaluation) > EVALUATION_MAX or size > EVALUATION_BYTES_MAX:
        text = f"at most {EVALUATION_MAX} items of {EVALUATION_BYTES_MAX} characters together"
        raise RequestRefusedError("body_too_large", text, "evaluation")


def _by_licence(models: Counter[str], licences: dict[str, str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for model, count in models.items():
        found[licences.get(model, UNSTATED)] += count
    return found


def _line(one: Opened, licences: dict[str, str]) -> lines.Line:
    known = one.known
    worth = UNJUDGED if known.worth is None else known.worth
    licence = licences.get(known.model, UNSTATED)
    return lines.Line(
        one.messages,
        one.answer,
        worth,
        known.model,
        licence,
        known.consent_ms,
        known.task_id,
        one.reasoning,
        one.likely,
    )


def _whole(one: Opened) -> str:
    return "\n".join(message.content if isinstance(message.content, str) else "" for message in one.messages)
