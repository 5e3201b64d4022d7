"""The files shared by the owner of a sweep and its tasks: `work/` in the folder of the trials.

    order.json                          what is to be trained; the owner's, or of who came first
    owner.json                          who owns it, renewed while that lives
    tasks/<token>.json                  a task: what it does, renewed while it lives
    claims/<trial>.<attempt>            the token of the task that trains an attempt
    results/<trial>.<attempt>.<token>.json    what became of it
    sizes/ logs/                        group sizes by kind of device; what workers print

All that is needed of the path is that every host sees it: that a rename replaces a file at once,
and that of several who make one file one succeeds. Nothing is locked, nothing that one has written
is changed by another, and a further attempt is a further file. A file that is half written, or is
not what its seal says, is as good as none until it can be read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mixopt.errors import MixoptError, RunError
from mixopt.sweeps.contract import Job, Site
from mixopt.sweeps.on_folder.work_shapes import (
    FORMAT,
    ClaimShape,
    OrderedTrial,
    OrderShape,
    OutcomeShape,
    State,
    TaskShape,
)
from mixopt.system import (
    Owner,
    check_name,
    inside,
    read_json,
    read_sealed,
    seal_of,
    sealed,
    temporary_path,
    write_new,
    write_sealed,
)
from mixopt.trials import WORK, Trial, trial_from_json, trial_to_json

_MEND = "stop the sweep and start it again"


@dataclass(frozen=True)
class WorkOrder:
    """What is to be trained.

    Attributes:
        job: What all trials share, with the paths of this host.
        state: Whether there is work.
        title: What the sweep is called.
        patience: As of `Site`.
        retries: As of `Site`.
        gpus: As of `Site`.
        trials: The trials, each with the attempt that its owner wants.
    """

    job: Job
    state: State
    title: str
    patience: float
    retries: int
    gpus: float | None
    trials: dict[str, OrderedTrial]

    @classmethod
    def of(cls, job: Job, site: Site, trials: Sequence[Trial]) -> WorkOrder:
        """Return a first order of some trials."""
        asked = {one.name: OrderedTrial(trial=trial_to_json(one)) for one in trials}
        return cls(job, "open", site.title, site.patience, site.retries, site.gpus, asked)

    def trial(self, name: str) -> Trial:
        """Return one of its trials."""
        return trial_from_json(self.trials[name].trial, f"trial {name}")


def job_hash(job: Job) -> str:
    """Return which job one is: results of another one are not believed."""
    training = {**asdict(job.training), "files": None}
    content = {"proxy": job.proxy, "options": job.options, "training": training}
    return seal_of(json.loads(json.dumps({**content, "corpus_hash": job.corpus_hash})))


class WorkFolder:
    """The work folder of a folder of trials, as one host sees it."""

    def __init__(self, trials: Path) -> None:
        """Note where it is; nothing is made yet."""
        self.trials, self.path = trials, trials / WORK
        self.order_file, self.owner_file = self.path / "order.json", self.path / "owner.json"
        self.tasks, self.claims = self.path / "tasks", self.path / "claims"
        self.results, self.sizes, self.logs = (
            self.path / name for name in ("results", "sizes", "logs")
        )

    def read_order(self, *, trust: bool = True) -> WorkOrder | None:
        """Return the order; None where none is there.

        Args:
            trust: Whether it may name a corpus outside the run.

        Raises:
            RunError: It is not what was written, or its paths lead out of the run.
        """
        if not self.order_file.exists():
            return None
        found: OrderShape = read_sealed(self.order_file, OrderShape, mend=_MEND)
        trials = {}
        for entry in found.trials:
            trial = trial_from_json(entry.trial, str(self.order_file))
            trials[trial.name] = entry
        job = self._job(found, trust=trust)
        about = (found.state, found.title, found.patience, found.retries, found.gpus)
        return WorkOrder(job, *about, trials)

    def write_order(self, order: WorkOrder) -> None:
        """Replace the order: what its owner does."""
        write_sealed(self.order_file, self._content(order))

    def begin_order(self, order: WorkOrder) -> bool:
        """Write the order unless there is one; tell whether it was written."""
        text = json.dumps(sealed(self._content(order)), indent=1, allow_nan=False)
        return write_new(self.order_file, (text + "\n").encode())

    def set_state(self, state: State) -> bool:
        """Close, cancel or open the order that is there; tell whether that changed it."""
        order = self.read_order()
        if order is None or order.state == state:
            return False
        self.write_order(replace(order, state=state))
        return True

    def write_beat(self, path: Path, content: dict[str, Any]) -> None:
        """Replace a file that says that a process lives, without waiting for the disk."""
        temporary = temporary_path(path)
        with suppress(OSError):  # a disk or network that fails: the next one may work
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(content), encoding="utf-8")
            temporary.replace(path)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)

    def read_owner(self) -> Owner | None:
        """Return who owns the order; None where nobody does, or that cannot be read now."""
        with suppress(MixoptError):
            if self.owner_file.exists():
                return read_json(self.owner_file, Owner)
        return None

    def read_tasks(self) -> dict[str, TaskShape]:
        """Return what the tasks say, by token; one that cannot be read now is left out."""
        found = {}
        for path in _files(self.tasks):
            with suppress(MixoptError):
                task = read_json(path, TaskShape)
                if path.name == f"{task.owner.token}.json":
                    found[task.owner.token] = task
        return found

    def claim(self, trial: str, attempt: int, token: str) -> bool:
        """Claim an attempt for a task; tell whether it was first."""
        content = json.dumps({"token": token}) + "\n"
        return write_new(self._named(self.claims, trial, f".{attempt}"), content.encode())

    def claim_of(self, trial: str, attempt: int) -> str | None:
        """Return the token of the task that has claimed an attempt; None if it cannot be read."""
        with suppress(MixoptError):
            return read_json(self._named(self.claims, trial, f".{attempt}"), ClaimShape).token
        return None

    def claimed(self) -> Iterator[tuple[str, int]]:
        """Yield the attempts that are claimed: trial and number."""
        for path in _files(self.claims):
            trial, _, number = path.name.rpartition(".")
            if trial and number.isdecimal() and len(number) < 7:
                yield trial, int(number)

    def write_outcome(self, outcome: OutcomeShape) -> None:
        """Write what became of an attempt."""
        name = trial_from_json(outcome.trial).name
        suffix = f".{outcome.attempt}.{outcome.token}.json"
        write_sealed(self._named(self.results, name, suffix), outcome.model_dump(mode="json"))

    def outcome_names(self) -> list[str]:
        """Return the names of the files of outcomes."""
        return [path.name for path in _files(self.results)]

    def read_outcome(self, name: str) -> OutcomeShape | None:
        """Return what a file says of an attempt; None while it is not what was written."""
        with suppress(MixoptError):
            found: OutcomeShape = read_sealed(self.results / name, OutcomeShape, mend=_MEND)
            trial = trial_from_json(found.trial).name
            if name == f"{trial}.{found.attempt}.{found.token}.json":
                return found
        return None

    def _content(self, order: WorkOrder) -> dict[str, Any]:
        job = order.job
        training = asdict(job.training)
        if job.training.files is not None:
            training["files"] = self._written(Path(job.training.files))
        return {
            "format": FORMAT,
            "state": order.state,
            "title": order.title,
            "job": {
                "proxy": job.proxy,
                "options": job.options,
                "corpus": self._written(job.corpus),
                "training": training,
                "corpus_hash": job.corpus_hash,
                "verify": job.verify,
            },
            "patience": order.patience,
            "retries": order.retries,
            "gpus": order.gpus,
            "trials": [entry.model_dump(mode="json") for entry in order.trials.values()],
        }

    def _job(self, found: OrderShape, *, trust: bool) -> Job:
        job, training = found.job, found.job.training
        if training.files is not None:
            files = self._read(training.files, trust=trust)
            training = replace(training, files=str(files))
        corpus = self._read(job.corpus, trust=trust)
        return Job(job.proxy, job.options, corpus, training, job.corpus_hash, job.verify)

    def _written(self, path: Path) -> str:
        """Return a path as others find it: relative to the trials where it is beside or in them."""
        path, run = Path(os.path.abspath(path)), Path(os.path.abspath(self.trials)).parent
        return os.path.relpath(path, run) if path.is_relative_to(run) else str(path)

    def _read(self, text: str, *, trust: bool) -> Path:
        run = self.trials.parent
        if trust:
            return run / text
        try:
            return inside(run, text)
        except MixoptError as error:
            hint = "if you trust whoever made this directory, add --trust"
            raise RunError(f"{self.order_file}: {error}; {hint}") from error

    def _named(self, folder: Path, trial: str, suffix: str) -> Path:
        return folder / f"{check_name(trial, 'trial', RunError)}{suffix}"


def _files(folder: Path) -> list[Path]:
    """Return the files of a folder in a fixed order, none where it is not there."""
    try:
        return sorted(folder / name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []
