"""What was learned about confidence, as data: members' shares, curves, thresholds; and how it is applied. Pure.

Fitted by one service (``fitting``), published as bytes, applied by another. One rule: what is read is checked as a
whole, so that a policy is either usable in every part or refused.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import msgspec
from collegium_contracts.parts import AnswerKind

from collegium_learning.confidence.calibration import Calibration, Curve
from collegium_learning.panels.votes import ANSWERS_UNKNOWN, P_UNKNOWN, Reliability

# The key of what holds in domains of which nothing of their own is known.
EVERYWHERE = ""
# Among how many answers a wrong member chooses, where the type says it.
ANSWERS_OF_CHOICE = 4.0
# Nobody has more domains, members or steps; what is larger was not made here.
ENTRIES_MAX = 20_000


class PolicyError(ValueError):
    """Bytes that are no usable policy; ``code`` is stable."""

    code = "unusable_policy"


class Promise(msgspec.Struct, frozen=True):
    """The confidence from which a cascade may stop: below ``loss_max`` lost against the teachers, proven at ``level``.

    ``loss`` was measured on ``rows`` answers; without a ``threshold`` nothing was proven.
    """

    threshold: float | None
    loss_max: float
    level: float
    loss: float = 0.0
    rows: int = 0


class Measured(msgspec.Struct, frozen=True):
    """How well the confidence was calibrated on answers that it was not fitted on."""

    error: float
    rows: int
    accuracy: float


class ConfidencePolicy(msgspec.Struct, frozen=True):
    """What was learned: by domain (EVERYWHERE for all others) members' shares of right answers and promises, and the
    calibration's curves.

    ``unknown`` is the share of a member of whom nothing is known; ``judges`` is how often a judge's preference was
    borne out by what came of the answer; ``labels`` how many answers were known to be right or wrong, ``panels`` how
    many panels were looked at.
    """

    calibration: Calibration
    right: dict[str, dict[str, float]] = msgspec.field(default_factory=dict[str, dict[str, float]])
    unknown: float = P_UNKNOWN
    promises: dict[str, Promise] = msgspec.field(default_factory=dict[str, Promise])
    measured: dict[str, Measured] = msgspec.field(default_factory=dict[str, Measured])
    judges: dict[str, float] = msgspec.field(default_factory=dict[str, float])
    labels: int = 0
    panels: int = 0

    def share(self, member: str, domain: str) -> float | None:
        """Returns how often a member is right in a domain, else everywhere; none where that is not known."""
        here = self.right.get(domain, {}).get(member)
        return self.right.get(EVERYWHERE, {}).get(member) if here is None else here

    def reliability(self, members: Iterable[str], domain: str, kind: AnswerKind, choices: int = 0) -> Reliability:
        """Returns what the votes of members weigh; ``choices`` (0: not known) is among how many labels they chose."""
        shares = {member: share for member in members if (share := self.share(member, domain)) is not None}
        return Reliability(right=shares, unknown=self.unknown, answers=answers_of(kind, choices))

    def threshold(self, domain: str) -> float | None:
        """Returns the confidence from which a cascade may stop in a domain; none where nothing was proven."""
        promise = self.promises.get(domain) or self.promises.get(EVERYWHERE)
        return promise.threshold if promise is not None else None


def answers_of(kind: AnswerKind, choices: int = 0) -> float:
    """Returns among how many answers of a type a wrong member is taken to choose."""
    if choices > 1:
        return float(choices)
    return ANSWERS_OF_CHOICE if kind == "choice" else ANSWERS_UNKNOWN


_decoder = msgspec.msgpack.Decoder(ConfidencePolicy)
encode_policy = msgspec.msgpack.Encoder().encode


def decode_policy(payload: bytes) -> ConfidencePolicy:
    """Reads a policy; raises PolicyError for bytes that are none, and for numbers that cannot be applied."""
    try:
        policy = _decoder.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise PolicyError(f"{len(payload)} bytes are no policy: {error}") from None
    calibration = policy.calibration
    for curve in (calibration.everywhere, *calibration.domains.values()):
        _check_curve(curve)
    shares = [
        policy.unknown,
        *policy.judges.values(),
        *(share for members in policy.right.values() for share in members.values()),
    ]
    shares += [promise.threshold for promise in policy.promises.values() if promise.threshold is not None]
    if not all(math.isfinite(share) and 0.0 <= share <= 1.0 for share in shares):
        raise PolicyError("a share or threshold is not between 0 and 1")
    if len(shares) + len(calibration.domains) > ENTRIES_MAX:
        raise PolicyError(f"{len(shares)} shares and {len(calibration.domains)} curves are too many")
    return policy


def _check_curve(curve: Curve) -> None:
    numbers = [curve.bias, *curve.weights.values(), *itertools.chain.from_iterable(curve.steps)]
    if not all(map(math.isfinite, numbers)) or len(numbers) > ENTRIES_MAX:
        raise PolicyError("a curve has numbers that are none, or too many")
    if any(later[0] < earlier[0] or later[1] < earlier[1] for earlier, later in itertools.pairwise(curve.steps)):
        raise PolicyError("the steps of a curve do not rise")
    if not all(0.0 <= probability <= 1.0 for _, probability in curve.steps):
        raise PolicyError("a step of a curve is no probability")
