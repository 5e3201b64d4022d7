"""The command line inside this process: starting another takes seconds."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

from mixopt.cli.main import run_command_line


@dataclass(frozen=True)
class Ended:
    """What a command printed, and its exit code."""

    code: int
    out: str
    error: str


def mixopt(*arguments: object) -> Ended:
    """Run a command."""
    out, error, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["mixopt", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(error):
            run_command_line()
    except SystemExit as ended:
        return Ended(int(ended.code or 0), out.getvalue(), error.getvalue())
    finally:
        sys.argv = before
    return Ended(0, out.getvalue(), error.getvalue())
