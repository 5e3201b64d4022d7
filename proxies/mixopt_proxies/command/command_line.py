"""The words of a command, with a trial's values filled in; no shell is involved.

A string is split as a shell would split it, quotes included, and only then filled in, so that a
folder with a space stays one word. Who wants a shell writes `bash -c '...'`, and takes values from
the environment there: `"$MIXOPT_OUT"`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixopt.errors import ConfigError, did_you_mean

PLACEHOLDERS = ("mixture", "trial", "seed", "tokens", "out", "gpus", "corpus")
_FOR_A_SHELL = frozenset({"|", "||", "&&", ";", "&", ">", ">>", "<", "2>", "2>&1", "&>"})
_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_INTERPRETER = re.compile(r"python[\d.]*|bash|sh|ruby|perl|julia|Rscript")
_DOUBLED = {"{{": "{", "}}": "}"}


class CommandLine:
    """A command with `{seed}` and the like in it."""

    def __init__(self, run: str | Sequence[str]) -> None:
        """Split and check a command."""
        self.words = _split(run)
        if not self.words:
            raise ConfigError("proxy.run: is empty; give the command that trains one trial")
        for word in self.words:
            if word in _FOR_A_SHELL:
                raise ConfigError(
                    f"proxy.run: {word!r} is for a shell, but this command runs without one; "
                    "write bash -c '...', with \"$MIXOPT_OUT\" and the like in it"
                )
            _filled(word, dict.fromkeys(PLACEHOLDERS, ""))

    def filled(self, values: Mapping[str, str]) -> list[str]:
        """Return the words of one trial; `values` has all of `PLACEHOLDERS`."""
        return [_filled(word, values) for word in self.words]

    def check_program(self, folder: Path | None) -> None:
        """Check what shows before a trial runs: the program is there, and so is its script."""
        program = self.words[0]
        if "{" in program or _is_found(program, folder):
            self._check_scripts(folder)
            return
        hint = "; write env NAME=value before the program" if "=" in program else ""
        where = f" from {folder}" if folder is not None else ""
        raise ConfigError(f"proxy.run: no such program{where}: {program!r}{hint}")

    def _check_scripts(self, folder: Path | None) -> None:
        script = self.words[1] if len(self.words) > 1 else "-"
        if _INTERPRETER.fullmatch(Path(self.words[0]).name) and not script.startswith(("-", "{")):
            # In the trial's own folder there may be one that is written with the mixture.
            path = Path(script) if folder is None else folder / script
            if path.is_absolute() and not path.exists():
                where = f" from {folder}" if folder is not None else ""
                raise ConfigError(f"proxy.run: no such script{where}: {script!r}")
        if folder is not None:
            return
        for word in self.words[1:]:
            if not word.startswith(("-", "/", "{")) and "." in word and Path(word).is_file():
                raise ConfigError(
                    f"proxy.run: {word!r} is not in the trial's own folder, where the command runs;"
                    f" give its whole path, or proxy.folder: {Path.cwd()}"
                )


def _is_found(program: str, folder: Path | None) -> bool:
    if os.sep not in program:
        return shutil.which(program) is not None
    path = Path(program) if folder is None else folder / program
    return (folder is not None or path.is_absolute()) and os.access(path, os.X_OK)


def _split(run: str | Sequence[str]) -> list[str]:
    if not isinstance(run, str):
        return [str(word) for word in run]
    try:
        return shlex.split(run)
    except ValueError as error:
        raise ConfigError(f"proxy.run: cannot be split into words: {error}") from error


def _filled(word: str, values: Mapping[str, str]) -> str:
    def one(match: re.Match[str]) -> str:
        text, name = match.group(), match.group(1)
        if text in _DOUBLED:
            return _DOUBLED[text]
        if name is None:
            raise ConfigError(f"proxy.run: a single {text!r} in {word!r}; a brace is {text * 2!r}")
        if name not in values:
            known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            near = did_you_mean(name, PLACEHOLDERS).partition("; known")[0]
            raise ConfigError(
                f"proxy.run: unknown placeholder {text!r}{near}; known: {known}; a brace itself is"
                " written twice"
            )
        return values[name]

    return _BRACES.sub(one, word)
