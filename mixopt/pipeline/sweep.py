"""Train the trials of a run, in rounds; a fit on earlier trials chooses those of later rounds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mixopt.corpus import corpus_hash
from mixopt.errors import RunError
from mixopt.fitting import OBJECTIVE, Fit
from mixopt.mixture import Mixture
from mixopt.pipeline.early_stop import continuing_trials, with_estimated_ends
from mixopt.pipeline.from_fit import fit_of
from mixopt.proposals import (
    Batch,
    Surrogate,
    anneal_effects,
    anneal_lines,
    best_candidate,
    choose_batch,
    draw_candidates,
)
from mixopt.run_directory import (
    SWEEP,
    VALIDATE,
    Run,
    StartRecord,
    Step,
    TrialExperts,
    measure_start,
    stated_objective,
    usable_trials,
)
from mixopt.sweeps import GROUPS, ROUNDS, Job, Select, Training, run_trials
from mixopt.system import Array, FileShape, Say, first_few, read_json, write_json, write_table
from mixopt.trials import (
    MIN_WEIGHT,
    Trial,
    TrialResult,
    Trials,
    design_constraints,
    first_stage,
    read_design,
    settled,
    stage_limits,
    trial_seeds,
    write_design,
)

CURVE_POINTS = 9  # evaluations of a trial before its end: every 10%
MAX_NAMED = 5  # trials named in a line
CRITICAL_ERRORS = 2.33  # standard errors by which squared errors must grow: 99%, one-sided
Train = Callable[[Sequence[Trial], int], list[TrialResult]]
Frozen = dict[str, float] | None  # the mixture that the stage of a round holds frozen


def sweep(run: Run, say: Say) -> None:
    """Train the proxy on each mixture of the design and of later rounds."""
    job = job_of(run, SWEEP)
    _record_start(run, job, say)

    def train(trials: Sequence[Trial], planned: int) -> list[TrialResult]:
        select = partial(continuing_trials, run, trials)
        return with_estimated_ends(train_trials(run, SWEEP, job, trials, say, planned, select))

    trials, results = run_rounds(run, train, say)
    table = Trials.from_results(
        trials, results, proxy=run.config.proxy.name, targets=run.config.losses
    )
    if run.config.design.phases is None:
        table = replace(table, contents=run.corpus.contents, is_phased=False)
    else:
        table = replace(table, contents={}, is_phased=True)
    table.write(run.path / f"{SWEEP.trials}.parquet")
    keep_experts(run, SWEEP, results, say)
    say_unfinished(run, SWEEP, results, say)
    _say_anneals(run, usable_trials(run, table), say)


def train_trials(
    run: Run,
    step: Step,
    job: Job,
    trials: Sequence[Trial],
    say: Say,
    planned: int = 0,
    select: Select | None = None,
) -> list[TrialResult]:
    """Train the trials of a step that have no result yet; return the results of all."""
    return run_trials(
        trials,
        job,
        step.trial_folder(run.path),
        sweep=run.config.sweep,
        select=select,
        title=step.name,
        planned=planned,
        say=say,
    )


def job_of(run: Run, step: Step) -> Job:
    """Return the job that all trials of a step share."""
    proxy = run.config.proxy
    corpus = run.path / "corpus"
    target_tokens = run.config.propose.target_tokens if proxy.simulate_epochs else None
    inventory = None
    if target_tokens is not None or proxy.mixture_format is not None:
        inventory = run.inventory
    training = Training(
        tokens=run.config.validation_tokens if step is VALIDATE else proxy.tokens,
        eval_every=proxy.eval_every or 0,
        eval_tokens=proxy.eval_tokens,
        device=proxy.device,
        target_tokens=target_tokens,
        inventory=inventory,
        curve_points=CURVE_POINTS if proxy.eval_every is None else 0,
        phases=run.config.design.phases,
    )
    return Job(
        proxy.name,
        proxy.all_options,
        corpus,
        training,
        corpus_hash(corpus),
        made_by=run.log.trial_fingerprint(step.name),
    )


def keep_experts(run: Run, step: Step, results: Sequence[TrialResult], say: Say) -> None:
    """Write the expert assignments of the trials, if the proxy has experts."""
    experts = TrialExperts.of(results)
    if experts is None:
        return
    file = step.experts_file(run.path)
    write_table(file, experts.table)
    if experts.collapsed:
        names = first_few(experts.collapsed, MAX_NAMED)
        count = f"{len(experts.collapsed)} of {len(experts.by_trial())}"
        how = f"mixopt experts {run.path}" if step is SWEEP else file
        say(f"{step.name}: experts collapsed in {count} trials ({names}); see {how}")


def say_unfinished(run: Run, step: Step, results: Sequence[TrialResult], say: Say) -> None:
    """Report the trials that failed or diverged, and the command that trains them again."""
    unfinished = [result for result in results if result.has_failed]
    for result in unfinished:
        say(f"{step.name}: trial {result.trial} {result.status}: {result.reason}")
    if unfinished:
        count = f"{len(unfinished)} of {len(results)}"
        command = run.command("--retry-failed")
        say(f"{step.name}: {count} trials did not finish; to train them again: {command}")


def _say_anneals(run: Run, table: Trials, say: Say) -> None:
    anneals = run.config.design.anneals
    if anneals is not None and (table.table["status"] == "finished").any():
        objective = settled(stated_objective(run), table)
        for line in anneal_lines(anneal_effects(table, objective, anneals)):
            say(f"sweep: {line}")


def _record_start(run: Run, job: Job, say: Say) -> None:
    """Write the losses of the start checkpoint, once.

    Its hash is an option of the proxy, so that other weights make another sweep.
    """
    if run.config.proxy.start is None or StartRecord.read(run.path) is not None:
        return
    weights = run.config.proxy.start_hash
    losses = measure_start(job.proxy, job.options, job.corpus, job.training)
    StartRecord.of(weights, job.training.eval_tokens, losses).write(run.path)
    say(f"sweep: trials begin with {run.config.proxy.start} (weights {weights[:12]})")


class _RoundsShape(FileShape, strict=True):
    rounds: list[Frozen]


def _chosen_rounds(path: Path) -> list[Frozen]:
    """Return each chosen round in `rounds.json`."""
    file = path / "trials" / ROUNDS
    if not file.exists():
        return []
    try:
        shape: _RoundsShape = read_json(file, _RoundsShape)
    except RunError as error:
        raise RunError(
            f"{error}; delete it and {GROUPS} beside it: the rounds are chosen again, and finished"
            " trials are kept"
        ) from error
    return shape.rounds


def run_rounds(run: Run, train: Train, say: Say) -> tuple[list[Trial], list[TrialResult]]:
    """Train the first round, then choose and train the others; resumes.

    A round in the design that `rounds.json` does not list yet is dropped, and chosen again.
    """
    planned = run.config.design.planned_rounds
    design = run.path / "design.parquet"
    trials, rounds = _recorded(run)
    if len(trials) < len(read_design(design)):
        write_design(trials, design)
    results = train(trials, planned_trials(run))
    frozen = Mixture(rounds[-1]) if rounds and rounds[-1] else None
    for number in range(len(rounds) + 1, len(planned)):
        batch, frozen = choose_round(run, trials, results, number, frozen)
        trials = [*trials, *_named(run, trials, batch, number)]
        write_design(trials, design)
        rounds.append(None if frozen is None else dict(frozen))
        say(
            f"sweep: round {number + 1} of {len(planned)}: {len(batch.weights_BD)} mixtures chosen"
            f" by {batch.regressor}, expected gain over the current proposal: {batch.gain:.4g}"
        )
        write_json(run.path / "trials" / ROUNDS, {"rounds": rounds})
        results = train(trials, planned_trials(run))
    return trials, results


def choose_round(
    run: Run,
    trials: Sequence[Trial],
    results: Sequence[TrialResult],
    number: int,
    frozen: Mixture | None,
) -> tuple[Batch, Mixture | None]:
    """Choose the mixtures of a round by a fit on earlier trials.

    Returns the batch, and the mixture that the round's stage holds frozen; `frozen` is that of the
    stage before.
    """
    config = run.config
    seed = config.seed + number
    all_trials = Trials.from_results(
        trials, results, proxy=config.proxy.name, targets=config.losses
    )
    table = usable_trials(run, all_trials)
    objective = settled(stated_objective(run), table)
    _check_finished(run, table, results, number)
    surrogate = Surrogate.of(fit_of(run, table, objective, f"choosing round {number + 1}"))
    limits = design_constraints(config.design, run.natural, run.constraints)
    natural_D = run.natural.array
    stages = config.design.stages
    if stages:
        if frozen is None:
            before = first_stage(config.design, run.natural, limits)
        else:
            before = stage_limits(stages[number - 1], frozen, limits)
        best_D = best_candidate(surrogate, before.allowed, natural_D, seed=seed)
        frozen = Mixture.from_array(run.natural.domains, best_D)
        allowed = stage_limits(stages[number], frozen, limits).allowed
    else:
        allowed = limits.simplex
    candidates_KD = draw_candidates(surrogate, allowed, natural_D, minimum=MIN_WEIGHT, seed=seed)
    batch = choose_batch(
        surrogate,
        candidates_KD,
        config.design.planned_rounds[number],
        taken_ND=table.weights(),
        seed=seed,
    )
    return batch, frozen


def planned_trials(run: Run) -> int:
    """Count all planned trials, including later rounds."""
    trials, rounds = _recorded(run)
    return len(trials) + sum(run.config.design.planned_rounds[len(rounds) + 1 :])


def _recorded(run: Run) -> tuple[list[Trial], list[Frozen]]:
    rounds = _chosen_rounds(run.path)
    trials = read_design(run.path / "design.parquet")
    return [trial for trial in trials if trial.round <= len(rounds)], rounds


def _named(run: Run, trials: Sequence[Trial], batch: Batch, number: int) -> list[Trial]:
    first = sum(run.config.design.planned_rounds[:number])
    names = [f"t{first + i:04d}" for i in range(len(batch.weights_BD))]
    all_names = [trial.name for trial in trials] + names
    seeds = trial_seeds(all_names, seed=run.config.seed)
    domains = run.natural.domains
    mixtures = [Mixture.from_array(domains, weights_D) for weights_D in batch.weights_BD]
    return [
        Trial(name, mixture, seeds[name], "chosen", number)
        for name, mixture in zip(names, mixtures, strict=True)
    ]


def _check_finished(run: Run, table: Trials, results: Sequence[TrialResult], number: int) -> None:
    min_mixtures = run.config.fit.folds
    finished = len(set(table.finished.mixtures))
    if finished >= min_mixtures:
        return
    failed = [result for result in results if result.has_failed]
    why = ""
    if failed:
        why = f" (trial {failed[0].trial} {failed[0].status}: {failed[0].reason})"
    raise RunError(
        f"{run.path}: round {number + 1} of {len(run.config.design.planned_rounds)} cannot be"
        f" chosen: trials of {finished} mixtures have finished, and a fit needs {min_mixtures}{why}"
        f"; fix that and run {run.command('--retry-failed')}, or set design.rounds: off"
    )


def worse_round(run: Run, fit: Fit) -> str | None:
    """Fit a run without its last round; return a line if that predicts earlier trials better."""
    trials = fit.trials
    last = max(trials.table["round"].to_list())
    if last == 0:
        return None
    earlier = trials.table.filter(trials.table["round"] < last)
    before = fit_of(run, replace(trials, table=earlier))
    return worse_text(before, fit, "the trials of the last round")


def worse_text(before: Fit, after: Fit, further_runs: str) -> str | None:
    """Return a line if further runs made held-out predictions of earlier trials worse."""
    names = before.trials.table["trial"].to_list()
    before_N = _squared_errors(before, names)
    after_N = _squared_errors(after, names)
    more_N = after_N - before_N
    significant = CRITICAL_ERRORS * more_N.std() / np.sqrt(len(more_N))
    if more_N.mean() <= significant:
        return None
    return (
        f"with {further_runs} the fit predicts the earlier trials worse on held-out folds (error"
        f" {np.sqrt(after_N.mean()):.4f}, {np.sqrt(before_N.mean()):.4f} before): they may be of"
        " another kind, or far from where the law holds"
    )


def _squared_errors(fit: Fit, names: Sequence[str]) -> Array:
    """Return the squared held-out errors of the objective, for N trials."""
    rows = fit.held_out.filter(predictor=fit.name, target=OBJECTIVE)
    rows = rows.filter(rows["trial"].is_in(names))
    errors_N: Array = (rows["predicted"] - rows["observed"]).to_numpy()
    return errors_N**2
