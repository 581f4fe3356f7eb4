"""Entry point: ``python -m collegium_cli VERB …``."""

from __future__ import annotations

import sys

from collegium_cli.arguments import parser


def main() -> int:
    """Parses the command line and runs the verb; returns the exit code."""
    options = parser().parse_args()
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
