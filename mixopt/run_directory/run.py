"""The run directory: the output of each step, and whether it matches the configuration."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.errors import MixoptError, RunError, plain_line
from mixopt.run_directory.step import (
    ACTING,
    READING,
    RECOMMENDATION,
    STEPS,
    SWEEP,
    Step,
    step_differences,
    step_fingerprints,
    step_named,
    steps_before,
    steps_from,
)
from mixopt.run_directory.step_records import PROPOSAL, Manifest
from mixopt.sweeps import FILES
from mixopt.system import Trust, git_commit, is_in_use, read_yaml

if TYPE_CHECKING:
    import polars as pl

    from mixopt.config import Config
    from mixopt.constraints import Constraints
    from mixopt.corpus import Corpus
    from mixopt.fitting import Fit, Repetition
    from mixopt.mixture import Mixture
    from mixopt.objective import Objective
    from mixopt.proposals import Proposal, ProposalRequest, Recommendation, Validation
    from mixopt.reporting import RunPlots
    from mixopt.trials import Trial, Trials


def _delete(output: Path, *, keep: str | None) -> None:
    """Delete a file or a folder, or all that is in it but one entry; links are not followed."""
    if not output.is_dir() or output.is_symlink():
        output.unlink(missing_ok=True)
    elif keep is None or not (output / keep).is_dir():
        shutil.rmtree(output)
    else:
        for path in output.iterdir():
            if path.name != keep:
                _delete(path, keep=None)


def collapsed_trials(directory: Path) -> tuple[str, ...] | None:
    """Return a sweep's trials whose experts have collapsed; None where trials have no experts."""
    from mixopt.run_directory.expert_table import TrialExperts

    found = TrialExperts.read(SWEEP.experts_file(directory))
    return None if found is None else found.collapsed


DONE, WAITING = "done", "not done yet"


