"""A run: outputs and states of its steps, predictions and proposals."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import polars as pl

from mixopt.config import Config, ConstraintsConfig, dump_sections, read_constraints
from mixopt.constraints import Constraints
from mixopt.corpus import Corpus, true_inventory
from mixopt.errors import MixoptError, RunError, plain_line
from mixopt.fitting import Fit, ObjectiveLike, Repetition
from mixopt.mixture import Mixture, Phases
from mixopt.objective import Objective
from mixopt.proposals import (
    ConstraintsLike,
    Forecast,
    Proposal,
    ProposalRequest,
    Recommendation,
    Validation,
    anneal_effects,
    predict_mixture,
    predict_own_mixture,
    propose_mixture,
)
from mixopt.run_directory.step_log import RECORD, CheckedPart, StepLog
from mixopt.run_directory.steps import (
    DESIGN,
    FIT,
    PROPOSAL,
    PROPOSE,
    RECOMMENDATION,
    STEPS,
    SWEEP,
    VALIDATE,
    step_named,
)
from mixopt.run_directory.trial_records import StartRecord, collapsed_trials
from mixopt.system import Trust, check_trusted, git_commit
from mixopt.trials import Trial, Trials, read_design, settled, without_flat_tasks

if TYPE_CHECKING:
    from mixopt.reporting import RunPlots


@dataclass(frozen=True)
class Outcome:
    """The mixture that a run recommends or proposes.

    Attributes:
        result: The recommendation, or the proposal if there is none yet.
        state: Whether it was validated against baselines, or edited by the user.
        note: Warning for its use, with the command to run; or empty.
    """

    result: Recommendation | Proposal
    state: Literal["validated", "not validated", "edited"]
    note: str = ""


@dataclass(frozen=True)
class Run:
    """A run directory and its configuration.

    Examples:
        >>> run = mixopt.load_run("runs/mine")
        >>> run.is_done("validate")
        True
        >>> run.outcome.state
        'validated'
        >>> run.outcome.result.mixture == run.recommendation.mixture
        True
        >>> list(run.inventory) == list(run.natural.domains)
        True

    Attributes:
        path: The directory.
        config: The configuration.
        source: The configuration's file, for messages.
        trust: Whether the directory is trusted. Without trust its recorded configuration is only
            data, and no code that it names is imported (`ask_trust`).
    """

    path: Path
    config: Config
    source: str = ""
    trust: bool = False

    @cached_property
    def log(self) -> StepLog:
        """Outputs and states of the steps."""
        return StepLog(self.path, dump_sections(self.config), self.command)

    @cached_property
    def corpus(self) -> Corpus:
        """The token shards by domain."""
        return Corpus.open(self.path / "corpus", verify=False)

    @cached_property
    def design(self) -> list[Trial]:
        """The trials to run."""
        return read_design(self.path / DESIGN.outputs[0])

    @cached_property
    def trials(self) -> Trials:
        """The table of mixtures and losses."""
        self.log.require(SWEEP.name)
        return usable_trials(self, Trials.read(self.path / "trials.parquet"))

    @cached_property
    def anneals(self) -> pl.DataFrame:
        """Effects of the sources of microanneals against the controls (`anneal_effects`).

        Raises:
            RunError: The design has no microanneals.
        """
        design = self.config.design
        if design.anneals is None:
            raise RunError(
                f"{self.path}: its trials are no microanneals (design.method:"
                f" {design.method}); method: anneals makes some"
            )
        return anneal_effects(self.trials, self.objective, design.anneals)

    @cached_property
    def fit(self) -> Fit:
        """The chosen regressor and the cross-validation report."""
        self.log.require(FIT.name)
        names: Trust = () if self._is_from_record else tuple(self.config.fit.regressors)
        fit = Fit.load(self.path / "fit", trust=self.trust or names)
        with suppress(MixoptError):  # without sizes, only epochs are unknown
            fit = replace(fit, inventory=self.inventory)
        return fit

    @cached_property
    def proposal(self) -> Proposal:
        """The proposed mixture with its predictions.

        An edited proposal is the user's own mixture, and is predicted again.
        """
        self.log.require(PROPOSE.name)
        path = self.path / PROPOSAL
        if self.log.state(PROPOSE.name).state != "edited":
            return Proposal.from_file(path)
        mixture = Mixture.from_file(path)
        return predict_own_mixture(request_of(self, self.fit), mixture)

    @cached_property
    def validation(self) -> Validation:
        """Proposals and baselines with several seeds each."""
        self.log.require(VALIDATE.name)
        path = self.path / "validation.parquet"
        return Validation.read(path, self.objective, self.config.validation)

    @cached_property
    def recommendation(self) -> Recommendation:
        """The mixture to train on, chosen by validation."""
        self.log.require(VALIDATE.name)
        return Recommendation.from_file(self.path / RECOMMENDATION)

    @property
    def outcome(self) -> Outcome:
        """The mixture of the run and its state.

        Raises:
            RunError: There is no mixture yet; or the recommendation is damaged, or belongs to
                another proposal.
        """
        if self.is_done(VALIDATE.name):
            return Outcome(self.recommendation, "validated")
        fault = self.log.fault(VALIDATE.name)
        command = self.command(until=VALIDATE.name)
        if fault is not None:
            raise RunError(f"{fault}: {command}")
        if self.log.state(PROPOSE.name).state == "edited":
            note = f"{PROPOSAL} was edited, and the mixture in it is not validated: {command}"
            return Outcome(self.proposal, "edited", note)
        note = f"the proposal is not validated against baselines yet: {command}"
        return Outcome(self.proposal, "not validated", note)

    @property
    def plot(self) -> RunPlots:
        """Its figures: `run.plot.mixtures()` and others (mixopt.reporting.plots)."""
        from mixopt.reporting import RunPlots

        return RunPlots(self)

    def predict(
        self,
        weights: Mixture | Mapping[str, float] | str | Path,
        *,
        tokens: float | str | None = None,
        constraints: ConstraintsLike | None = None,
    ) -> Forecast:
        """Predict the losses of any mixture with intervals, and list the limits that it breaks.

        Args:
            weights: Share of each domain, or a file with shares, such as a recommendation.
            tokens: Length of the full run, `50B` or a number; None: the configuration's.
            constraints: Changes to the run's constraints, as a file, fields or a section.

        Returns:
            Losses, objective, epochs and broken limits.

        Raises:
            MixtureError: The weights do not add up to 1, or name other domains.
            RunError: The run has no fit yet.

        Examples:
            >>> forecast = run.predict({"code": 0.4, "prose": 0.6}, tokens="25B")
            >>> forecast.mixture
            Mixture(code 40%, prose 60%)
            >>> forecast.predicted.epochs["code"]
            0.5
            >>> narrower = {"bounds": {"code": [0.5, 1]}}
            >>> print(*run.predict(forecast.mixture, constraints=narrower).broken)
            domain 'code': a weight of 0.4 is below 0.5, the minimum set by constraints.bounds. ...
        """
        request = request_of(self, self.fit, tokens=tokens, constraints=constraints)
        return predict_mixture(request, weights)

    def propose(
        self,
        target: ObjectiveLike | None = None,
        *,
        tokens: float | str | None = None,
        constraints: ConstraintsLike | None = None,
    ) -> Proposal:
        """Propose a mixture for another target, length or limits than the run's own.

        Args:
            target: A loss, weights of losses or an objective; None: the run's own.
            tokens: Length of the full run, `50B` or a number; None: the configuration's.
            constraints: Changes to the run's constraints, as a file, fields or a section.

        Raises:
            InfeasibleError: No mixture meets the constraints.
            RunError: The run has no fit yet.

        Examples:
            >>> run.propose(constraints={"bounds": {"code": 0.25}}).mixture
            Mixture(code 25%, prose 75%)
        """
        request = request_of(self, self.fit, target, tokens=tokens, constraints=constraints)
        return propose_mixture(request)

    @property
    def inventory(self) -> dict[str, int]:
        """Distinct tokens of each domain in the full run: as stated, or as prepared.

        Raises:
            ConfigError: The stated size of a domain is smaller than its prepared text.
            RunError: Nothing is prepared here, and not all sizes are stated.
        """
        if not (self.path / "corpus").exists():
            domains = self.config.corpus.domains
            stated = {
                name: domain.tokens for name, domain in domains.items() if domain.tokens is not None
            }
            if len(stated) < len(domains):
                raise RunError(
                    f"{self.path / 'corpus'}: missing, so the tokens of the domains are unknown;"
                    " give --inventory FILE"
                )
            return stated
        return true_inventory(self.config.corpus.domains, self.corpus, where=self.source)

    @property
    def natural(self) -> Mixture:
        """Each domain's share of the available tokens, the same in all phases."""
        natural = Mixture.natural(self.inventory)
        phases = Phases.of(self.config.design.phases)
        return natural if phases is None else phases.tied(natural)

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        stated = stated_objective(self)
        if self.config.tasks is None and not stated.needs_trials:
            return stated
        return settled(stated, self.trials)

    @property
    def constraints(self) -> Constraints:
        """The constraints on mixtures."""
        _check_limits_trusted(self)
        return Constraints.from_config(
            self.config.constraints,
            inventory=self.inventory,
            target_tokens=self.config.propose.target_tokens,
            base=base_losses(self),
            phases=Phases.of(self.config.design.phases),
        )

    @property
    def is_foreign(self) -> bool:
        """Whether the configuration is the directory's own record, without trust."""
        return not self.trust and self._is_from_record

    def ask_trust(self, step: str) -> None:
        """Raise RunError unless a step may read outside the directory and train."""
        if self.is_foreign:
            raise RunError(
                f"{self.path}: '{step}' would read, run and train what the directory's own record"
                " names; if you trust whoever made this directory, add --trust (in Python"
                " trust=True), or give your own configuration: mixopt"
                f" run CONFIG --out {shlex.quote(str(self.path))}"
            )

    def is_done(self, step: str) -> bool:
        """Return whether a step's output is undamaged and belongs to this configuration."""
        return self.log.is_done(step)

    def command(self, *options: str, until: str | None = None) -> str:
        """Return the command that resumes the run, with its configuration or with --trust."""
        is_from_record = not self.source or self._is_from_record
        words = ["mixopt", "run"]
        if not is_from_record:
            words += [self.source, "--out"]
        words += [str(self.path), *options]
        if until is not None:
            words += ["--until", until]
        if is_from_record and (until is None or step_named(until).acts):
            words.append("--trust")
        return shlex.join(words)

    @property
    def _is_from_record(self) -> bool:
        return Path(self.source).absolute() == (self.path / RECORD).absolute()

    def __repr__(self) -> str:
        """Return the number of finished steps, or the damage."""
        try:
            done = sum(self.is_done(step.name) for step in STEPS)
            state = f"{done} of {len(STEPS)} steps done"
        except (MixoptError, OSError) as error:
            state = plain_line(str(error))
        return f"Run({plain_line(str(self.path))!r}: {state})"


