"""What came of a run, as metrics: what experiments are sorted by, and what a run's charts show.

The sweep's parent run stands for the whole run, so that each run is one row of an experiment:

    outcome/validated_gain              of the recommendation over natural, and _low and _high;
    outcome/validated_gain_over_best_trial   over seeds of the validation
    outcome/predicted_gain              by the fit; and _low, _high, and over the best trial
    outcome/held_out_rmse, outcome/held_out_spearman   of the chosen regressor
    outcome/best_trial                  the lowest objective, over trials done
    recommended/<domain>                weights: natural at 0, the proposal at 1, the decision at 2
    spent/trials_done, trials_failed, tokens, flops, gpu_hours, cpu_hours   over trials done
    search/objective                    of each trial
    anneal/<source>, anneal_low/..., anneal_high/...   of microanneals: source - control
    anneal_on/<target>/<source>         the same of each loss that the objective measures

The validation's parent run has, over its seeds, `objective/<mixture>`, `gain/<mixture>`,
`gain_low/...`, `gain_high/...`, `predicted_gain/...`, and `cost/<evaluation domain>`.

A gain is another mixture's objective - that of the recommended one: above 0 this one is better.

Shapes: N trials, M evaluation domains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from mixopt.fitting import OBJECTIVE, held_out_tables, spearman
from mixopt.run_directory import FIT, PROPOSE, SWEEP, VALIDATE, Run
from mixopt.sweeps import read_attempts, sweep_totals
from mixopt.tracking.outcome_files import Line

if TYPE_CHECKING:
    from mixopt.proposals import Anneals, Interval, Proposal, Recommendation, Validation

NATURAL, BEST_TRIAL = "natural", "best_trial"
AS_NATURAL, AS_PROPOSED, AS_DECIDED = 0, 1, 2  # steps of weights and of predicted gains
OPERATIONS = 6  # of training, a parameter and token
NOT_NEURAL = ("ngram",)  # proxies whose parameters are no weights
FEWEST_SEEDS = 2  # that have an interval
FEWEST_TRIALS, MOST_POINTS = 5, 30  # of the charts of held-out errors


def run_outcome(run: Run) -> Iterator[Line]:
    """Yield what is known of a whole run, for the sweep's parent run."""
    if run.is_done(SWEEP.name):
        yield from _search(run)
        yield from _compute(run)
        if run.config.design.anneals is not None:
            yield from _anneals(run.anneals)
    if run.is_done(FIT.name):
        yield from _held_out(run)
    if run.is_done(PROPOSE.name):
        yield from _proposed(run.proposal)
    if run.is_done(VALIDATE.name):
        yield from _decided(run.recommendation, run.validation)


def validation_outcome(run: Run) -> Iterator[Line]:
    """Yield what validation has shown, for its parent run; nothing before it is done."""
    if not run.is_done(VALIDATE.name):
        return
    validation, found = run.validation, run.recommendation
    for name in validation.mixtures:
        values = validation.values(name)
        for place, seed in enumerate(sorted(values), start=1):
            yield place, {f"objective/{name}": values[seed]}
    for seeds, part in _looks(validation):
        yield seeds, _costs(part, found)
        for other in found.gains:
            yield seeds, _spread(_gain(part, found.chosen, other), "gain", f"/{other}")
    last = len(_seeds(validation))
    for other, gain in found.gains.items():
        yield last, _spread(gain.validated, "gain", f"/{other}")
        if gain.predicted is not None:
            for seeds in range(FEWEST_SEEDS, last + 1):
                yield seeds, {f"predicted_gain/{other}": gain.predicted.value}
    yield last, {f"cost/{name}": cost.value for name, cost in found.costs.items()}


def _costs(validation: Validation, found: Recommendation) -> dict[str, float]:
    """Return what the losses outside the objective get worse by, against natural."""
    if not {NATURAL, found.chosen} <= set(validation.mixtures):
        return {}
    compared = {name: validation.compare(NATURAL, name, of=found.chosen) for name in found.costs}
    return {f"cost/{name}": one.mean for name, one in compared.items() if one is not None}


def _search(run: Run) -> Iterator[Line]:
    done = run.trials.finished
    best = math.inf
    values_N = run.objective.value(done.losses(run.objective.unit))
    for number, value in enumerate(values_N.tolist(), start=1):
        best = min(best, value)
        yield number, {"search/objective": value, "outcome/best_trial": best}


def _anneals(found: Anneals) -> Iterator[Line]:
    """Yield the sources' effects over the seeds that they have."""
    for one in found.effects():
        ends = {"_low": one.low, "_high": one.high}
        values = {f"anneal/{one.source}": one.mean}
        values |= {f"anneal{end}/{one.source}": v for end, v in ends.items() if v is not None}
        yield one.seeds, values
    for target in found.targets:
        for one in found.effects(target):
            yield one.seeds, {f"anneal_on/{target}/{one.source}": one.mean}


