"""What every verb starts from: settings, the data folder, and the running platform's addresses.

One rule: a configuration error is told with its path and ends the verb with code 2, before anything is connected.
"""

from __future__ import annotations

import os
from pathlib import Path

from collegium_runtime import runtime_file
from collegium_runtime.runtime_file import Runtime
from collegium_settings import Settings, SettingsError, load

from collegium_cli.printing import failed

DATA_VARIABLE = "COLLEGIUM_DATA_DIR"


def settings_of(config: Path | None, data: Path | None, overrides: dict[str, str] | None = None) -> Settings:
    """Returns the settings of file, environment and command line; exits with code 2 where they cannot be used."""
    try:
        return read_settings(config, data, overrides)
    except SettingsError as error:
        raise SystemExit(failed("collegium", error, 2)) from None


def read_settings(config: Path | None, data: Path | None, overrides: dict[str, str] | None = None) -> Settings:
    """Returns the settings of file, environment and command line; raises SettingsError."""
    environ = {**os.environ, **(overrides or {})}
    if data is not None:
        environ[DATA_VARIABLE] = str(data.resolve())
    return load(config, environ)


def quiet_libraries() -> None:
    """Keeps the libraries' logging out of a verb's output: the verb tells what failed, in one line."""
    from collegium_telemetry.logs import configure_logging

    configure_logging("cli", level="critical")


def runtime_of(settings: Settings) -> Runtime:
    """Returns what a running ``up`` wrote on the data folder, or an empty runtime."""
    return runtime_file.read(Path(settings.data_dir)) or Runtime()
