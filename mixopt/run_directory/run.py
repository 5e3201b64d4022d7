"""The run directory: what each step left, and whether it is of this configuration.

    config.yaml        the resolved configuration
    steps.json         the steps that are begun or finished, each with its fingerprint
    corpus/ design.parquet trials/ trials.parquet fit/ proposal.yaml
    validation/ validation.parquet figures/ report.html
    experts.parquet validation_experts.parquet

A step's fingerprint is a hash of the sections of the configuration that it depends on and of
the step before it, so that a change of the objective does not invalidate the trials. Where a
step was made from other values, nothing is overwritten: the error names the fields and the
command that mends it.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mixopt.errors import RunError, did_you_mean
from mixopt.system import only_one, read_json, write_json, write_text
from mixopt.trials import trial_paths

if TYPE_CHECKING:
    from mixopt.config import Config
    from mixopt.constraints import Constraints
    from mixopt.corpus import Corpus
    from mixopt.fitting import Fit, Repetition
    from mixopt.mixture import Mixture
    from mixopt.objective import Objective
    from mixopt.proposals import Proposal, Validation
    from mixopt.trials import Trial, Trials

# Step -> (sections that it depends on, outputs relative to the run directory).
STEPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "prepare": (("seed", "corpus", "evaluation"), ("corpus",)),
    "design": (("design", "constraints", "propose.target_tokens"), ("design.parquet",)),
    "sweep": (("proxy",), ("trials", "trials.parquet")),
    "fit": (("fit", "objective"), ("fit",)),
    "propose": (("propose",), ("proposal.yaml",)),
    "validate": (("validate",), ("validation", "validation.parquet")),
    "report": (("name",), ("report.html", "figures")),
}

# Outputs that a step has where the proxy is a model with experts (mixopt.trials.expert_table).
EXPERTS_OF = {"sweep": "experts.parquet", "validate": "validation_experts.parquet"}

# The steps that train, and where each of their trials has a file.
TRIAL_FOLDERS = {"sweep": "trials", "validate": "validation"}


@dataclass(frozen=True)
class Run:
    """One run directory and the configuration that it is asked to hold."""

    path: Path
    config: Config
    source: str = ""

    @cached_property
    def corpus(self) -> Corpus:
        """The token shards by domain."""
        from mixopt.corpus import Corpus

        return Corpus.open(self.path / "corpus", verify=False)

    @cached_property
    def design(self) -> list[Trial]:
        """The trials to run."""
        from mixopt.trials import read_design

        return read_design(self.path / "design.parquet")

    @cached_property
    def trials(self) -> Trials:
        """The table of mixtures and losses."""
        from mixopt.trials import Trials

        self.require("sweep")
        return Trials.read(self.path / "trials.parquet")

    @cached_property
    def fit(self) -> Fit:
        """The chosen regressor and the cross-validation report."""
        from mixopt.fitting import Fit

        self.require("fit")
        return Fit.load(self.path / "fit")

    @cached_property
    def proposal(self) -> Proposal:
        """The mixture to train on, with what it is predicted to give."""
        from mixopt.proposals import Proposal

        self.require("propose")
        return Proposal.from_file(self.path / "proposal.yaml")

    @cached_property
    def validation(self) -> Validation:
        """The proposal against its baselines, several seeds each."""
        from mixopt.proposals import Validation

        self.require("validate")
        return Validation.read(self.path / "validation.parquet", self.objective)

    @property
    def natural(self) -> Mixture:
        """Each domain's share of the training tokens that there are."""
        return self.corpus.natural

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        from mixopt.objective import Objective
        from mixopt.trials import settled

        objective = Objective.from_config(self.config.objective, self.evaluation_names)
        return objective if objective.scale == "none" else settled(objective, self.trials)

    @property
    def constraints(self) -> Constraints:
        """What mixtures are allowed."""
        from mixopt.constraints import Constraints

        return Constraints.from_config(
            self.config.constraints,
            inventory=self.corpus.inventory,
            target_tokens=self.config.propose.target_tokens,
        )

    @property
    def repetition(self) -> Repetition:
        """The corpus's inventory, and the tokens whose epochs the trials have."""
        from mixopt.fitting import Repetition

        proxy, target = self.config.proxy, self.config.propose.target_tokens
        simulated = target if proxy.simulate_epochs else None
        inventory = self.corpus.inventory
        counts = tuple(float(inventory[name]) for name in self.natural.domains)
        return Repetition(counts, float(simulated or proxy.tokens))

    @property
    def collapsed(self) -> tuple[str, ...] | None:
        """Trials whose experts collapsed; None where trials have no experts."""
        return collapsed_trials(self.path)

    @property
    def evaluation_names(self) -> tuple[str, ...]:
        """Evaluation domains: training domains, then targets."""
        return (*self.config.corpus.domains, *self.config.evaluation)

    def fingerprint(self, step: str) -> str:
        """Return what a step of this configuration is called; see the module's text."""
        return _fingerprints(self._content)[step]

    def is_done(self, step: str) -> bool:
        """Tell whether a step's output is there and of this configuration.

        Raises:
            RunError: The output is there, but of another configuration.
        """
        recorded = self._recorded.get(step)
        if recorded is None or not self._holds(step, finished=recorded["seconds"] is not None):
            return False
        if recorded["fingerprint"] != self.fingerprint(step):
            raise RunError(self._stale(step))
        return recorded["seconds"] is not None

    def is_begun(self, step: str) -> bool:
        """Tell whether a step was begun and is not finished."""
        recorded = self._recorded.get(step)
        return recorded is not None and recorded["seconds"] is None

    def require(self, step: str) -> None:
        """Check that an earlier step is done.

        Raises:
            RunError: It is not, with the command that does it.
        """
        if not self.is_done(step):
            raise RunError(f"{self.path}: '{step}' is not done yet: {self.command(step)}")

    def begin(self, step: str) -> None:
        """Note that a step is begun, so that another configuration cannot go on with its trials."""
        recorded = self._recorded.get(step)
        if recorded is not None and recorded["fingerprint"] != self.fingerprint(step):
            self.discard(step)
        self._record(step, None)

    def end(self, step: str, seconds: float) -> None:
        """Note that a step is finished."""
        self._record(step, round(seconds, 3))

    def check_before(self, step: str) -> None:
        """Check what a step builds on, before it is done again.

        Raises:
            RunError: There is no such step, or an earlier one is of another configuration.
            ShardError: The step would train on shards that are not what their index says.
        """
        if step not in STEPS:
            raise RunError(f"no such step: {step!r}{did_you_mean(step, STEPS)}")
        order = list(STEPS)
        done = [self.is_done(earlier) for earlier in order[: order.index(step)]]
        if step in TRIAL_FOLDERS and all(done):
            from mixopt.corpus import Corpus

            Corpus.open(self.path / "corpus")

    def discard(self, first: str, *, keep: Sequence[str] = (), only: bool = False) -> None:
        """Delete the outputs of a step, and of those after it unless `only`.

        Args:
            first: The step.
            keep: Outputs that stay.
            only: Leave the steps after it as they are.
        """
        order = list(STEPS)
        later = [first] if only else order[order.index(first) :]
        kept = {step: entry for step, entry in self._recorded.items() if step not in later}
        if self._recorded:
            write_json(self.path / "steps.json", kept)
        names = [name for step in later for name in STEPS[step][1]]
        names += [EXPERTS_OF[step] for step in later if step in EXPERTS_OF]
        for output in (self.path / name for name in names):
            if output.name in keep:
                continue
            if output.is_dir():
                shutil.rmtree(output)
            else:
                output.unlink(missing_ok=True)

    def command(self, step: str, *extra: str) -> str:
        """Return the command that runs a step of this run."""
        source = self.source or str(self.path / "config.yaml")
        return shlex.join(["mixopt", step, source, "--out", str(self.path), *extra])

    @property
    def seconds(self) -> dict[str, float]:
        """How long each finished step took."""
        taken = {step: entry["seconds"] for step, entry in self._recorded.items()}
        return {step: seconds for step, seconds in taken.items() if seconds is not None}

    @property
    def _content(self) -> dict[str, Any]:
        from mixopt.config import dump_config

        return dump_config(self.config)

    @property
    def _recorded(self) -> dict[str, Any]:
        path = self.path / "steps.json"
        recorded: dict[str, Any] = read_json(path) if path.exists() else {}
        return recorded

    def _record(self, step: str, seconds: float | None) -> None:
        entry = {"fingerprint": self.fingerprint(step), "seconds": seconds}
        write_json(self.path / "steps.json", {**self._recorded, step: entry})

    def _holds(self, step: str, *, finished: bool) -> bool:
        """Tell whether the outputs of a finished step are there, or trials of a begun one."""
        if finished:
            return all((self.path / name).exists() for name in STEPS[step][1])
        folder = TRIAL_FOLDERS.get(step)
        return folder is not None and any(trial_paths(self.path / folder))

    def _stale(self, step: str) -> str:
        before = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
        sections = _sections_up_to(step)
        changed = (d for d in differences(before, self._content) if d[0].startswith(sections))
        first = next(changed, ("a field", "one value", "another"))
        return (
            f"{self.path}: '{step}' was made from another configuration: {first[0]} is"
            f" {first[1]} there and {first[2]} here; use another --out, or redo it with:"
            f" {self.command('run', '--from', step)}"
        )


