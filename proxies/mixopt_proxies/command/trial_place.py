"""A trial's folder: the command's input, each attempt, and the finished result.

    <trial>/attempts.json          each attempt that ended: exit code, seconds, why it failed
    <trial>/done.json              the result that counts, with hashes; sealed
    <trial>/attempt-1/mixture.yaml, trial.json, log.txt, and what the command writes

Each attempt has a folder of its own, made by whoever makes it first. So a command that outlived
its worker, on a node that was given up, writes to no other attempt's folder.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixopt.corpus import Corpus
from mixopt.errors import MixoptError, RunError
from mixopt.system import (
    check_name,
    file_hash,
    inside,
    read_json,
    read_sealed,
    write_json,
    write_sealed,
)
from mixopt.trials import Training, Trial

ATTEMPTS, DONE, LOG = "attempts.json", "done.json", "log.txt"
TRIAL = "trial.json"
_MOST_ATTEMPTS = 10_000


@dataclass(frozen=True)
class EndedAttempt:
    """One attempt as `attempts.json` has it.

    Attributes:
        attempt: Its number, from 1.
        started: When, in seconds since 1970.
        seconds: How long its command ran.
        exit_code: Of the command; None where it was ended or never ran.
        reason: Why it failed; None where its command ended well.
    """

    attempt: int
    started: float
    seconds: float
    exit_code: int | None
    reason: str | None


@dataclass(frozen=True)
class DoneResult:
    """The result that a trial has: where, of which command, and how long that ran."""

    folder: Path
    seconds: float


class TrialPlace:
    """The folder of one trial."""

    def __init__(self, folder: Path, trial: Trial, tokens: int, made_by: str) -> None:
        """Name a folder."""
        self.path = folder / check_name(trial.name, "trial", RunError)
        self._trial = trial
        self._identity = {
            "trial": trial.name,
            "mixture": trial.mixture.fingerprint,
            "seed": trial.seed,
            "tokens": tokens,
            "command": made_by,
        }

    def new_attempt(self) -> tuple[int, Path]:
        """Make the folder of the next attempt; return its number too."""
        for number in range(1, _MOST_ATTEMPTS):
            folder = self.path / f"attempt-{number}"
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise RunError(f"{folder}: cannot be made: {error.strerror}") from error
            return number, folder
        raise RunError(f"{self.path}: holds {_MOST_ATTEMPTS} attempts; delete it")

    def note(self, attempt: EndedAttempt) -> None:
        """Add an attempt that has ended."""
        write_json(self.path / ATTEMPTS, [*self._attempts(), asdict(attempt)])

    def finish(self, folder: Path, files: Sequence[Path], seconds: float) -> None:
        """Note that the result in an attempt's folder is that of the trial."""
        hashes = {
            path.relative_to(folder).as_posix(): file_hash(path)
            for found in files
            for path in (sorted(found.rglob("*")) if found.is_dir() else [found])
            if path.is_file() and not path.is_symlink()
        }
        content = {"attempt": folder.name, "files": hashes, "seconds": round(seconds, 3)}
        write_sealed(self.path / DONE, {**self._identity, **content})

    def done(self) -> DoneResult | None:
        """Return the result that is there, if it is of this very trial and has not changed."""
        path = self.path / DONE
        if not path.exists():
            return None
        try:
            content = read_sealed(path, _DoneShape, mend="delete it to run the trial again")
            folder = inside(self.path, content.attempt)
            same = all(
                file_hash(inside(folder, name)) == known for name, known in content.files.items()
            )
        except (MixoptError, OSError):
            return None
        said = {name: getattr(content, name) for name in self._identity}
        return DoneResult(folder, content.seconds) if same and said == self._identity else None

    def _attempts(self) -> list[Any]:
        try:
            found = read_json(self.path / ATTEMPTS)
        except RunError:  # none yet, or damaged: it is for people to read
            return []
        return found if isinstance(found, list) else []


@dataclass(frozen=True)
class _DoneShape:
    trial: str
    mixture: str
    seed: int
    tokens: int
    command: str
    attempt: str
    files: dict[str, str]
    seconds: float


def write_facts(folder: Path, trial: Trial, corpus: Corpus, training: Training) -> None:
    """Write what a command may read of its trial beside the mixture: `trial.json`."""
    content = {
        "trial": trial.name,
        "seed": command_seed(trial),
        "tokens": training.tokens,
        "eval_every": training.eval_every,
        "mixture": trial.mixture.fingerprint,
        "weights": dict(trial.mixture),
        "evaluation": list(corpus.evaluation_names),
        "corpus": str(corpus.path.resolve()),
        "written": time.time(),
    }
    write_json(folder / TRIAL, content)


def command_seed(trial: Trial) -> int:
    """Return the seed of a trial's command: 31 bits of its own, which any trainer takes."""
    return trial.seed % (1 << 31)


def hash_of(values: Mapping[str, Any]) -> str:
    """Return sixteen digits that differ where values do."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
