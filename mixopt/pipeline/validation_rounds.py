"""Validate proposals against baselines, in rounds; write the recommendation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mixopt.mixture import Mixture
from mixopt.pipeline.experiment_check import full_run
from mixopt.pipeline.from_fit import fit_of, proposal_of, with_parts
from mixopt.pipeline.sweep import job_of, keep_experts, say_unfinished, train_trials, worse_text
from mixopt.proposals import (
    PROPOSAL,
    Decision,
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
from mixopt.run_directory import LATER_PROPOSALS, RECOMMENDATION, VALIDATE, Run
from mixopt.sweeps import TrialFolder, read_entry
from mixopt.system import Say
from mixopt.trials import Trial, TrialResult, Trials

Train = Callable[[Sequence[Trial]], list[TrialResult]]
SAME = 0.005  # total variation below which two proposals count as the same


def validate(run: Run, say: Say) -> None:
    """Train the proposal and its baselines with several seeds; write the recommendation."""
    job = job_of(run, VALIDATE)

    def train(trials: Sequence[Trial]) -> list[TrialResult]:
        _forget_earlier(run, trials, say)
        return train_trials(run, VALIDATE, job, trials, say)

    validated = validate_proposals(run, train, say)
    validated.table(run).write(run.path / f"{VALIDATE.trials}.parquet")
    keep_experts(run, VALIDATE, validated.results, say)
    say_unfinished(run, VALIDATE, validated.results, say)
    for name, proposal in validated.proposals.items():
        if name != PROPOSAL:
            proposal.to_file(run.path / LATER_PROPOSALS / f"{name}.yaml")
    validation = validated.validation(run)
    decision = Decision(
        validation,
        validated.proposals,
        run.fit,
        run.constraints,
        full_run(run.config, run.inventory),
        run.config.validation_tokens,
    )
    recommendation = with_parts(decision.recommend(), run)
    recommendation.to_file(run.path / RECOMMENDATION)
    say(f"validate: {recommendation.headline}")
    noise = validation.noise_note(recommendation.chosen)
    if noise:
        say(f"validate: {noise}")


@dataclass(frozen=True, eq=False)
class Validated:
    """The plan, results and proposals of a validation."""

    plan: ValidationPlan
    results: list[TrialResult]
    proposals: Mapping[str, Proposal]

    def validation(self, run: Run) -> Validation:
        """Return the comparisons of these runs."""
        return Validation.of(self.table(run), run.objective, run.config.validation)

    def table(self, run: Run) -> Trials:
        """Return one row for each mixture and seed, repeated for each name of a mixture."""
        return Trials.from_results(
            self.plan.named_trials,
            self.plan.named_results(self.results),
            proxy=run.config.proxy.name,
            targets=run.config.losses,
        )


def validate_proposals(run: Run, train: Train, say: Say) -> Validated:
    """Train proposals and baselines until a proposal wins or `validation.rounds` are over."""
    config = run.config.validation
    baselines = _baselines(run, say)
    seeds = fresh_seeds(run.trials, config.most_seeds, run.config.seed)
    validated = Validated(ValidationPlan(baselines, seeds), [], {})
    proposal: Proposal | None = run.proposal
    for number in range(1, config.rounds + 1):
        if proposal is None:
            break
        name = proposal_name(number)
        validated = _validate_one(run, validated, name, proposal, train, say)
        validation = validated.validation(run)
        verdicts = {gain.verdict for gain in validation.differences_of(name).values()}
        if verdicts <= {"better", "same mixture"} or number == config.rounds:
            break
        proposal = _next_proposal(run, validation, number, say)
    return validated


def _baselines(run: Run, say: Say) -> dict[str, Mixture]:
    """Return the baselines by name; report those that are the same, or break limits."""
    objective = run.objective
    full = full_run(run.config, run.inventory)
    baselines = {
        name: baseline_mixture(name, weights, full, run.trials, objective)
        for name, weights in run.config.validation.baselines.items()
    }
    for name, mixture in baselines.items():
        same = [other for other, baseline in baselines.items() if baseline == mixture]
        if same[0] != name:
            say(f"validate: {named(name)} is the same mixture as {named(same[0])}; trained once")
        for line in run.constraints.violations(mixture):
            say(f"validate: {named(name)} breaks a limit of this run: {line}")
    return baselines


def _validate_one(
    run: Run, validated: Validated, name: str, proposal: Proposal, train: Train, say: Say
) -> Validated:
    """Train a proposal and its baselines, with more seeds as long as a difference is unclear."""
    config = run.config.validation
    undecided = list(config.baselines)
    proposals = {**validated.proposals, name: proposal}
    for count in looks(config.seeds, config.most_seeds):
        mixtures = {name: proposal.mixture}
        for other in undecided:
            mixtures[other] = validated.plan.mixtures[other]
        plan = validated.plan.add(mixtures, count)
        validated = Validated(plan, train(plan.trials), proposals)
        gains = validated.validation(run).differences_of(name)
        undecided = [other for other, gain in gains.items() if gain.verdict == "not significant"]
        if any(gain.verdict == "worse" for gain in gains.values()) or not undecided:
            break
        if count < config.most_seeds:
            say(
                f"validate: {named(name)}: the difference from {listed(undecided, 'or')} is not"
                f" significant with {count} seeds; adding seeds"
            )
    return validated


def _next_proposal(run: Run, validation: Validation, number: int, say: Say) -> Proposal | None:
    """Propose again, with the validated runs among the trials; None if nothing new results."""
    trials = with_validated(run.trials, validation, run.fit)
    say(f"validate: {named(proposal_name(number))} is not better; its runs are added to the trials")
    fit = fit_of(run, trials)
    worse = worse_text(run.fit, fit, "these runs")
    if worse:
        say(f"validate: {worse}")
    proposal = proposal_of(run, fit)
    for name in validation.mixtures:
        if validation.mixture(name).total_variation(proposal.mixture) < SAME:
            say(f"validate: the new fit proposes {named(name)} again")
            return None
    return proposal


def _forget_earlier(run: Run, planned: Sequence[Trial], say: Say) -> None:
    """Delete results of earlier mixtures under the same name, after proposal.yaml was edited."""
    mixtures = {trial.name: trial.mixture for trial in planned}
    for file in VALIDATE.trial_files(run.path):
        trial = read_entry(file)[0]
        if mixtures.get(trial.name, trial.mixture).fingerprint != trial.mixture.fingerprint:
            say(f"validate: {trial.name} belongs to an earlier proposal, and is deleted")
            TrialFolder(file.parent).forget(trial.name)
