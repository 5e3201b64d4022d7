"""The command line: parse, call the library, print the answer and the next step.

A file for each kind of command; `mixopt.cli.main` puts them together. Everything but typer is
imported by the command that needs it, so that `--help` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.cli.main import run_command_line as run_command_line
    from mixopt.cli.options import app as app
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "main": ["run_command_line"],
            "options": ["app"],
        },
    )
