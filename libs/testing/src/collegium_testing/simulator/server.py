"""The simulator as an object: listening, scripting and counting from a test or a program.

Here: `ModelSimulator`. Not here: routes (endpoint.py). The one rule: leaving the context closes every connection.
"""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from collegium_testing.http1 import listen, stop_listening
from collegium_testing.simulator.endpoint import Endpoint
from collegium_testing.simulator.prompt_cache import PromptCache
from collegium_testing.simulator.script import Behaviour, Recording, Rule, Script, read_script
from collegium_testing.simulator.tally import MAX_LOGGED_CALLS, Counts, Tally


class ModelSimulator:
    """An OpenAI-compatible endpoint on the running event loop, from `async with` to its end.

    `port` 0 takes a free one. With `api_key`, the `/v1` routes ask for it; `/control` never does. With `models`,
    other names get 404; without, every name is a model. `default` is what happens to calls no rule matches.
    With `prompt_cache_tokens`, beginnings of prompts of so many tokens are kept, and told as cached when they come
    again. `script_file` is a JSON Lines file of recordings and rules (see script.py).
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        models: Iterable[str] = (),
        default: Behaviour | None = None,
        script_file: Path | None = None,
        max_logged_calls: int = MAX_LOGGED_CALLS,
        prompt_cache_tokens: int | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._script = Script(default or Behaviour())
        self._tally = Tally(max_logged_calls)
        cache = PromptCache(prompt_cache_tokens) if prompt_cache_tokens is not None else None
        self._endpoint = Endpoint(self._script, self._tally, api_key, tuple(models), cache)
        self._server: asyncio.Server | None = None
        if script_file is not None:
            recordings, rules = read_script(script_file)
            self._script.record(recordings)
            self._script.replace_rules(rules)

    async def __aenter__(self) -> Self:
        self._server, self._port = await listen(
            self._endpoint.handle, self._host, self._port, self._endpoint.connections
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            await stop_listening(self._server, self._endpoint.connections)

    @property
    def url(self) -> str:
        """The address without a path, e.g. for `/control`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def base_url(self) -> str:
        """The address clients of OpenAI's interface want: it ends in `/v1`."""
        return f"{self.url}/v1"

    def script(self, *rules: Rule | Mapping[str, Any]) -> None:
        """Puts these rules in place of all earlier ones (none: clears them); raises ScriptError for a wrong one."""
        self._script.replace_rules(rules)

    def record(self, *recordings: Recording) -> None:
        """Adds recorded answers; a later one for the same prompt replaces the earlier."""
        self._script.record(recordings)

    def counts(self) -> Counts:
        """Returns a picture of what was served since the start or the last reset."""
        return self._tally.picture(len(self._endpoint.connections))

    def reset(self) -> None:
        """Forgets counts, log and rules; recordings stay."""
        self._tally.reset()
        self._script.replace_rules(())