def request_of(
    run: Run,
    fit: Fit,
    target: ObjectiveLike | None = None,
    *,
    tokens: float | str | None = None,
    constraints: ConstraintsLike | None = None,
    inventory: Mapping[str, float] | str | Path | None = None,
) -> ProposalRequest:
    """Return the run's request for proposals, with a user's changes."""
    config = run.config
    if constraints is None:
        constraints = config.constraints
    elif not isinstance(constraints, Constraints):
        if not isinstance(constraints, ConstraintsConfig):
            constraints = read_constraints(constraints)
        constraints = config.constraints.with_changes(constraints, fit.domains)
    if not isinstance(constraints, Constraints):
        _check_limits_trusted(run)
    request = ProposalRequest.of(
        fit,
        constraints=constraints,
        inventory=run.inventory if inventory is None else inventory,
        tokens=tokens,
        search=config.propose,
        seed=config.seed,
        collapsed=collapsed_trials(run.path),
        base=base_losses(run),
        phases=Phases.of(run.config.design.phases),
    )
    request = replace(request, trials=run.trials, goal=run.objective)
    return request.aimed_at(target)


def _check_limits_trusted(run: Run) -> None:
    """Raise PluginError if the directory's own record names the code of a convex limit."""
    record = str(run.path / RECORD)
    for name in run.config.constraints.convex or ():
        check_trusted("constraint", name, record, trust=not run.is_foreign)


