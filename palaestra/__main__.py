"""The command `palaestra`, also `python -m palaestra`."""

import sys

from palaestra.errors import UserError


def main() -> None:
    """Run the command line; bad input ends with its message and exit code 2."""
    from palaestra.runs.cli import app

    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