def _compute(run: Run) -> Iterator[Line]:
    """Yield what was spent, trial by trial; hours are known of the whole."""
    tables = [(SWEEP, run.trials.table)]
    if run.is_done(VALIDATE.name):
        tables.append((VALIDATE, run.validation.trials.table))
    done = failed = tokens = 0
    flops, hours = 0.0, {"gpu_hours": 0.0, "cpu_hours": 0.0}
    neural = run.config.proxy.name not in NOT_NEURAL
    yield 0, _named("spent", dict(hours))
    for step, table in tables:
        for status, count, size in table.select("status", "tokens", "parameters").iter_rows():
            done, failed = done + (status == "finished"), failed + (status != "finished")
            tokens += count or 0
            flops += OPERATIONS * float(count or 0) * float(size or 0)
            spent: dict[str, float] = {"trials_done": done, "trials_failed": failed}
            spent |= {"tokens": tokens} | ({"flops": flops} if neural else {})
            yield done + failed, _named("spent", spent)
        totals = sweep_totals(read_attempts(step.trial_folder(run.path)), (), 0)
        hours["gpu_hours"] += totals.gpu_hours
        hours["cpu_hours"] += totals.cpu_hours
        yield done + failed, _named("spent", dict(hours))


def _held_out(run: Run) -> Iterator[Line]:
    """Yield the chosen regressor's errors on trials that it was not fitted to.

    Before the last, they are those of the first trials alone, of the same fits.
    """
    name, report, held_out = held_out_tables(run.path / "fit")
    own = pl.col("predictor") == name, pl.col("target") == OBJECTIVE
    held_out = held_out.filter(*own)
    observed_N, predicted_N = held_out["observed"].to_numpy(), held_out["predicted"].to_numpy()
    counts = np.linspace(FEWEST_TRIALS, len(observed_N), MOST_POINTS).astype(int).tolist()
    for count in sorted({one for one in counts if FEWEST_TRIALS <= one < len(observed_N)}):
        error = float(np.sqrt(np.mean((predicted_N[:count] - observed_N[:count]) ** 2)))
        rank = spearman(predicted_N[:count], observed_N[:count])
        yield count, _quality(error, rank)
    for rank, error in report.filter(*own).select("spearman", "rmse").iter_rows():
        yield len(observed_N), _quality(error, rank)


def _quality(error: float, rank: float | None) -> dict[str, float]:
    found = {"held_out_rmse": error} | ({} if rank is None else {"held_out_spearman": rank})
    return {f"outcome/{name}": value for name, value in found.items() if math.isfinite(value)}


def _proposed(proposal: Proposal) -> Iterator[Line]:
    yield AS_NATURAL, _weights(proposal.natural)
    yield AS_PROPOSED, _weights(proposal.mixture)
    yield AS_NATURAL, dict.fromkeys(_bounds("outcome/predicted_gain"), 0.0)  # over itself
    for other, end in ((NATURAL, ""), (BEST_TRIAL, "_over_best_trial")):
        if other in proposal.gains:
            yield AS_PROPOSED, _spread(proposal.gains[other], "outcome/predicted_gain", "", end)


def _decided(found: Recommendation, validation: Validation) -> Iterator[Line]:
    yield AS_DECIDED, _weights(found.mixture)
    last = len(_seeds(validation))
    for other, end in ((NATURAL, ""), (BEST_TRIAL, "_over_best_trial")):
        if other == found.chosen:  # which gains nothing over itself
            for seeds in range(FEWEST_SEEDS, last + 1):
                yield seeds, dict.fromkeys(_bounds(f"outcome/validated_gain{end}"), 0.0)
            yield AS_DECIDED, dict.fromkeys(_bounds(f"outcome/predicted_gain{end}"), 0.0)
            continue
        if other not in found.gains:
            continue
        for seeds, part in _looks(validation):
            gain = _gain(part, found.chosen, other)
            yield seeds, _spread(gain, "outcome/validated_gain", "", end)
        whole = found.gains[other]
        yield last, _spread(whole.validated, "outcome/validated_gain", "", end)
        yield AS_DECIDED, _spread(whole.predicted, "outcome/predicted_gain", "", end)


def _looks(validation: Validation) -> Iterator[tuple[int, Validation]]:
    """Yield the validation by its first seeds alone, more and more of them, but for all."""
    seeds = _seeds(validation)
    for count in range(FEWEST_SEEDS, len(seeds)):
        table = validation.trials.table.filter(pl.col("seed").is_in(seeds[:count]))
        yield count, replace(validation, trials=replace(validation.trials, table=table))


def _seeds(validation: Validation) -> list[int]:
    return sorted(validation.trials.table["seed"].unique().to_list())


def _gain(validation: Validation, chosen: str, other: str) -> Interval | None:
    from mixopt.proposals import Interval

    known = {chosen, other} <= set(validation.mixtures)
    found = validation.compare(other, of=chosen) if known else None
    return None if found is None else Interval(-found.mean, -found.high, -found.low)


def _spread(gain: Interval | None, name: str, inner: str, end: str = "") -> dict[str, float]:
    """Return a gain and its bounds: `name`, `name_low` and `name_high`."""
    if gain is None:
        return {}
    values = (gain.value, gain.low, gain.high)
    names = [f"{one}{inner}" for one in _bounds(f"{name}{end}")]
    return {one: value for one, value in zip(names, values, strict=True) if math.isfinite(value)}


def _bounds(name: str) -> Sequence[str]:
    return name, f"{name}_low", f"{name}_high"


def _weights(mixture: Mapping[str, float]) -> dict[str, float]:
    return _named("recommended", mixture)


def _named(group: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{group}/{name}": value for name, value in values.items()}
