"""``eval replay``: a recorded pool served by the simulator through the live system, which learns while it runs.

It starts a platform of its own, sends the rows as chats of ``auto`` (each answered by one model, or by a cascade),
tells what answers were worth on a share of them, and prints what that cost and reached beside always asking the
teacher. One rule: quality is what was recorded, cost is what was booked.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from pathlib import Path
from typing import Any

import aiohttp
from collegium_bus.errors import BusError

from collegium_cli.bench.stage import StageError
from collegium_cli.eval.reading import EvaluationError, tell, write
from collegium_cli.eval.replaying import curve, figures, pricing
from collegium_cli.eval.replaying.asking import Form, Replay, Replayed
from collegium_cli.eval.replaying.platform import Learning, Running, running
from collegium_cli.eval.replaying.pricing import Pool

CALL_SECONDS = 60.0


def main(options: argparse.Namespace) -> int:
    """Replays, and prints one object."""
    if not 0.0 <= options.feedback <= 1.0:
        raise EvaluationError("--feedback is a share, 0 to 1")
    pool = pricing.read(options.data, options.train, options.prices, options.models or ())
    if options.plan == "cascade":
        pricing.check_cascade(pool)
    rows = list(pool.rows)
    random.Random(options.seed).shuffle(rows)  # noqa: S311 - an order of rows is no secret
    rows = rows[: options.requests] if options.requests else rows
    learning = Learning(
        options.shadow_share,
        options.audit_share,
        options.budget_share,
        options.interval,
        {"exploration": options.exploration},
    )
    tell(f"{len(rows)} rows, {len(pool.prices)} models, teacher {pool.teacher}")
    try:
        with running(pool, options.data, learning) as platform:
            replayed = asyncio.run(_replayed(pool, platform, rows, options))
    except (StageError, BusError, aiohttp.ClientError, OSError) as error:
        raise EvaluationError(str(error)) from None
    points = figures.curve_of(replayed)
    _keep(options.csv, curve.as_csv(points))
    _keep(options.plot, curve.as_svg(points, options.data.name))
    write(_report(pool, replayed, learning, options))
    return 0


async def _replayed(pool: Pool, platform: Running, rows: list[Any], options: argparse.Namespace) -> Replayed:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(CALL_SECONDS)) as session:
        form = Form(options.plan, options.answer)
        replay = Replay(pool, platform, session, feedback=options.feedback, seed=options.seed, form=form)
        return await replay.run(rows, options.interval)


def _report(pool: Pool, replayed: Replayed, learning: Learning, options: argparse.Namespace) -> dict[str, Any]:
    live = replayed.policy
    return {
        "teacher": pool.teacher,
        "teacher_chosen_by": "train" if options.train is not None else "data",
        "prices": pricing.table_of(pool),
        "settings": {
            "plan": options.plan,
            "answer": options.answer or None,
            "feedback": options.feedback,
            "seed": options.seed,
            "interval": learning.interval,
            "shadow_share": learning.shadow_share,
            "audit_share": learning.audit_share,
            "budget_share": learning.budget_share,
            **learning.routing,
        },
        **figures.figures(replayed, options.after, options.seed),
        "policy": {name: live.get(name) for name in ("version", "family", "tolerance", "rows", "why")}
        if live
        else None,
    }


def _keep(path: Path | None, text: str) -> None:
    if path is not None:
        path.write_text(text)
