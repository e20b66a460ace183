"""`python -m mlkd.report <run folder>`: write a run's report.html anew."""

from __future__ import annotations

import sys
from pathlib import Path

from mlkd.errors import MlkdError
from mlkd.report.html import write_report


def main(arguments: list[str]) -> int:
    """Write the report of each folder; returns the exit code."""
    if not arguments or any(argument.startswith("-") for argument in arguments):
        print("usage: python -m mlkd.report <run folder> ...", file=sys.stderr)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    try:
        for folder in arguments:
            print(write_report(Path(folder)))
    except MlkdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
