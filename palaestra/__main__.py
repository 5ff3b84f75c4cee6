"""The command `palaestra`, also `python -m palaestra`."""

import sys
import warnings
from typing import Any

from palaestra.errors import RunError, UserError


def main() -> None:
    """Run the command line; exit code 2 for bad input, 1 for a run that failed, no traceback."""
    try:
        from palaestra.runs.cli.app import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("palaestra"):
            raise
        print(f"error: {sys.executable} does not have the package {error.name}", file=sys.stderr)
        sys.exit(2)

    warnings.showwarning = _show_warning  # type: ignore[assignment]
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _show_warning(message: Warning | str, *where: Any) -> None:
    """Tell a warning as a sentence; the line of code that it came from says nothing to a user."""
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
