"""What each step of a run does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixopt.errors import ConfigError
from mixopt.mixture import Mixture
from mixopt.pipeline.from_fit import fit_of, proposal_of, with_parts
from mixopt.pipeline.pre_check import check_token_unit, fold_fault, run_shortages, say_shortages
from mixopt.pipeline.trial_start import make_start, record_start, start_options
from mixopt.proposals import (
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
from mixopt.run_directory import (
    DESIGN,
    FIT,
    LATER_PROPOSALS,
    PREPARE,
    PROPOSE,
    RECOMMENDATION,
    REPORT,
    SWEEP,
    VALIDATE,
    Run,
    Step,
    usable_trials,
)
from mixopt.system import Say
from mixopt.trials import TrialResult, Trials

if TYPE_CHECKING:
    from mixopt.config import AnnealsConfig
    from mixopt.run_directory import Run
    from mixopt.sweeps import Job, Means
    from mixopt.trials import Trial, TrialResult


Train = Callable[[Sequence["Trial"]], list[TrialResult]]
SAME = 0.005  # total variation below which a further proposal is none


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
        named_results = self.plan.named_results(self.results)
        name, targets = run.config.proxy.name, run.config.losses
        return Trials.from_results(
            self.plan.named_trials, named_results, proxy=name, targets=targets
        )


def full_run(run: Run) -> FullRun:
    """Return what baselines need to know of the run that the mixture is for."""
    config = run.config
    return FullRun(run.inventory, config.propose.target_tokens, config.constraints.max_epochs)


def validate_proposals(run: Run, train: Train, say: Say) -> Validated:
    """Train proposals against baselines until one wins, or the rounds are used up."""
    config = run.config.validation
    full, objective = full_run(run), run.objective
    baselines = {
        one.name: baseline_mixture(one, full, run.trials, objective) for one in config.baselines
    }
    _say_equal(baselines, say)
    seeds = fresh_seeds(run.trials, config.most_seeds, run.config.seed)
    found = Validated(ValidationPlan(baselines, seeds), [], {})
    proposal: Proposal | None = run.proposal
    for number in range(1, config.rounds + 1):
        assert proposal is not None
        name = proposal_name(number)
        found = _validate_one(run, found, name, proposal, train, say)
        validation = found.validation(run)
        if _wins(validation, name) or number == config.rounds:
            break
        proposal = _next_proposal(run, validation, number, say)
        if proposal is None:
            break
    return found


def _validate_one(
    run: Run, found: Validated, name: str, proposal: Proposal, train: Train, say: Say
) -> Validated:
    """Train one proposal and the baselines, with more seeds where they are needed."""
    config, undecided = run.config.validation, [one.name for one in run.config.validation.baselines]
    proposals = {**found.proposals, name: proposal}
    mixtures = {**found.plan.mixtures, name: proposal.mixture}
    for count in looks(config.seeds, config.most_seeds):
        asked = {other: mixtures[other] for other in (name, *undecided)}
        plan = found.plan.add(asked, count)
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


def _wins(validation: Validation, name: str) -> bool:
    compared = validation.comparisons_of(name)
    return all(one.verdict in ("wins", "same mixture") for one in compared)


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
    """Say which baselines are one mixture, which is trained once."""
    for name, mixture in baselines.items():
        same = next(other for other, one in baselines.items() if one == mixture)
        if same != name:
            say(f"validate: {named(name)} is the same mixture as {named(same)}; trained once")


Action = Callable[[Run, Say], None]
CURVE_POINTS = 9  # of a trial before its end: every 10%


def _prepare(run: Run, say: Say) -> None:
    from mixopt.corpus import prepare_corpus

    check_token_unit(run.config)
    prepare_corpus(
        run.config.corpus,
        run.config.evaluation,
        run.path / "corpus",
        tasks=run.config.tasks,
        fingerprint=run.log.fingerprint(PREPARE.name),
        seed=run.config.seed,
        min_tokens=2,
        progress=lambda line: say(f"prepare: {line}"),
    )


def _design(run: Run, say: Say) -> None:
    from mixopt.trials import make_design, write_design

    trials = make_design(
        run.config.design,
        run.natural,
        run.constraints,
        run.config.seed,
        say=lambda line: say(f"design: {line}"),
    )
    of_anneals = run.config.design.anneals is not None
    fault = None if of_anneals else fold_fault(run.config, len({trial.mixture for trial in trials}))
    if fault is not None:
        raise ConfigError(fault)
    write_design(trials, run.path / "design.parquet")
    if (short := say_shortages(run_shortages(run))) is not None:
        say(f"design: warning: {short}")
    roles = [trial.role for trial in trials]
    counts = ", ".join(_counted(role, roles.count(role)) for role in dict.fromkeys(roles))
    later = sum(run.config.design.planned_rounds[1:])
    chosen = f", {later} more to be chosen as trials finish" if later else ""
    say(f"design: {len(trials)} trials ({counts}){chosen}")


def _counted(role: str, count: int) -> str:
    """Return such as `2 anchors` and `3 axial`."""
    is_noun = role in ("anchor", "replicate", "control", "anneal")
    return f"{count} {role}{'s' if is_noun and count > 1 else ''}"


def _sweep(run: Run, say: Say) -> None:
    from mixopt.pipeline.rounds import run_rounds

    make_start(run, say)
    record_start(run, job_of(run, SWEEP), say)
    job = job_of(run, SWEEP)

    def train(trials: Sequence[Trial], planned: int) -> list[TrialResult]:
        return _trained(run, SWEEP, job, trials, say, planned)

    trials, results = run_rounds(run, train, say)
    _keep_results(run, SWEEP, trials, results, say)
    if (anneals := run.config.design.anneals) is not None:
        _say_anneals(run, anneals, say)


def _say_anneals(run: Run, anneals: AnnealsConfig, say: Say) -> None:
    from mixopt.objective import Objective
    from mixopt.proposals import anneal_effects, anneal_lines
    from mixopt.trials import Trials, settled

    table = usable_trials(run, Trials.read(run.path / f"{SWEEP.trials}.parquet"))
    if (table.table["status"] == "finished").any():
        objective = settled(Objective.from_config(run.config.aim, table.targets), table)
        for line in anneal_lines(anneal_effects(table, objective, anneals)):
            say(f"sweep: {line}")


def _fit(run: Run, say: Say) -> None:
    from mixopt.fitting import readiness

    chosen = fit_of(run, run.trials)
    ready = readiness(chosen)
    if not run.config.objective.allow_noise:
        ready.refuse_noise()
    chosen.save(run.path / "fit")
    say(f"fit: {chosen.summary()}")
    for line in ready.lines(str(run.path)):
        say(f"fit: {line}")


def _propose(run: Run, say: Say) -> None:
    proposal = proposal_of(run, run.fit)
    proposal.to_file(run.path / "proposal.yaml")
    for warning in proposal.warnings:
        say(f"propose: warning: {warning}")


def _validate(run: Run, say: Say) -> None:
    job = job_of(run, VALIDATE)

    def train(trials: Sequence[Trial]) -> list[TrialResult]:
        _forget_others(run, trials, say)
        return _trained(run, VALIDATE, job, trials, say)

    found = validate_proposals(run, train, say)
    _keep_decision(run, found, say)


def _keep_decision(run: Run, found: Validated, say: Say) -> None:
    """Write what was validated, the proposals that came after the first, and the decision."""
    from mixopt.proposals import PROPOSAL, Decision

    found.table(run).write(run.path / f"{VALIDATE.trials}.parquet")
    _keep_experts(run, VALIDATE, found.results, say)
    _say_unfinished(run, VALIDATE, found.results, say)
    for name, proposal in found.proposals.items():
        if name != PROPOSAL:
            proposal.to_file(run.path / LATER_PROPOSALS / f"{name}.yaml")
    decision = Decision(
        found.validation(run),
        found.proposals,
        run.fit,
        run.constraints,
        full_run(run),
        run.config.validation_tokens,
    )
    recommendation = with_parts(decision.recommend(), run)
    recommendation.to_file(run.path / RECOMMENDATION)
    say(f"validate: {recommendation.headline}")


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


def _report(run: Run, _: Say) -> None:
    from mixopt.reporting import write_report

    write_report(run)


def _trained(
    run: Run, step: Step, job: Job, trials: Sequence[Trial], say: Say, planned: int | None = None
) -> list[TrialResult]:
    """Train those of a step's trials that have no result yet; return a result for each."""
    from mixopt.sweeps import run_trials

    return run_trials(
        trials,
        job,
        step.trial_folder(run.path),
        means=means_of(run),
        title=step.name,
        planned=planned,
        say=say,
    )