def stated_objective(run: Run) -> Objective:
    """Return the objective without values from trials."""
    return Objective.from_config(run.config.resolved_objective, run.config.losses)


def usable_trials(run: Run, table: Trials) -> Trials:
    """Return a run's table of trials without constant tasks."""
    if run.config.tasks is None:
        return table
    return without_flat_tasks(table, stated_objective(run).measured)


def carried_trials(run: Run) -> Trials | None:
    """Return the carried trials of an earlier corpus on the present domains, or None."""
    if run.config.design.earlier is None:
        return None
    run.log.require(DESIGN.name)
    return Trials.read(run.path / DESIGN.optional[0])


def base_losses(run: Run) -> dict[str, float] | None:
    """Return the losses of the start checkpoint in the objective's unit."""
    record = StartRecord.read(run.path)
    return None if record is None else record.losses(run.config.objective.unit)


def repetition_of(run: Run) -> Repetition | None:
    """Return inventory and tokens that determine epochs: of the text, or of simulated pools.

    None with phases, because cells share the text of a domain.
    """
    if run.config.design.phases is not None:
        return None

    proxy = run.config.proxy
    target = run.config.propose.target_tokens
    sample = run.corpus.inventory
    inventory = run.inventory
    if not proxy.simulate_epochs or target is None:
        return Repetition(tuple(map(float, sample.values())), float(proxy.tokens))
    scale = target / proxy.tokens
    pools = tuple(min(float(inventory[name]), sample[name] * scale) for name in sample)
    return Repetition(pools, float(target))


def is_sent(run: Run) -> bool:
    """Return whether the record is sent: to the directory's own database, or where a user said."""
    return not run.is_foreign or run.config.tracking.uri is None


def commit_of(run: Run) -> str | None:
    """Return the commit of the working directory, unless that may be a foreign run's."""
    return None if run.is_foreign else git_commit()


def verify_run(run: Run, *, deep: bool = False) -> list[CheckedPart]:
    """Verify all outputs of a run, for `mixopt verify`."""
    return [run.log.state(step.name, all_files=True, deep=deep) for step in STEPS]
