"""The user's command and how it is told of a trial: its words, its variables, the mixture's form.

A string is split as a shell would split it, quotes included, and only then filled in, so that a
folder with a space stays one word. No shell is involved: who wants one writes `bash -c '...'`, and
takes values from the environment there: `"$MIXOPT_OUT"`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import yaml

from mixopt.corpus import Corpus
from mixopt.errors import ConfigError, did_you_mean
from mixopt.integrations import export_mixture, exporter, exporter_names
from mixopt.mixture import Mixture, Phases
from mixopt.system import write_json, write_text
from mixopt.trials import Training, Trial
from mixopt_proxies.command.result_file import UNITS, check_losses

PLACEHOLDERS = ("mixture", "trial", "seed", "tokens", "out", "gpus", "corpus")
MIXTURE, TRIAL = "mixture.yaml", "trial.json"
_FOR_A_SHELL = frozenset({"|", "||", "&&", ";", "&", ">", ">>", "<", "2>", "2>&1", "&>"})
_INTERPRETER = re.compile(r"python[\d.]*|bash|sh|ruby|perl|julia|Rscript")


@dataclass(frozen=True)
class TrainerCommand:
    """A command that trains one trial and leaves its losses; fields are those of `proxy`.

    Attributes:
        run: The command, with `{seed}` and the like in it.
        result: The file that it writes, relative to `{out}`; or a glob.
        losses: A pattern with `{domain}`, or a name or glob for each evaluation domain.
        unit: Of the losses.
        mixture_format: The tool whose form the mixture is written in, beside `mixture.yaml`.
        paths: The trainer's own data by domain, for that form.
        folder: Where the command runs; `{out}` when None.
        timeout: Seconds that it has; None for no limit.
        retries: How often it is run again after it failed.
        words: Of the command.
    """

    run: str | Sequence[str]
    result: str
    losses: str | Mapping[str, str] | None = None
    unit: str = "nats_per_token"
    mixture_format: str | None = None
    paths: Mapping[str, Any] | None = None
    folder: str | None = None
    timeout: float | None = None
    retries: int = 0
    words: list[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check what can be checked without a corpus."""
        path, tool = PurePath(self.result), self.mixture_format
        if not self.result or path.is_absolute() or ".." in path.parts:
            raise ConfigError(
                f"proxy.result: {self.result!r}; need a file that the command writes below {{out}}"
            )
        if self.unit not in UNITS:
            raise ConfigError(f"proxy.unit: {self.unit!r}; need {' or '.join(UNITS)}")
        if tool is None and self.paths is not None:
            raise ConfigError("proxy.paths: are for proxy.mixture_format; give it too")
        if tool is not None and tool not in exporter_names():
            near = did_you_mean(tool, exporter_names())
            raise ConfigError(f"proxy.mixture_format: unknown tool {tool!r}{near}")
        check_losses(self.losses)
        object.__setattr__(self, "words", _split(self.run))

    @property
    def place(self) -> Path | None:
        """Where the command runs; None for a trial's own folder."""
        return None if self.folder is None else Path(self.folder).expanduser().resolve()

    @property
    def identity(self) -> dict[str, Any]:
        """What its results depend on."""
        return {
            "run": self.words,
            "mixture_format": self.mixture_format,
            "paths": None if self.paths is None else dict(self.paths),
            "folder": self.folder,
        }

    def check_here(self) -> None:
        """Check that the command's folder, program and script are there, on this machine."""
        place, program = self.place, self.words[0]
        where = f" from {place}" if place is not None else ""
        if place is not None and not place.is_dir():
            raise ConfigError(f"proxy.folder: {place}: no such folder")
        if "{" not in program and not _is_program(program, place):
            hint = "; write env NAME=value before the program" if "=" in program else ""
            raise ConfigError(f"proxy.run: no such program{where}: {program!r}{hint}")
        script = self.words[1] if len(self.words) > 1 else "-"
        if _INTERPRETER.fullmatch(Path(program).name) and not script.startswith(("-", "{")):
            # In the trial's own folder there may be one that is written with the mixture.
            path = Path(script) if place is None else place / script
            if path.is_absolute() and not path.exists():
                raise ConfigError(f"proxy.run: no such script{where}: {script!r}")
        for word in self.words[1:] if place is None else ():
            if not word.startswith(("-", "/", "{")) and "." in word and Path(word).is_file():
                raise ConfigError(
                    f"proxy.run: {word!r} is not in the trial's own folder, where the command runs;"
                    f" give its whole path, or proxy.folder: {Path.cwd()}"
                )

    def filled(self, values: Mapping[str, str]) -> list[str]:
        """Return the words of one trial; `values` has all of `PLACEHOLDERS`."""
        return [_filled(word, values) for word in self.words]

    def check_corpus(self, corpus: Corpus, training: Training) -> None:
        """Check that losses are of the corpus's domains, and that a mixture can be written."""
        check_losses(self.losses, corpus.evaluation_names)
        if self.mixture_format is not None:
            self._fragment(Mixture.uniform(corpus.domain_names), corpus, training)

    def prepared(
        self, trial: Trial, corpus: Corpus, training: Training, out: Path
    ) -> tuple[list[str], dict[str, str]]:
        """Write what the command reads of a trial; return its words and its environment."""
        write_json(
            out / TRIAL,
            {
                "trial": trial.name,
                "seed": command_seed(trial),
                "tokens": training.tokens,
                "eval_every": training.eval_every,
                "mixture": trial.mixture.fingerprint,
                "weights": dict(trial.mixture),
                "evaluation": list(corpus.evaluation_names),
                "corpus": str(corpus.path.resolve()),
            },
        )
        values = {
            "mixture": str(self._write_mixture(trial.mixture, corpus, training, out).resolve()),
            "trial": trial.name,
            "seed": str(command_seed(trial)),
            "tokens": str(training.tokens),
            "out": str(out.resolve()),
            "gpus": str(_visible_gpus()),
            "corpus": str(corpus.path.resolve()),
        }
        named = {f"MIXOPT_{name.upper()}": value for name, value in values.items()}
        return self.filled(values), {**os.environ, **named}

    def _write_mixture(
        self, mixture: Mixture, corpus: Corpus, training: Training, out: Path
    ) -> Path:
        """Write a mixture, and return the file that the trainer reads."""
        if training.phases is None:
            mixture.to_file(out / MIXTURE)
        else:
            content = {"phases": Phases(training.phases).content(mixture)}
            write_text(out / MIXTURE, yaml.safe_dump(content, sort_keys=False))
        if self.mixture_format is None:
            return out / MIXTURE
        path = out / f"mixture_{self.mixture_format}{exporter(self.mixture_format).suffix}"
        write_text(path, self._fragment(mixture, corpus, training))
        return path

    def _fragment(self, mixture: Mixture, corpus: Corpus, training: Training) -> str:
        assert self.mixture_format is not None, "only a tool's form is text of an exporter"
        shards = {domain.name: domain.train for domain in corpus.domains}
        sizes = {name: s.tokens / s.documents for name, s in shards.items() if s and s.documents}
        return export_mixture(
            mixture,
            self.mixture_format,
            inventory=training.inventory or corpus.inventory,
            tokens=training.tokens,
            paths=self.paths,
            sample_tokens=sizes if len(sizes) == len(shards) else None,
        )


