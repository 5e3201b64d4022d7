"""The command line: parse, call the library, print the answer and the next step.

A mistake of the user's is one line on standard error and exit code 2; so is a machine that has no
room left. Whatever else is raised is a defect of ours: one line, exit code 70 and a log.
"""

from __future__ import annotations

import sys

from mixopt.cli import (
    before_a_run,
    experts,
    exports,
    fits,
    predictions,
    proposals,
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
from mixopt.cli.options import app
from mixopt.errors import MixoptError, OtherRankError
from mixopt.system import without_secrets

# Each adds its commands to `app`.
COMMANDS = (
    step_commands,
    sweep_commands,
    before_a_run,
    proposals,
    predictions,
    fits,
    training,
    tracking,
    experts,
    exports,
    verification,
    work_tasks,
    tasks,
    task_folders,
)

INTERRUPTED = "mixopt: interrupted; the same command goes on from here"


def run_command_line() -> None:
    """Run a command; turn what it raises into one line and an exit code."""
    try:
        app()
    except OtherRankError:
        raise SystemExit(2) from None
    except MixoptError as error:
        sys.stderr.write(f"mixopt: {without_secrets(str(error))}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write(f"{INTERRUPTED}\n")
        raise SystemExit(130) from None
    except SystemExit as ended:
        if ended.code == 130:  # Typer has caught the interrupt
            sys.stderr.write(f"{INTERRUPTED}\n")
        raise
    except BaseException as error:  # polars panics are no Exception
        no_room = no_room_line(error)
        sys.stderr.write(f"mixopt: {no_room or defect_line(error)}\n")
        raise SystemExit(2 if no_room else OUR_DEFECT) from None
