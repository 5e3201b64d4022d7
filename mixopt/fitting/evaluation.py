"""Test a fit on unseen runs.

Rank correlations are compared with trivial controls and, with replicates, with the noise ceiling.
RMSE and coverage check the predicted values. Runs of a larger model have other losses for the same
mixtures; then only ranks are compared.

A plain mean over targets ranks such runs worse than the single targets, because the spread of each
loss depends on the size; `mean_spearman` is over the targets.

Shapes: N runs, K trials, M targets, Q columns: the mean of the targets, and the targets.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mixopt.errors import TrialsError
from mixopt.fitting.fitted import Fit
from mixopt.fitting.held_out import controls, rmse, with_objective
from mixopt.fitting.intervals import conformal_quantile
from mixopt.fitting.noise_ceiling import noise_ceiling
from mixopt.fitting.rank_correlation import MIN_SHARE_BETTER, share_better, spearman
from mixopt.objective import Objective
from mixopt.system import Array
from mixopt.trials import Trials, pooled_std

MIN_RUNS = 4
MAX_REMAINING = 0.5  # a line that leaves less than this share of the error indicates another scale
CONTROLS = ("own_share", "from_uniform", "nearest_trial")


def evaluate(fit: Fit, unseen: Trials) -> dict[str, Any]:
    """Compare the predictions of a fit with the results of runs.

    Args:
        fit: The fit.
        unseen: Runs with losses in the fit's unit, on the fit's domains and some of its targets.

    Returns:
        `mean_spearman` and `mean_controls` over targets; `scale`, `same` or `other`; for each
        target and `mean`: `spearman`, its controls and `ceiling`, `rmse`,
        `coverage90` (share of runs within the 90% interval), and `rank` (1 is the best) and
        `regret` of the run that the fit would pick; for `mean` also `better_than_own_share`, the
        share of resamples in which the fit ranks better; and `notes`.

    Raises:
        TrialsError: Other domains than the fit's, none of its targets, another unit, or too few
            runs.
    """
    if not isinstance(unseen, Trials):
        raise TrialsError(
            f"evaluate: expected Trials, such as Trials.from_csv(mixtures, losses); got {unseen!r}"
        )
    unit = fit.objective.unit
    if not unseen.has(unit):
        raise TrialsError(
            f"the fit is in {unit}, but these losses are not; give their unit: mixopt import --unit"
            " (in Python: Trials.from_csv(..., unit=)), or fit again in their unit"
        )
    test = unseen.finished
    targets = _shared_targets(fit, test)
    ours = [fit.targets.index(name) for name in targets]
    weights_ND = test.weights()[:, [test.domains.index(name) for name in fit.domains]]
    mean = _mean_objective(fit.objective, targets)
    observed_NQ = with_objective(mean, mean.losses(test.with_targets(targets)))
    trials_KQ = with_objective(mean, fit.data.losses_NM[:, ours])
    held_out_KQ = with_objective(mean, fit.errors.predicted_NM[:, ours])
    errors_K = trials_KQ[:, 0] - held_out_KQ[:, 0]
    predicted_NQ, halves_NQ = _predicted(fit, weights_ND, mean, ours, errors_K)
    is_other = _is_other_scale(predicted_NQ[:, 1:], observed_NQ[:, 1:])
    ranks = _control_ranks(fit, weights_ND, mean, trials_KQ, observed_NQ)
    rows = []
    for q in range(1 + len(targets)):
        noise = pooled_std(test.mixtures, observed_NQ[:, q])
        if noise is None and not is_other and not fit.is_carried:
            noise = pooled_std(fit.data.mixtures, trials_KQ[:, q])
        row = _ranking(predicted_NQ[:, q], observed_NQ[:, q])
        for name, ranks_NQ in ranks.items():
            row[name] = spearman(ranks_NQ[:, q], observed_NQ[:, q])
        row["ceiling"] = None
        if noise is not None:
            row["ceiling"] = noise_ceiling(observed_NQ[:, q], noise, fit.data.seed)
        row["rmse"] = None
        row["coverage90"] = None
        if not is_other:
            covered_N = np.abs(observed_NQ[:, q] - predicted_NQ[:, q]) <= halves_NQ[:, q]
            row["rmse"] = rmse(predicted_NQ[:, q], observed_NQ[:, q])
            row["coverage90"] = float(covered_N.mean())
        rows.append(row)
    better = None
    if len(observed_NQ) >= MIN_RUNS:
        means_N1 = predicted_NQ[:, :1]
        share_N1 = ranks["own_share"][:, :1]
        better = float(share_better(means_N1, share_N1, observed_NQ[:, :1], fit.data.seed)[0])
    rows[0]["better_than_own_share"] = better
    return {
        "regressor": fit.name,
        "runs": len(test),
        "unit": unit,
        "scale": "other" if is_other else "same",
        "mean_spearman": _mean_of(rows[1:], "spearman"),
        "mean_controls": {name: _mean_of(rows[1:], name) for name in CONTROLS},
        "targets": dict(zip(targets, rows[1:], strict=True)),
        "mean": rows[0],
        "notes": list(_notes(fit, test, is_other, better)),
    }


def _mean_objective(objective: Objective, targets: tuple[str, ...]) -> Objective:
    """Return the plain mean of some targets, in the unit and directions of an objective."""
    return Objective(
        evaluation=targets,
        kind="mean",
        weights=dict.fromkeys(targets, 1.0 / len(targets)),
        unit=objective.unit,
        higher=tuple(name for name in objective.higher if name in targets),
    )


def _ranking(predicted_N: Array, observed_N: Array) -> dict[str, Any]:
    """Return the rank correlation, and rank and regret of the run with the best prediction."""
    pick = int(np.argmin(predicted_N))
    return {
        "spearman": spearman(predicted_N, observed_N),
        "rank": 1 + int((observed_N < observed_N[pick]).sum()),
        "regret": float(observed_N[pick] - observed_N.min()),
    }


def _predicted(
    fit: Fit, weights_ND: Array, mean: Objective, ours: list[int], errors_K: Array
) -> tuple[Array, Array]:
    """Return predictions and half widths of their intervals, shape (N, Q) each."""
    prediction = fit.predict_turned(weights_ND)
    predicted_NQ = with_objective(mean, prediction.losses_NM[:, ours])
    half_N = conformal_quantile(np.abs(errors_K)) * fit.reach.stretch(weights_ND)
    if fit.is_carried:
        overall = fit.predict_turned(weights_ND, replace(mean, evaluation=fit.targets))
        predicted_NQ[:, 0] = overall.objective_N
        half_N = overall.objective_high_N - overall.objective_N
    halves_NM = (prediction.high_NM - prediction.losses_NM)[:, ours]
    return predicted_NQ, np.column_stack([half_N, halves_NM])


def _control_ranks(
    fit: Fit, weights_ND: Array, mean: Objective, trials_KQ: Array, observed_NQ: Array
) -> dict[str, Array]:
    """Return the values by which controls rank the runs, from the trials alone."""
    fold_N = np.repeat([0, 1], [len(trials_KQ), len(observed_NQ)])
    all_ND = np.vstack([fit.data.weights_ND, weights_ND])
    all_NM = np.vstack([trials_KQ, observed_NQ])[:, 1:]
    return {
        control.name: control.ranks_NQ[fold_N == 1]
        for control in controls(all_ND, all_NM, fold_N, fit.domains, mean)
        if control.ranks_NQ is not None
    }


def _notes(fit: Fit, test: Trials, is_other: bool, better: float | None) -> Iterator[str]:
    """Return warnings and conclusions."""
    yield from test.notes
    absent = [name for name in fit.targets if name not in test.targets]
    if absent:
        yield f"these runs have no losses on {', '.join(absent)}"
    fitted = set(fit.data.mixtures)
    repeated = sum(mixture in fitted for mixture in test.mixtures)
    if repeated:
        yield f"{repeated} of {len(test)} runs have a mixture that the fit has seen"
    if is_other:
        yield (
            "these runs are on another scale than the trials (a linear correction removes "
            "most of the error): ranks are comparable, RMSE and coverage are not"
        )
    if better is not None and better < MIN_SHARE_BETTER:
        yield (
            "the fit adds nothing: a domain's own share ranks the mean of these runs as well"
            f" (the fit is better in {better:.0%} of resamples)"
        )


def _shared_targets(fit: Fit, unseen: Trials) -> tuple[str, ...]:
    """Return the common targets, in the fit's order."""
    not_in_both = sorted(set(unseen.domains) ^ set(fit.domains))
    if not_in_both:
        raise TrialsError(f"domain {not_in_both[0]!r} is not in both the table and the fit")
    targets = tuple(name for name in fit.targets if name in unseen.targets)
    if not targets:
        raise TrialsError(f"the table has none of the fit's targets: {', '.join(fit.targets)}")
    return targets


def _is_other_scale(predicted_NM: Array, observed_NM: Array) -> bool:
    """Return whether lines through the other runs remove most of the error of most targets."""
    if len(predicted_NM) < MIN_RUNS:
        return False
    deviations_NM = predicted_NM - predicted_NM.mean(axis=0)
    squares_M = (deviations_NM**2).sum(axis=0)
    squares_M = np.where(squares_M > 1e-12, squares_M, np.inf)
    slopes_M = (deviations_NM * observed_NM).sum(axis=0) / squares_M
    residual_NM = observed_NM - observed_NM.mean(axis=0) - slopes_M * deviations_NM
    residual_NM /= np.maximum(1.0 - 1.0 / len(predicted_NM) - deviations_NM**2 / squares_M, 1e-9)
    plain_rmse_M = np.sqrt(((observed_NM - predicted_NM) ** 2).mean(axis=0))
    line_rmse_M = np.sqrt((residual_NM**2).mean(axis=0))
    return bool((line_rmse_M < MAX_REMAINING * plain_rmse_M).mean() > 0.5)


def _mean_of(rows: Sequence[dict[str, Any]], column: str) -> float | None:
    values = [row[column] for row in rows if row[column] is not None]
    return float(np.mean(values)) if values else None
