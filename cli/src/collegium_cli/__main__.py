"""Entry point: ``python -m collegium_cli VERB …``."""

from __future__ import annotations

import os
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
        # Whoever read the output has seen enough; the interpreter would complain about it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