def open_run(config: Config, path: str | Path, *, source: str = "", redo: str | None = None) -> Run:
    """Make the run directory, or open one that is of the same configuration.

    Args:
        config: The experiment.
        path: The run directory.
        source: The configuration file, for messages.
        redo: Delete the outputs of this step and of those after it first.

    Raises:
        RunError: The directory is another run's, or cannot be written.
    """
    run = Run(Path(path), config, source)
    record = run.path / "config.yaml"
    if redo is not None:
        run.check_before(redo)
        run.discard(redo)
    if record.exists():
        for step in STEPS:
            run.is_done(step)
    text = "# The resolved configuration of this run; written by mixopt.\n"
    text += yaml.safe_dump(run._content, sort_keys=False, allow_unicode=True)
    if not record.exists() or record.read_text(encoding="utf-8") != text:
        write_text(record, text)
    return run


@contextmanager
def working_in(path: Path) -> Iterator[None]:
    """Have a run directory to oneself while the block runs.

    Raises:
        RunError: It holds other files than a run's, or another process is at work in it.
    """
    others = [e for e in path.iterdir() if e.name != ".lock"] if path.is_dir() else []
    if others and not (path / "config.yaml").exists():
        raise RunError(f"{path}: is not empty and not a run directory; use another --out")
    with only_one(path):
        yield


