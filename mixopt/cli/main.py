"""The command line: parse, call the library, print the answer and the next step."""

import errno
import io
import os
import sys
import tempfile
import traceback
import warnings
from typing import Annotated, Any

import typer
from typer import Option

# Each module adds its commands to `app`; help lists them in this order.
from mixopt.cli import experiment_commands, mixture_commands, transfer_commands
from mixopt.cli.options import app, complain, show
from mixopt.errors import MixoptError, OtherRankError
from mixopt.system import __version__, without_secrets

MODULES = (experiment_commands, mixture_commands, transfer_commands)
INTERRUPTED = "interrupted; the same command resumes"
OUR_DEFECT = 70  # EX_SOFTWARE of sysexits.h
NO_ROOM = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EFBIG,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
)
UNUSABLE = (
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
)


def no_room_line(error: BaseException) -> str | None:
    """Return a message for a full disk, missing memory or an unusable path; else None."""
    if isinstance(error, MemoryError):
        reason = _joined("out of memory", _one_line(str(error)))
        return f"{reason}; the same command resumes"
    if isinstance(error, UnicodeEncodeError):
        text = error.object[error.start : error.end].encode("unicode_escape").decode()
        return f"{text}: the encoding {error.encoding} of this terminal or system has no such text"
    if isinstance(error, OSError):
        place = "" if error.filename is None else f"{_one_line(str(error.filename))}: "
        if error.errno in NO_ROOM:
            return f"{place}{error.strerror}; the same command resumes"
        if error.errno in UNUSABLE and place:
            return f"{place}{error.strerror}"
    return None


def defect_line(error: BaseException) -> str:
    """Write an error's traceback to a private temporary log; return a message that names it."""
    try:
        handle, log = tempfile.mkstemp(prefix="mixopt-", suffix=".log")  # mode 0600
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"{' '.join(sys.argv[:2])}\n")
            traceback.print_exception(error, file=stream)
    except OSError as reason:
        log = f"its traceback, which cannot be written: {reason.strerror}"
    summary = _joined(type(error).__name__, _one_line(str(error)))
    return f"a defect of mixopt: {summary}; please report it with {log}"


def _one_line(text: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())[:300]


def _joined(title: str, detail: str) -> str:
    """Return `title: detail`; the title alone if there is no detail."""
    return f"{title}: {detail}" if detail else title


def _show_version(requested: bool) -> None:
    if requested:
        show(f"mixopt {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """How much of each data domain should a language model see?"""


def run_command_line() -> None:
    """Run a command; turn what it raises into one message and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # escape what the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: complain(
            f"warning: {without_secrets(str(message))}"
        )
        _run_command()


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
        if ended.code == 130:  # Typer caught the interrupt
            complain(INTERRUPTED)
        raise
    except typer.Abort:  # standard input ended
        raise SystemExit(1) from None
    except BaseException as error:  # polars panics do not derive from Exception
        if hasattr(error, "format_message"):  # wrong usage of the command
            _show_misuse(error)
            raise SystemExit(2) from None
        no_room = no_room_line(error)
        complain(no_room or defect_line(error))
        raise SystemExit(2 if no_room else OUR_DEFECT) from None


def _show_misuse(error: Any) -> None:
    """Report wrong usage in one line; a command without arguments shows its help."""
    message = error.format_message().strip().replace("Value error, ", "")
    if "\n" in message:
        error.show()
        return
    path = str(error.ctx.command_path) if error.ctx else "mixopt"
    where = path.partition(" ")[2]
    sentence = f"{message[:1].lower()}{message[1:].removesuffix('.')}; see {path} --help"
    if where:
        sentence = f"{where}: {sentence}"
    complain(without_secrets(sentence))
