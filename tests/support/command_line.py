"""The command line inside this process: starting another takes seconds."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

from mixopt.cli.main import run_command_line


class Ended(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    error: str


def mixopt(*arguments):
    """Run a command."""
    out, error, before, code = io.StringIO(), io.StringIO(), sys.argv, 0
    sys.argv = ["mixopt", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(error):
            run_command_line()
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.argv = before
    return Ended(code, out.getvalue(), error.getvalue())