@dataclass(frozen=True)
class Run:
    """One run directory and the configuration that it is asked to hold.

    Attributes:
        path: The directory.
        config: The configuration.
        source: The file that it was read from, for messages.
        trust: Whether its maker is trusted. The directory's own record is data: without trust it
            only says what local files are to be read (`ask_trust`).
    """

    path: Path
    config: Config
    source: str = ""
    trust: bool = False

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
        return self.usable(Trials.read(self.path / "trials.parquet"))

    @cached_property
    def anneals(self) -> pl.DataFrame:
        """What each source of microanneals does, against the controls (`anneal_effects`).

        Raises:
            RunError: The design is another one.
        """
        from mixopt.proposals import anneal_effects

        asked = self.config.design.anneals
        if asked is None:
            raise RunError(
                f"{self.path}: its trials are no microanneals (design.method:"
                f" {self.config.design.method}); method: anneals makes some"
            )
        return anneal_effects(self.trials, self.objective, asked)

    @cached_property
    def fit(self) -> Fit:
        """The chosen regressor and the cross-validation report."""
        from mixopt.fitting import Fit

        self.require("fit")
        own: Trust = () if self._is_from_record else tuple(self.config.fit.regressors)
        return Fit.load(self.path / "fit", trust=self.trust or own)

    @cached_property
    def proposal(self) -> Proposal:
        """The mixture to train on, with what it is predicted to give.

        One that somebody edited is the user's own mixture, and is predicted again.
        """
        from mixopt.mixture import Mixture
        from mixopt.proposals import Proposal, predict_own_mixture

        self.require("propose")
        path = self.path / PROPOSAL
        if not self.manifest.is_edited:
            return Proposal.from_file(path)
        mixture = Mixture.from_file(path)
        return predict_own_mixture(self.request(self.fit), mixture, self.objective)

    def request(self, fit: Fit) -> ProposalRequest:
        """Return what the configuration asks of a fit of this run's trials."""
        from mixopt.proposals import ProposalRequest

        return ProposalRequest(
            fit,
            self.constraints,
            self.natural,
            self.inventory,
            self.config.propose,
            self.config.seed,
            self.collapsed,
            self.trials,
        )

    @cached_property
    def validation(self) -> Validation:
        """Proposals against their baselines, several seeds each."""
        from mixopt.proposals import Validation

        self.require("validate")
        path = self.path / "validation.parquet"
        return Validation.read(path, self.objective, self.config.validation)

    @cached_property
    def recommendation(self) -> Recommendation:
        """The mixture to train on, by the outcome of validation."""
        from mixopt.proposals import Recommendation

        self.require("validate")
        return Recommendation.from_file(self.path / RECOMMENDATION)

    def __repr__(self) -> str:
        """Say which steps are done and what comes next."""
        return _run_line(self)

    @property
    def plot(self) -> RunPlots:
        """Its figures: `run.plot.mixtures()` and others (mixopt.reporting.plots)."""
        from mixopt.reporting import RunPlots

        return RunPlots(self)

    @property
    def inventory(self) -> dict[str, int]:
        """Distinct tokens of each domain in the full run: as stated, or all that was prepared.

        Raises:
            ConfigError: A domain is stated to be smaller than what was prepared of it.
        """
        from mixopt.corpus import true_inventory

        return true_inventory(self.config.corpus.domains, self.corpus, where=self.source)

    @property
    def natural(self) -> Mixture:
        """Each domain's share of the available tokens."""
        from mixopt.mixture import Mixture

        return Mixture.natural(self.inventory)

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        from mixopt.trials import settled

        if self.config.tasks is None and not self._stated_objective.needs_trials:
            return self._stated_objective
        return settled(self._stated_objective, self.trials)

    def usable(self, trials: Trials) -> Trials:
        """Return a table of this run's trials without tasks that are the same in all of them."""
        from mixopt.trials import without_flat_tasks

        if self.config.tasks is None:
            return trials
        return without_flat_tasks(trials, self._stated_objective.measured)

    @cached_property
    def _stated_objective(self) -> Objective:
        """What is minimised, without what comes from the trials."""
        from mixopt.objective import Objective

        return Objective.from_config(self.config.aim, self.losses)

    @property
    def constraints(self) -> Constraints:
        """What mixtures are allowed."""
        from mixopt.constraints import Constraints

        return Constraints.from_config(
            self.config.constraints,
            inventory=self.inventory,
            target_tokens=self.config.propose.target_tokens,
            base=self.base_losses,
        )

    @property
    def base_losses(self) -> dict[str, float] | None:
        """What the checkpoint loses that trials begin with, in the objective's unit."""
        from mixopt.run_directory.start_record import StartRecord

        record = StartRecord.read(self.path)
        return None if record is None else record.losses(self.config.objective.unit)

    @property
    def repetition(self) -> Repetition:
        """What the trials repeat: the prepared text, or with simulated epochs pools of it."""
        from mixopt.fitting import Repetition

        proxy, target = self.config.proxy, self.config.propose.target_tokens
        sample, whole = self.corpus.inventory, self.inventory
        if not proxy.simulate_epochs or target is None:
            return Repetition(tuple(map(float, sample.values())), float(proxy.tokens))
        longer = target / proxy.tokens
        pools = tuple(min(float(whole[name]), sample[name] * longer) for name in sample)
        return Repetition(pools, float(target))

    @property
    def collapsed(self) -> tuple[str, ...] | None:
        """Trials whose experts collapsed; None where trials have no experts."""
        return collapsed_trials(self.path)

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of all losses of a trial: evaluation domains, then tasks' metrics."""
        return self.config.losses

    @property
    def is_foreign(self) -> bool:
        """Whether the configuration is the directory's own record, which nobody trusted."""
        return not self.trust and self._is_from_record

    def ask_trust(self, step: str) -> None:
        """Check that a step may read what is elsewhere, and train."""
        if self.is_foreign:
            raise RunError(
                f"{self.path}: '{step}' would read, run and train what the directory's own record"
                " names; if you trust whoever made this directory, add --trust (in Python"
                " trust=True), or give your own configuration: mixopt"
                f" {step} CONFIG --out {shlex.quote(str(self.path))}"
            )

    @property
    def is_sent(self) -> bool:
        """Whether its record goes to MLflow: to the directory's own, or where a user said."""
        return not self.is_foreign or self.config.tracking.uri is None

    @property
    def _is_from_record(self) -> bool:
        """Whether the configuration was read from the directory's own record."""
        return Path(self.source).absolute() == (self.path / "config.yaml").absolute()

    @property
    def commit(self) -> str | None:
        """The commit of the working directory, which may be a foreign run's."""
        return None if self.is_foreign else git_commit()

    def fingerprint(self, step: str) -> str:
        """Return the fingerprint of a step of this configuration."""
        return step_fingerprints(self.content)[step]

    def trial_fingerprint(self, step: str) -> str:
        """Return the fingerprint of a step's trials: of its configuration and of the corpus."""
        from mixopt.corpus import corpus_hash
        from mixopt.sweeps import trial_fingerprint

        return trial_fingerprint(self.fingerprint(step), corpus_hash(self.path / "corpus"))

    def is_done(self, step: str) -> bool:
        """Tell whether a step's output is there, whole, and of this configuration."""
        recorded = self.manifest.steps.get(step)
        asked, finished = step_named(step), recorded is not None and recorded.seconds is not None
        if recorded is None or not self._holds(asked, finished=finished):
            return False
        if recorded.fingerprint != self.fingerprint(step):
            raise RunError(self._stale(asked))
        return finished and self.fault(step) is None

    def fault(self, step: str) -> str | None:
        """Say what is wrong with a file that a finished step left; None where all is whole."""
        return self.manifest.fault(step_named(step))

    @cached_property
    def manifest(self) -> Manifest:
        """What each step left, and whether it still is that."""
        return Manifest(self.path)

    def is_begun(self, step: str) -> bool:
        """Tell whether a step was begun and is not finished."""
        recorded = self.manifest.steps.get(step)
        return recorded is not None and recorded.seconds is None

    def require(self, step: str) -> None:
        """Check that an earlier step is done, and its output whole."""
        if not self.is_done(step):
            why = self.fault(step) or f"{self.path}: '{step}' is not done yet"
            raise RunError(f"{why}: {self.command(step)}")

    def begin(self, step: str) -> None:
        """Note that a step is begun, so that another configuration cannot resume its trials."""
        recorded = self.manifest.steps.get(step)
        if recorded is not None and recorded.fingerprint != self.fingerprint(step):
            self.discard(step)
        self.manifest.begin(step, self.fingerprint(step))

    def end(self, step: str, seconds: float) -> None:
        """Note that a step is finished, and what it left."""
        self.manifest.end(step_named(step), self.fingerprint(step), seconds)

    def check_before(self, step: str) -> None:
        """Check what a step builds on, before it is done."""
        asked = step_named(step)
        done = [self.is_done(earlier.name) for earlier in steps_before(asked)]
        if asked.trains and all(done):
            from mixopt.corpus import Corpus

            Corpus.open(self.path / "corpus")

    def discard(
        self, first: str, *, keep: Sequence[str] = (), only: bool = False, files: bool = True
    ) -> None:
        """Delete the outputs of a step, and of those after it unless `only`."""
        asked = step_named(first)
        later = (asked,) if only else steps_from(asked)
        gone = {step.name for step in later}
        self.manifest.forget(gone)
        for name in [name for step in later for name in step.files]:
            if Path(name).name not in keep:
                _delete(self.path / name, keep=None if files else FILES)

    @property
    def only_reads_otherwise(self) -> bool:
        """Whether the record differs only in how the results of a trainer are read."""
        record = self.path / "config.yaml"
        if not record.exists():
            return False
        before = read_yaml(record, error=RunError)
        changed = [name for name, _, _ in step_differences(SWEEP, before, self.content)]
        return bool(changed) and all(
            name.startswith(tuple(f"proxy.{field}" for field in READING)) for name in changed
        )

    def command(self, step: str, *extra: str) -> str:
        """Return the command that runs a step; it names the configuration, or trusts the record."""
        own = not self.source or self._is_from_record
        source = [str(self.path)] if own else [self.source, "--out", str(self.path)]
        trust = ["--trust"] if own and step in ACTING else []
        return shlex.join(["mixopt", step, *source, *extra, *trust])

    @property
    def seconds(self) -> dict[str, float]:
        """How long each finished step took."""
        taken = {step: record.seconds for step, record in self.manifest.steps.items()}
        return {step: seconds for step, seconds in taken.items() if seconds is not None}

    @property
    def content(self) -> dict[str, Any]:
        """The configuration as plain values."""
        from mixopt.config import dump_config

        return dump_config(self.config)

    def _holds(self, step: Step, *, finished: bool) -> bool:
        """Tell whether the outputs of a finished step are there, or trials of a begun one."""
        if finished:
            return all((self.path / name).exists() for name in step.outputs)
        return any(step.trial_files(self.path))

    def _stale(self, step: Step) -> str:
        before = read_yaml(self.path / "config.yaml", error=RunError)
        changed = step_differences(step, before, self.content)
        first = next(changed, ("a field", "one value", "another"))
        said = (
            f"{self.path}: '{step.name}' was made from another configuration: {first[0]} is"
            f" {first[1]} there and {first[2]} here; use another --out"
        )
        return f"{said}, or redo it with: {self.command('run', '--from', step.name)}"


def _run_line(run: Run) -> str:
    """Return the run in a line; one that is damaged shows what is wrong."""
    states = {step.name: _state(run, step) for step in STEPS}
    done = sum(state == DONE for state in states.values())
    text = f"{done} of {len(states)} steps done"
    following = next((name for name, state in states.items() if state != DONE), None)
    if following is not None:
        state = "" if states[following] == WAITING else f", {states[following]}"
        text += f"; next: {following}{state}"
    return f"Run({plain_line(str(run.path))!r}: {text})"


def _state(run: Run, step: Step) -> str:
    try:
        if run.is_done(step.name):
            return DONE
        fault, begun = run.fault(step.name), run.is_begun(step.name)
    except (MixoptError, OSError) as error:
        return f"cannot be used: {plain_line(str(error))}"
    if fault is not None:
        return f"cannot be used: {fault}"
    if not begun:
        return WAITING
    state = "running" if is_in_use(run.path) else "interrupted"
    return f"{state}, {len(step.trial_files(run.path))} trials ended" if step.trains else state
