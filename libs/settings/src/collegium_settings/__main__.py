"""``python -m collegium_settings [FILE]``: prints the effective configuration as YAML, secrets masked.

Exit code 0, or 1 with every problem on standard error.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from collegium_settings.errors import SettingsError
from collegium_settings.load import effective, load


def main(arguments: list[str]) -> int:
    """Prints the configuration of a file (none: the defaults) under this process's environment."""
    if len(arguments) > 1 or any(one.startswith("-") for one in arguments):
        sys.stderr.write("usage: python -m collegium_settings [FILE]\n")
        return 2
    try:
        settings = load(Path(arguments[0]) if arguments else None, os.environ)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    import yaml  # noqa: PLC0415 - not needed to say what is wrong

    sys.stdout.write(yaml.safe_dump(effective(settings), sort_keys=False, allow_unicode=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
