"""Why a model was chosen: what the router says of its choice, for whoever looks and whoever learns.

Here: the route of one attempt, and the codes of its reasons. Not here: how it is found (learning's room ``routing``).
The router makes a route for every attempt of ``auto``; a named model has none, because the client chose. It travels
with the attempt, and the worker repeats it in the message that ends it, so that events alone tell what was chosen,
among whom, with which chance, and what came of it. One rule: nothing a person wrote, and nothing computed from it that
could tell of it, stands here in the open; the question's features are sealed with their tenant's key, and end with it.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from collegium_contracts.envelope import Envelope
from collegium_contracts.experiments import Trial

# What the envelope of a question's features is sealed for.
FEATURES_PURPOSE: Final = "route.features"

# Codes of reasons, and what they say to people; codes that a reader does not know are shown as they are.
REASONS: Final[dict[str, str]] = {
    "no_policy": "no policy stands: the highest rank that may answer",
    "cold_start": "too little is known here: the highest rank that may answer",
    "expected_best": "the best that is expected for its price",
    "good_enough": "the cheapest that is expected to be as good",
    "quality_floor": "cheaper ones are expected below the wanted quality",
    "certified": "within the loss that was proven on earlier tasks",
    "novel": "unlike anything known",
    "explored": "drawn to learn from",
    "trial": "drawn to learn whether it is good enough to be preferred",
    "share": "its rank's share of tasks was due",
    "spending": "more was spent than was to be: cheaper ones are preferred",
    "budget": "dearer ones are over the task's budget",
    "deadline": "others are expected to take too long",
    "only_candidate": "nobody else may answer",
    "not_available": "who was preferred could not be asked",
    "another_try": "who was chosen first failed",
    "experiment": "given to this arm of an experiment",
    "flag": "a flag asks for it",
    "member": "the cheapest that the panel asked least",
    "step": "of the rank whose step it is",
    "judge": "the best to judge the answers of others",
    "no_panel": "nobody else could be asked beside it",
    "no_features": "decided without the question's features, which were not to be had in time",
}


class Route(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why this model: decided by which policy, among which candidates, with which chance, expecting what.

    ``policy_version`` 0: no policy stood; ``policy_of`` says whose it is. ``domain`` is where the policy saw the task.
    ``propensity`` is the chance (0 to 1] with which the model was drawn, 1 where nothing was drawn; ``explored`` marks
    a draw that was made to learn. ``quality`` (0 to 1) is what was expected of the model, ``gain`` how much more of the
    best of the candidates; none where nothing was expected. ``reasons`` are codes, the weightiest first.

    ``features`` (none: not known, or not to be kept) seals what the policy's models see of the question: its embedding,
    quantised (see learning's room ``routing``), by ``embedder``. ``trial`` (none: in none) says of which experiment or
    flag the task is part, in which arm; a task that named its model has a route where it is part of one.
    """

    model: str
    rank: Literal["student", "ta", "teacher"]
    domain: str = ""
    policy_version: int = 0
    policy_of: Literal["", "tenant", "operator"] = ""
    propensity: float = 1.0
    explored: bool = False
    reasons: list[str] = []
    quality: float | None = None
    gain: float | None = None
    candidates: list[str] = []
    embedder: str = ""
    features: Envelope | None = None
    trial: Trial | None = None
