"""Damage one file of a run directory in every way, and let every command look at it.

python damaged_run.py RUN FILE SCRATCH: prints a line of JSON for each damage and command: what came
of it, which is `same`, `told`, `refused` (by an error of ours), `other` (another answer) or
`raised`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import traceback
from dataclasses import fields
from pathlib import Path
from typing import Any

DAMAGES = ("truncated", "flipped", "emptied", "list", "folder", "link", "pipe")
PATIENCE = 60  # seconds in which a command has an answer
COMMANDS = ("status", "report", "propose", "fit", "experts", "load_run")


def damage(path: Path, how: str, outside: Path) -> None:
    """Damage a file."""
    content = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        content[len(content) // 3] ^= 4
        path.write_bytes(content)
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "list":
        path.write_text("[1, {}]\n")
    else:
        path.unlink()
        if how == "folder":
            path.mkdir()
        elif how == "link":
            outside.write_bytes(content)
            path.symlink_to(outside)
        else:
            os.mkfifo(path)


def answer(command: str, run: Path, scratch: Path) -> str:
    """Return what a command says, without the guard of the command line."""
    from mixopt.cli.main import app
    from mixopt.run_directory import load_run

    if command == "load_run":
        found = load_run(run)
        made = (whole(found.fit), whole(found.proposal))
        parts = (found.trials.table.drop("seconds", strict=False), *made)
        return "\n".join(map(repr, (*parts, found.design, sorted(found.natural.items()))))
    asked = [command, str(run)]
    if command == "fit":
        asked += ["--test", str(scratch / "unseen.parquet")]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        app(asked, standalone_mode=False)
    return printed.getvalue()


def whole(value: Any) -> list[tuple[str, Any]]:
    """Return all fields of a value: its `repr` has some of them alone."""
    return [(one.name, getattr(value, one.name)) for one in fields(value)]


def outcome(path: str, command: str, run: Path, scratch: Path, expected: str) -> tuple[str, str]:
    """Return what came of a command, and its message."""
    from mixopt.errors import MixoptError

    signal.signal(signal.SIGALRM, _hung)
    signal.alarm(PATIENCE)
    try:
        said = answer(command, run, scratch)
    except MixoptError as error:
        return ("refused" if "\n" not in str(error) else "raised"), str(error)
    except BaseException as error:
        return "raised", "".join(traceback.format_exception(error)[-3:])
    finally:
        signal.alarm(0)
    if said == expected:
        return "same", ""
    # A damaged part is told, or made again first; an edited proposal is read as a mixture of one's
    # own.
    told = (
        "damaged" in said
        or said.startswith("next: mixopt")
        or (command == "load_run" and path == "proposal.yaml")
    )
    return ("told" if told else "other"), said


def _hung(*_: object) -> None:
    raise TimeoutError(f"no answer in {PATIENCE} s")


def main(whole: str, file: str, scratch: str) -> None:
    """Try each damage with each command."""
    folder, run = Path(scratch), Path(scratch, "run")

    def fresh() -> None:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)

    fresh()
    expected = {command: said_or_refused(command, run, folder) for command in COMMANDS}
    for how in DAMAGES:
        fresh()
        damage(run / file, how, folder / "outside")
        for command in COMMANDS:
            sys.stdout.write(json.dumps({"case": [file, how, command]}) + "\n")
            sys.stdout.flush()
            found, message = outcome(file, command, run, folder, expected[command])
            sys.stdout.write(json.dumps({"found": found, "message": message}) + "\n")


def said_or_refused(command: str, run: Path, scratch: Path) -> str:
    """Return what a command says of the whole run; `experts` refuses one without experts."""
    from mixopt.errors import MixoptError

    try:
        return answer(command, run, scratch)
    except MixoptError as error:
        return f"refused: {error}"


if __name__ == "__main__":
    main(*sys.argv[1:])
