"""A simulated model behind OpenAI's HTTP interface: exact, scriptable, and cheap enough for benchmarks.

    async with ModelSimulator() as simulator:
        simulator.script(Rule(Behaviour(status=429), model="busy", times=2))
        client = AsyncOpenAI(base_url=simulator.base_url, api_key="any")
        ...
        assert simulator.counts().models["busy"].failed == 2

or, for anyone's own trials, `python -m collegium_testing.simulator --port 8900`.

Here: the public names. The parts, in reading order: wire.py (shapes), answers.py (what it says), script.py
(how it behaves), prompt_cache.py (what it has read before), completion.py (the bytes of an answer), performance.py
(waits and endings), tally.py (counts), endpoint.py (routes), server.py (the object). Not here: a real model.

The one rule: the same requests in the same order get the same answers.
"""

from collegium_testing.simulator.script import (
    Behaviour,
    RecordedUsage,
    Recording,
    Rule,
    ScriptError,
    ToolCall,
    read_script,
)
from collegium_testing.simulator.server import ModelSimulator
from collegium_testing.simulator.tally import Counts, LoggedCall, ModelCounts

__all__ = [
    "Behaviour",
    "Counts",
    "LoggedCall",
    "ModelCounts",
    "ModelSimulator",
    "RecordedUsage",
    "Recording",
    "Rule",
    "ScriptError",
    "ToolCall",
    "read_script",
]