def means_of(run: Run) -> Means:
    """Return what the trials of a run are trained on."""
    from mixopt.sweeps import Means

    asked = run.config.sweep
    return Means(
        asked.executor,
        asked.options,
        asked.workers,
        asked.patience,
        asked.gpus,
        asked.nodes,
        asked.retries,
    )


def job_of(run: Run, step: Step) -> Job:
    """Return what all trials of a step share."""
    from mixopt.corpus import corpus_hash
    from mixopt.loading import simulated_target
    from mixopt.sweeps import Job
    from mixopt.trials import Training

    proxy = run.config.proxy
    tokens = run.config.validation_tokens if step is VALIDATE else proxy.tokens
    target = simulated_target(proxy.simulate_epochs, tokens, run.config.propose.target_tokens)
    training = Training(
        tokens,
        proxy.eval_every or 0,
        proxy.eval_tokens,
        proxy.device,
        target_tokens=target,
        inventory=None if target is None and proxy.mixture_format is None else run.inventory,
        curve_points=CURVE_POINTS if proxy.eval_every is None else 0,
    )
    corpus = run.path / "corpus"
    return Job(
        proxy.name,
        start_options(run),
        corpus,
        training,
        corpus_hash(corpus),
        made_by=run.log.trial_fingerprint(step.name),
    )


