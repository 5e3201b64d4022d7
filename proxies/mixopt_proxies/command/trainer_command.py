"""The user's command and its inputs for a trial: words, environment variables, mixture file.

A string is split as by a shell, including quotes, and only then filled in, so that a folder with a
space stays one word. The command runs without a shell; to use one, write `bash -c '...'` and take
values from the environment: `"$MIXOPT_OUT"`.
"""

import os
import re
import shlex
import shutil
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, get_args

import yaml

from mixopt.corpus import Corpus
from mixopt.errors import ConfigError, did_you_mean
from mixopt.integrations import export_mixture, exporter, exporter_names
from mixopt.mixture import Mixture, Phases
from mixopt.sweeps import Training
from mixopt.system import write_json, write_text
from mixopt.trials import Trial, Unit
from mixopt_proxies.command.result_file import DOMAIN

PLACEHOLDERS = ("mixture", "trial", "seed", "tokens", "out", "gpus", "corpus")
MIXTURE = "mixture.yaml"
TRIAL = "trial.json"
_SHELL_SYNTAX = frozenset({"|", "||", "&&", ";", "&", ">", ">>", "<", "2>", "2>&1", "&>"})
_INTERPRETER = re.compile(r"python[\d.]*|bash|sh|ruby|perl|julia|Rscript")


