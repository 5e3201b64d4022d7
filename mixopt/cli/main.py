"""The command line: parse, call the library, print the answer and the next step.

A mistake of the user's is one message on standard error and exit code 2; so is a machine that has
no room left. Whatever else is raised is a defect of ours: one message, exit code 70 and a log.
"""

from __future__ import annotations

import io
import sys
import warnings
from typing import Annotated, Any

import typer

from mixopt.cli import (
    anneals,
    before_a_run,
    experts,
    exports,
    fits,
    model_export,
    predictions,
    proposals,
    starting,
    step_commands,
    sweep_commands,
    task_folders,
    tasks,
    tracking,
    training,
    verification,
    work_tasks,
)
from mixopt.cli.last_guard import OUR_DEFECT, defect_line, no_room_line
from mixopt.cli.options import app, complain, show_version
from mixopt.errors import MixoptError, OtherRankError
from mixopt.system import without_secrets

# Each adds its commands to `app`.
COMMANDS = (
    starting,
    step_commands,
    sweep_commands,
    before_a_run,
    anneals,
    proposals,
    predictions,
    fits,
    training,
    tracking,
    experts,
    exports,
    model_export,
    verification,
    work_tasks,
    tasks,
    task_folders,
)

INTERRUPTED = "interrupted; the same command resumes"


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """How much of each data domain should a language model see?"""


def run_command_line() -> None:
    """Run a command; turn what it raises into one message and an exit code."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        _print_anywhere()
        _run_command()


def _print_anywhere() -> None:
    """Print what a terminal's encoding lacks as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    complain(f"warning: {without_secrets(str(message))}")


def _run_command() -> None:
    try:
        code = app(prog_name="mixopt", standalone_mode=False)
        if isinstance(code, int) and code:
            raise SystemExit(code)
    except OtherRankError:
        raise SystemExit(2) from None
    except MixoptError as error:
        complain(without_secrets(str(error)))
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        complain(INTERRUPTED)
        raise SystemExit(130) from None
    except SystemExit as ended:
        if ended.code == 130:  # Typer has caught the interrupt
            complain(INTERRUPTED)
        raise
    except typer.Abort:  # standard input ended
        raise SystemExit(1) from None
    except BaseException as error:  # polars panics are no Exception
        if hasattr(error, "format_message"):  # a mistake in the words of the command itself
            _show_misuse(error)
            raise SystemExit(2) from None
        no_room = no_room_line(error)
        complain(no_room or defect_line(error))
        raise SystemExit(2 if no_room else OUR_DEFECT) from None


def _show_misuse(error: Any) -> None:
    """Say in a line which word of a command is wrong; a command without any shows its help."""
    message = error.format_message().strip()
    if "\n" in message:
        error.show()
        return
    context = getattr(error, "ctx", None)
    path = "mixopt" if context is None else str(context.command_path)
    where = path.partition(" ")[2]
    said = f"{message[:1].lower()}{message[1:].removesuffix('.')}; see {path} --help"
    complain(without_secrets(f"{where}: {said}" if where else said))