def _keep_results(
    run: Run, step: Step, trials: Sequence[Trial], results: Sequence[TrialResult], say: Say
) -> None:
    """Write the table of a step's trials and that of their experts; say what did not finish."""
    from mixopt.trials import Trials

    table = Trials.from_results(
        trials, results, proxy=run.config.proxy.name, targets=run.config.losses
    )
    table.write(run.path / f"{step.trials}.parquet")
    _keep_experts(run, step, results, say)
    _say_unfinished(run, step, results, say)


def _keep_experts(run: Run, step: Step, results: Sequence[TrialResult], say: Say) -> None:
    """Write what the experts of the trials were given, where they have experts."""
    from mixopt.run_directory import write_experts

    file = step.experts_file(run.path)
    found = write_experts(results, file)
    if found is not None and found.collapsed:
        first = ", ".join(found.collapsed[:5])
        more = f" and {len(found.collapsed) - 5} more" if len(found.collapsed) > 5 else ""
        count = f"{len(found.collapsed)} of {len(found.by_trial())}"
        how = f"mixopt experts {run.path}" if step is SWEEP else file
        say(f"{step.name}: experts collapsed in {count} trials ({first}{more}); see {how}")


def _say_unfinished(run: Run, step: Step, results: Sequence[TrialResult], say: Say) -> None:
    unfinished = [result for result in results if result.status != "finished"]
    for result in unfinished:
        say(f"{step.name}: trial {result.trial} {result.status}: {result.reason}")
    if unfinished:
        count = f"{len(unfinished)} of {len(results)}"
        again = run.command("run", "--retry-failed")
        say(f"{step.name}: {count} trials did not finish; to train them again: {again}")


ACTIONS: Mapping[Step, Action] = {
    PREPARE: _prepare,
    DESIGN: _design,
    SWEEP: _sweep,
    FIT: _fit,
    PROPOSE: _propose,
    VALIDATE: _validate,
    REPORT: _report,
}