@dataclass(frozen=True)
class TrainerCommand:
    """A command that trains one trial and writes its losses; fields are those of `proxy`.

    Attributes:
        run: The command, with placeholders such as `{seed}`.
        result: The result file, relative to `{out}`; or a glob.
        losses: A pattern with `{domain}`, or a name or glob for each evaluation domain.
        unit: Unit of the losses.
        mixture_format: The tool in whose format the mixture is written, beside `mixture.yaml`.
        paths: The trainer's own data by domain, for that format.
        folder: Working directory of the command; None: `{out}`.
        timeout: Time limit in seconds; None: no limit.
        retries: Maximum number of reruns after a failure.
        words: The split words of `run`.
    """

    run: str | Sequence[str]
    result: str
    losses: str | Mapping[str, str] | None = None
    unit: Unit = "nats_per_token"
    mixture_format: str | None = None
    paths: Mapping[str, Any] | None = None
    folder: str | None = None
    timeout: float | None = None
    retries: int = 0
    words: list[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the fields, as far as possible without a corpus."""
        path = PurePath(self.result)
        if not self.result or path.is_absolute() or ".." in path.parts:
            raise ConfigError(
                f"proxy.result: {self.result!r}; must be a file of the command below {{out}}"
            )
        if self.unit not in get_args(Unit):
            raise ConfigError(f"proxy.unit: {self.unit!r}; must be {' or '.join(get_args(Unit))}")
        tool = self.mixture_format
        if tool is None and self.paths is not None:
            raise ConfigError("proxy.paths: needs proxy.mixture_format")
        if tool is not None and tool not in exporter_names():
            near = did_you_mean(tool, exporter_names())
            raise ConfigError(f"proxy.mixture_format: unknown tool {tool!r}{near}")
        if isinstance(self.losses, str) and DOMAIN not in self.losses:
            raise ConfigError(
                f"proxy.losses: {self.losses!r} gives every domain the same loss; write {DOMAIN}"
                " in place of its name"
            )
        object.__setattr__(self, "words", _split(self.run))

    @property
    def place(self) -> Path | None:
        """Working directory of the command; None: a trial's own folder."""
        return None if self.folder is None else Path(self.folder).expanduser().resolve()

    @property
    def identity(self) -> dict[str, Any]:
        """The fields that its results depend on."""
        return {
            "run": self.words,
            "mixture_format": self.mixture_format,
            "paths": None if self.paths is None else dict(self.paths),
            "folder": self.folder,
        }

    def check_here(self) -> None:
        """Check that the command's folder, program and script exist on this machine."""
        place = self.place
        where = ""
        if place is not None:
            where = f" from {place}"
            if not place.is_dir():
                raise ConfigError(f"proxy.folder: {place}: no such folder")
        program = self.words[0]
        # A relative path may be a file of the trial's own folder.
        if "{" not in program and not _is_program(program, place):
            hint = "; write env NAME=value before the program" if "=" in program else ""
            raise ConfigError(f"proxy.run: no such program{where}: {program!r}{hint}")
        script = self._script()
        if script is not None:
            path = (place or Path()) / script
            if path.is_absolute() and not path.exists():
                raise ConfigError(f"proxy.run: no such script{where}: {script!r}")
        if place is None:
            self._check_no_local_files()

    def _script(self) -> str | None:
        """Return the script that an interpreter runs; None: not known."""
        if len(self.words) < 2 or not _INTERPRETER.fullmatch(Path(self.words[0]).name):
            return None
        script = self.words[1]
        return None if script.startswith(("-", "{")) else script

    def _check_no_local_files(self) -> None:
        """Check that no argument is a file here that a trial's own folder does not have."""
        for word in self.words[1:]:
            if not word.startswith(("-", "/", "{")) and "." in word and Path(word).is_file():
                raise ConfigError(
                    f"proxy.run: {word!r} is not in the trial's own folder, where the command runs;"
                    f" give its absolute path, or proxy.folder: {Path.cwd()}"
                )

    def filled(self, values: Mapping[str, str]) -> list[str]:
        """Return the words for one trial; `values` has all `PLACEHOLDERS`."""
        return [_fill(word, values) for word in self.words]

    def prepared(
        self, trial: Trial, corpus: Corpus, training: Training, out: Path
    ) -> tuple[list[str], dict[str, str]]:
        """Write the command's input files for a trial; return its words and environment."""
        place = str(corpus.path.resolve())
        seed = command_seed(trial)
        content = {
            "trial": trial.name,
            "seed": seed,
            "tokens": training.tokens,
            "eval_every": training.eval_every,
            "mixture": trial.mixture.fingerprint,
            "weights": dict(trial.mixture),
            "evaluation": list(corpus.evaluation_names),
            "corpus": place,
        }
        write_json(out / TRIAL, content)
        path = self._write_mixture(trial.mixture, corpus, training, out)
        values = {
            "mixture": str(path.resolve()),
            "trial": trial.name,
            "seed": str(seed),
            "tokens": str(training.tokens),
            "out": str(out.resolve()),
            "gpus": str(_visible_gpus()),
            "corpus": place,
        }
        variables = {f"MIXOPT_{name.upper()}": value for name, value in values.items()}
        return self.filled(values), {**os.environ, **variables}

    def _write_mixture(
        self, mixture: Mixture, corpus: Corpus, training: Training, out: Path
    ) -> Path:
        """Write the mixture, also in the format of a tool; return the file for the command."""
        path = out / MIXTURE
        if training.phases is None:
            mixture.to_file(path)
        else:
            phases = {"phases": Phases(training.phases).content(mixture)}
            write_text(path, yaml.safe_dump(phases, sort_keys=False))
        tool = self.mixture_format
        if tool is None:
            return path
        sample_tokens = corpus.sample_tokens
        is_complete = len(sample_tokens) == len(corpus.training)
        fragment = export_mixture(
            mixture,
            tool,
            inventory=training.inventory or corpus.inventory,
            tokens=training.tokens,
            paths=self.paths,
            sample_tokens=sample_tokens if is_complete else None,
        )
        path = out / f"mixture_{tool}{exporter(tool).suffix}"
        write_text(path, fragment)
        return path


def command_seed(trial: Trial) -> int:
    """Return the seed of a trial's command: 31 bits of its seed, valid for any trainer."""
    return trial.seed % (1 << 31)


def _visible_gpus() -> int:
    """Return the number of GPUs in CUDA_VISIBLE_DEVICES; 0 if it is not set."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return sum(name.strip() not in ("", "-1") for name in names)


def _is_program(program: str, place: Path | None) -> bool:
    if os.sep not in program:
        return shutil.which(program) is not None
    path = (place or Path()) / program
    return path.is_absolute() and os.access(path, os.X_OK)


def _split(run: str | Sequence[str]) -> list[str]:
    try:
        words = shlex.split(run) if isinstance(run, str) else list(map(str, run))
    except ValueError as error:
        raise ConfigError(f"proxy.run: cannot be split into words: {error}") from error
    if not words:
        raise ConfigError("proxy.run: is empty; give the command that trains one trial")
    for word in words:
        if word in _SHELL_SYNTAX:
            raise ConfigError(
                f"proxy.run: {word!r} is shell syntax, but this command runs without a shell; "
                "write bash -c '...', with variables such as \"$MIXOPT_OUT\""
            )
        _fill(word, dict.fromkeys(PLACEHOLDERS, ""))
    return words


def _fill(word: str, values: Mapping[str, str]) -> str:
    try:
        parts = list(string.Formatter().parse(word))
    except ValueError as error:
        raise ConfigError(
            f"proxy.run: a single brace in {word!r} ({error}); write literal braces twice"
        ) from error
    filled = ""
    for literal, name, form, conversion in parts:
        if name is not None and (name not in values or form or conversion):
            listed = ", ".join(f"{{{placeholder}}}" for placeholder in PLACEHOLDERS)
            near = did_you_mean(name, PLACEHOLDERS).partition("; known")[0]
            raise ConfigError(
                f"proxy.run: unknown placeholder {{{name}}} in {word!r}{near}; known: {listed};"
                " write literal braces twice"
            )
        filled += literal + values.get(name or "", "")
    return filled
