"""Train a design in rounds; mixtures of later rounds are chosen by a fit on earlier trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat

from mixopt.errors import RunError
from mixopt.mixture import Mixture
from mixopt.pipeline.from_fit import fit_of
from mixopt.run_directory import carried_trials, repetition_of, stated_objective, usable_trials
from mixopt.sweeps import GROUPS, ROUNDS
from mixopt.system import Say, read_json, steady_progress, write_json
from mixopt.trials import Trial, TrialResult, Trials, read_design, write_design

if TYPE_CHECKING:
    from mixopt.fitting import Fit
    from mixopt.proposals import Batch
    from mixopt.run_directory import Run


class _Record(BaseModel):
    """Content of `rounds.json`: each chosen round, with the mixture that its stage holds frozen."""

    model_config = ConfigDict(frozen=True, strict=True)
    rounds: list[dict[str, FiniteFloat] | None] = []

    @property
    def frozen(self) -> Mixture | None:
        """The mixture that the last chosen stage holds frozen."""
        weights = self.rounds[-1] if self.rounds else None
        return None if weights is None else Mixture(weights)


def _read_record(path: Path) -> _Record:
    file = path / "trials" / ROUNDS
    if not file.exists():
        return _Record()
    try:
        record: _Record = read_json(file, _Record)
    except RunError as error:
        raise RunError(
            f"{error}; delete it and {GROUPS} beside it: the rounds are chosen again, and finished"
            " trials are kept"
        ) from error
    return record


Train = Callable[[Sequence[Trial], int], list[TrialResult]]


def run_rounds(run: Run, train: Train, say: Say) -> tuple[list[Trial], list[TrialResult]]:
    """Train the first round, then choose and train the others; resumes.

    A round in the design that `rounds.json` does not list yet is dropped, and chosen again.
    """
    rounds, design = run.config.design.planned_rounds, run.path / "design.parquet"
    trials, record = _recorded(run)
    if len(trials) < len(read_design(design)):
        write_design(trials, design)
    results = train(trials, planned_trials(run))
    for number in range(len(record.rounds) + 1, len(rounds)):
        batch, frozen = choose_round(run, trials, results, number, record.frozen)
        trials = [*trials, *_named(run, trials, batch, number)]
        write_design(trials, design)
        record = _Record(rounds=[*record.rounds, None if frozen is None else dict(frozen)])
        say(
            f"sweep: round {number + 1} of {len(rounds)}: {len(batch.weights_BD)} mixtures chosen"
            f" by {batch.regressor}, expected gain over the current proposal: {batch.gain:.4g}"
        )
        write_json(run.path / "trials" / ROUNDS, record.model_dump())
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
    from mixopt.fitting import fit_trials
    from mixopt.proposals import Surrogate, best_candidate, choose_batch, draw_candidates
    from mixopt.trials import (
        MIN_WEIGHT,
        Trials,
        design_constraints,
        first_stage,
        settled,
        stage_limits,
    )

    config, seed = run.config, run.config.seed + number
    all_trials = Trials.from_results(
        trials, results, proxy=config.proxy.name, targets=config.losses
    )
    table = usable_trials(run, all_trials)
    objective = settled(stated_objective(run), table)
    _check_finished(run, table, results, number)
    steps = len(config.fit.regressors) * config.fit.folds
    with steady_progress(f"choosing round {number + 1}", steps) as update:
        fit = fit_trials(
            table,
            config.fit,
            objective,
            config.seed,
            repetition=repetition_of(run),
            carried=carried_trials(run),
            update=update,
        )
    surrogate = Surrogate.of(fit)
    limits = design_constraints(config.design, run.natural, run.constraints)
    natural_D, stages = run.natural.array, config.design.stages
    if stages:
        before = first_stage(config.design, run.natural, limits)
        if frozen is not None:
            before = stage_limits(stages[number - 1], frozen, limits)
        best_D = best_candidate(surrogate, before.allowed, natural_D, seed=seed)
        frozen = Mixture.from_array(run.natural.domains, best_D)
        limits = stage_limits(stages[number], frozen, limits)
    allowed = limits.allowed if stages else limits.simplex
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
    trials, record = _recorded(run)
    return len(trials) + sum(run.config.design.planned_rounds[len(record.rounds) + 1 :])


def _recorded(run: Run) -> tuple[list[Trial], _Record]:
    record = _read_record(run.path)
    trials = read_design(run.path / "design.parquet")
    return [trial for trial in trials if trial.round <= len(record.rounds)], record


def _named(run: Run, trials: Sequence[Trial], batch: Batch, number: int) -> list[Trial]:
    from mixopt.trials import trial_seeds

    first = sum(run.config.design.planned_rounds[:number])
    names = [f"t{first + i:04d}" for i in range(len(batch.weights_BD))]
    seeds = trial_seeds([*(trial.name for trial in trials), *names], seed=run.config.seed)
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
    failed = next((result for result in results if result.status != "finished"), None)
    why = "" if failed is None else f" (trial {failed.trial} {failed.status}: {failed.reason})"
    raise RunError(
        f"{run.path}: round {number + 1} of {len(run.config.design.planned_rounds)} cannot be"
        f" chosen: trials of {finished} mixtures have finished, and a fit needs {min_mixtures}{why}"
        f"; fix that and run {run.command('--retry-failed')}, or set design.rounds: off"
    )


CRITICAL_ERRORS = 2.33  # standard errors by which squared errors must grow: 99%, one-sided


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
    from mixopt.fitting import OBJECTIVE

    names, squares = before.trials.table["trial"].to_list(), []
    for fit in (before, after):
        rows = fit.held_out.filter(predictor=fit.name, target=OBJECTIVE)
        rows = rows.filter(rows["trial"].is_in(names))
        squares.append((rows["predicted"] - rows["observed"]).to_numpy() ** 2)
    more_N = squares[1] - squares[0]
    if more_N.mean() <= CRITICAL_ERRORS * more_N.std() / np.sqrt(len(more_N)):
        return None
    errors = [float(np.sqrt(squares_N.mean())) for squares_N in squares]
    return (
        f"with {further_runs} the fit predicts the earlier trials worse on held-out folds (error"
        f" {errors[1]:.4f}, {errors[0]:.4f} before): they may be of another kind, or far from where"
        " the law holds"
    )