def command_seed(trial: Trial) -> int:
    """Return the seed of a trial's command: 31 bits of its own, which any trainer takes."""
    return trial.seed % (1 << 31)


def _visible_gpus() -> int:
    """Count the GPUs that this process was given; 0 where none was named."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return len([name for name in given.split(",") if name.strip() not in ("", "-1")])


def _is_program(program: str, place: Path | None) -> bool:
    if os.sep not in program:
        return shutil.which(program) is not None
    path = Path(program) if place is None else place / program
    return path.is_absolute() and os.access(path, os.X_OK)


def _split(run: str | Sequence[str]) -> list[str]:
    try:
        words = shlex.split(run) if isinstance(run, str) else [str(word) for word in run]
    except ValueError as error:
        raise ConfigError(f"proxy.run: cannot be split into words: {error}") from error
    if not words:
        raise ConfigError("proxy.run: is empty; give the command that trains one trial")
    for word in words:
        if word in _FOR_A_SHELL:
            raise ConfigError(
                f"proxy.run: {word!r} is for a shell, but this command runs without one; "
                "write bash -c '...', with \"$MIXOPT_OUT\" and the like in it"
            )
        _filled(word, dict.fromkeys(PLACEHOLDERS, ""))
    return words


def _filled(word: str, values: Mapping[str, str]) -> str:
    try:
        parts = list(string.Formatter().parse(word))
    except ValueError as error:
        raise ConfigError(
            f"proxy.run: a single brace in {word!r} ({error}); a brace itself is written twice"
        ) from error
    filled = ""
    for literal, name, form, conversion in parts:
        if name is not None and (name not in values or form or conversion):
            known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            near = did_you_mean(name, PLACEHOLDERS).partition("; known")[0]
            raise ConfigError(
                f"proxy.run: unknown placeholder {{{name}}} in {word!r}{near}; known: {known}; a"
                " brace itself is written twice"
            )
        filled += literal + values.get(name or "", "")
    return filled
