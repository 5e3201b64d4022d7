"""The command line: parse, call the library, print the answer and the next step.

A mistake of the user's is one line on standard error and exit code 2.
"""

from __future__ import annotations

import sys

from mixopt.cli import experts, fits, proposals, step_commands, tracking, training
from mixopt.cli.options import app
from mixopt.errors import MixoptError, OtherRankError
from mixopt.system import without_secrets

# Each adds its commands to `app`.
COMMANDS = (step_commands, proposals, fits, training, tracking, experts)


def run_command_line() -> None:
    """Run a command; turn our errors into one line and exit code 2."""
    try:
        app()
    except OtherRankError:
        raise SystemExit(2) from None
    except MixoptError as error:
        sys.stderr.write(f"mixopt: {without_secrets(str(error))}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write("mixopt: interrupted; the same command goes on from here\n")
        raise SystemExit(130) from None
