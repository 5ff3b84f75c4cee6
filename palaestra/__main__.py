"""The command `palaestra`, also `python -m palaestra`."""

import sys

from palaestra.errors import RunError, UserError


def main() -> None:
    """Run the command line; exit code 2 for bad input, 1 for a run that failed, no traceback."""
    from palaestra.runs.cli import app

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


if __name__ == "__main__":
    main()