def load_run(path: str | Path) -> Run:
    """Open a run directory to look at what it holds.

    Raises:
        RunError: The directory is not a run's.
    """
    from mixopt.config import load_config

    record = Path(path) / "config.yaml"
    if not record.exists():
        raise RunError(f"{path}: has no config.yaml; make it with mixopt run CONFIG --out {path}")
    return Run(Path(path), load_config(record), str(record))


def collapsed_trials(directory: Path) -> tuple[str, ...] | None:
    """Return a sweep's trials whose experts have collapsed; None where trials have no experts."""
    from mixopt.trials import TrialExperts

    found = TrialExperts.read(directory / EXPERTS_OF["sweep"])
    return None if found is None else found.collapsed


def _fingerprints(content: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    before = "mixopt/1"
    for step, (sections, _) in STEPS.items():
        values = {section: _section(content, section.split(".")) for section in sections}
        text = before + json.dumps(values, sort_keys=True)
        before = found[step] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def _sections_up_to(step: str) -> tuple[str, ...]:
    steps = list(STEPS)[: list(STEPS).index(step) + 1]
    return tuple(section for name in steps for section in STEPS[name][0])


def _section(content: Any, parts: Sequence[str]) -> Any:
    for part in parts:
        content = content.get(part) if isinstance(content, dict) else None
    return content


def differences(before: Any, now: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Return the fields in which two configurations differ, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        found: list[tuple[str, Any, Any]] = []
        for key in [*now, *(key for key in before if key not in now)]:
            inner = f"{name}.{key}" if name else str(key)
            found += differences(before.get(key), now.get(key), inner)
        return found
    return [] if before == now else [(name, _short(before), _short(now))]


def _short(value: Any) -> Any:
    return "absent" if value is None else value
