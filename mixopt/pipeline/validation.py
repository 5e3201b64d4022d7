"""Validate proposals: train them against baselines until one wins, and decide by the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixopt.mixture import Mixture
from mixopt.pipeline.from_fit import fit_of, proposal_of, with_parts
from mixopt.pipeline.trial_training import job_of, keep_experts, say_unfinished, train_trials
from mixopt.proposals import (
    PROPOSAL,
    Decision,
    FullRun,
    Proposal,
    Validation,
    ValidationPlan,
    baseline_mixture,
    fresh_seeds,
    listed,
    looks,
    named,
    proposal_name,
    with_validated,
)
from mixopt.run_directory import LATER_PROPOSALS, RECOMMENDATION, VALIDATE, Run, phases_of
from mixopt.system import Say
from mixopt.trials import TrialResult, Trials

if TYPE_CHECKING:
    from mixopt.trials import Trial

Train = Callable[[Sequence["Trial"]], list[TrialResult]]
SAME = 0.005  # total variation below which a further proposal is none


def validate(run: Run, say: Say) -> None:
    """Train the proposal and its baselines, several seeds each; write the recommendation."""
    job = job_of(run, VALIDATE)

    def train(trials: Sequence[Trial]) -> list[TrialResult]:
        _forget_others(run, trials, say)
        return train_trials(run, VALIDATE, job, trials, say)

    found = validate_proposals(run, train, say)
    found.table(run).write(run.path / f"{VALIDATE.trials}.parquet")
    keep_experts(run, VALIDATE, found.results, say)
    say_unfinished(run, VALIDATE, found.results, say)
    for name, proposal in found.proposals.items():
        if name != PROPOSAL:
            proposal.to_file(run.path / LATER_PROPOSALS / f"{name}.yaml")
    decision = Decision(
        found.validation(run),
        found.proposals,
        run.fit,
        run.constraints,
        _full_run(run),
        run.config.validation_tokens,
    )
    recommendation = with_parts(decision.recommend(), run)
    recommendation.to_file(run.path / RECOMMENDATION)
    say(f"validate: {recommendation.headline}")


@dataclass(frozen=True, eq=False)
class Validated:
    """What a validation trained."""

    plan: ValidationPlan
    results: list[TrialResult]
    proposals: Mapping[str, Proposal]

    def validation(self, run: Run) -> Validation:
        """Return the table of it, for comparisons."""
        return Validation.of(self.table(run), run.objective, run.config.validation)

    def table(self, run: Run) -> Trials:
        """Return a row for each mixture and seed, under each of its names."""
        results = self.plan.named_results(self.results)
        proxy, targets = run.config.proxy.name, run.config.losses
        return Trials.from_results(self.plan.named_trials, results, proxy=proxy, targets=targets)


def validate_proposals(run: Run, train: Train, say: Say) -> Validated:
    """Train proposals against baselines until one wins, or the rounds are used up."""
    config, full, objective = run.config.validation, _full_run(run), run.objective
    baselines = {
        name: baseline_mixture(name, weights, full, run.trials, objective)
        for name, weights in config.baselines.items()
    }
    _say_equal(baselines, say)
    for name, mixture in baselines.items():
        for line in run.constraints.violations(mixture):
            say(f"validate: {named(name)} breaks a limit of this run: {line}")
    seeds = fresh_seeds(run.trials, config.most_seeds, run.config.seed)
    found = Validated(ValidationPlan(baselines, seeds), [], {})
    proposal: Proposal | None = run.proposal
    for number in range(1, config.rounds + 1):
        assert proposal is not None
        name = proposal_name(number)
        found = _validate_one(run, found, name, proposal, train, say)
        validation = found.validation(run)
        compared = validation.comparisons_of(name)
        wins = all(one.verdict in ("wins", "same mixture") for one in compared)
        if wins or number == config.rounds:
            break
        proposal = _next_proposal(run, validation, number, say)
        if proposal is None:
            break
    return found


def _full_run(run: Run) -> FullRun:
    config = run.config
    return FullRun(
        run.inventory,
        config.propose.target_tokens,
        config.constraints.usual_epochs,
        phases_of(config),
    )


def _validate_one(
    run: Run, found: Validated, name: str, proposal: Proposal, train: Train, say: Say
) -> Validated:
    config, undecided = run.config.validation, list(run.config.validation.baselines)
    proposals = {**found.proposals, name: proposal}
    mixtures = {**found.plan.mixtures, name: proposal.mixture}
    for count in looks(config.seeds, config.most_seeds):
        plan = found.plan.add({other: mixtures[other] for other in (name, *undecided)}, count)
        found = Validated(plan, train(plan.trials), proposals)
        compared = found.validation(run).comparisons_of(name)
        undecided = [one.baseline for one in compared if one.verdict == "not significant"]
        loses = any(one.verdict == "loses" for one in compared)
        if loses or not undecided:
            break
        if count < config.most_seeds:
            words = f"the difference from {listed(undecided, 'or')} is not significant"
            say(f"validate: {named(name)}: {words} with {count} seeds; adding seeds")
    return found


def _next_proposal(run: Run, validation: Validation, number: int, say: Say) -> Proposal | None:
    """Propose again from the trials and the runs of the proposals so far; None for nothing new."""
    trials = with_validated(run.trials, validation, run.fit)
    say(f"validate: {named(proposal_name(number))} is not better; its runs are added to the trials")
    proposal = proposal_of(run, fit_of(run, trials))
    for name in validation.mixtures:
        if validation.mixture(name).total_variation(proposal.mixture) < SAME:
            say(f"validate: the new fit proposes {named(name)} again")
            return None
    return proposal


def _say_equal(baselines: Mapping[str, Mixture], say: Say) -> None:
    for name, mixture in baselines.items():
        same = next(other for other, one in baselines.items() if one == mixture)
        if same != name:
            say(f"validate: {named(name)} is the same mixture as {named(same)}; trained once")


def _forget_others(run: Run, planned: Sequence[Trial], say: Say) -> None:
    """Delete results of other mixtures of the same name: proposal.yaml was edited since."""
    from mixopt.sweeps import TrialFolder, read_entry

    folder = VALIDATE.trial_folder(run.path)
    by_name = {trial.name: trial for trial in planned}
    for file in VALIDATE.trial_files(run.path):
        trial = read_entry(file)[0]
        if by_name.get(trial.name, trial).mixture.fingerprint != trial.mixture.fingerprint:
            say(f"validate: {trial.name} belongs to an earlier proposal, and is deleted")
            TrialFolder(folder).forget(trial.name)
