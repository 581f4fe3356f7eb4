"""The process that serves one GGUF file with llama.cpp: ``python -m collegium_servers.model_process``.

Here lives the setting-up of llama.cpp's own server, which speaks OpenAI's protocol, and nothing else.
One rule: it ends with its parent, however that ends.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import signal
from pathlib import Path
from typing import Any

from collegium_servers.model import API_KEY_VARIABLE

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serves until SIGTERM or SIGINT, or until the parent has ended."""
    arguments = _parse()
    die_with_parent(arguments.parent_pid)
    # Blocked here, so that every thread the server starts inherits it and sigwait alone sees them.
    ending = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    server = _serve(arguments)
    draft = arguments.address_file.with_suffix(".tmp")
    draft.write_text(server.listening_address)
    draft.replace(arguments.address_file)
    signal.sigwait(ending)


def die_with_parent(parent_pid: int) -> None:
    """Asks the kernel to kill this process when its parent ends; ends at once where that has happened already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent_pid:
        raise SystemExit("the parent has ended already")


def _serve(arguments: argparse.Namespace) -> Any:
    # Loaded once the parent is watched, as it takes a while; the wheel has no types.
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(arguments.model)
    params.model_alias = {arguments.name}
    params.hostnames = ["127.0.0.1"]
    params.port = arguments.port
    params.n_parallel = arguments.slots
    params.n_ctx = arguments.context_tokens * arguments.slots
    params.cpuparams.n_threads = arguments.threads
    params.cache_ram_mib = 0  # a prompt cache of 8 GB by default
    params.ui = False
    params.verbosity = 1  # errors: no line for each request
    if key := os.environ.pop(API_KEY_VARIABLE, ""):
        params.api_keys = [key]
    return xllamacpp.Server(params)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serves one GGUF file with llama.cpp on loopback.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--address-file", type=Path, required=True)
    for option in ("parent-pid", "port", "threads", "slots", "context-tokens"):
        parser.add_argument(f"--{option}", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
