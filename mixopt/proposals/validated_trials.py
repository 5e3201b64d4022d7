"""Add the runs of a validated proposal to the trials, so that the fit learns where it was wrong.

A validation run is longer than a trial, so its losses lie lower. How much lower is taken from the
baselines: for each evaluation domain, the mean over them of validated loss - predicted loss. What
is predicted and not the single trial is compared, since the best trial was chosen for its luck. The
proposal's runs are carried to the trials' length by that difference; each seed is a row.

Shapes: N runs, M evaluation domains, B baselines.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from mixopt.proposals.mixture_names import is_proposal, mixture_of
from mixopt.trials import PREFIX, Trials, loss_column

if TYPE_CHECKING:
    from mixopt.fitting import Fit
    from mixopt.proposals.validation import Validation
    from mixopt.system import Array


def with_validated(trials: Trials, validation: Validation, fit: Fit) -> Trials:
    """Return the finished trials, and the runs of the proposals that were validated.

    Args:
        trials: The trials that the fit was made from.
        validation: Proposals and baselines.
        fit: What predicts the baselines at the trials' length.

    Returns:
        A table in the objective's unit alone; without the proposals' runs where no baseline has
        finished, since nothing says then how the lengths differ.
    """
    done, unit = trials.finished, validation.objective.unit
    columns = [loss_column(name, unit) for name in done.targets]
    others = [
        loss_column(name, other) for other in PREFIX if other != unit for name in done.targets
    ]
    nothing = {name: pl.lit(None, pl.Float64) for name in others if name not in columns}
    table = done.table.with_columns(**nothing)
    shift_M = _shift(validation, fit)
    if shift_M is None:
        return Trials(table, done.domains, done.targets, done.notes)
    runs = validation.trials.finished.table
    kept = runs.filter(pl.col("trial").map_elements(_is_own, return_dtype=pl.Boolean))
    shifted = {
        column: pl.col(column) - shift
        for column, shift in zip(columns, shift_M.tolist(), strict=True)
    }
    length = pl.lit(table["tokens"].max(), table["tokens"].dtype)
    kept = kept.with_columns(**nothing, **shifted, tokens=length).select(table.columns)
    both = pl.concat([table, kept.cast(table.schema)])
    return Trials(both, done.domains, done.targets, done.notes)


def _is_own(trial: str) -> bool:
    return is_proposal(mixture_of(trial))


def _shift(validation: Validation, fit: Fit) -> Array | None:
    """Return validated - predicted loss, the mean over baselines, shape (M,); None without any."""
    names = [name for name in validation.baselines if np.isfinite(validation.mean(name))]
    if not names:
        return None
    mixtures = [validation.mixture(name) for name in names]
    # At the trials' own size: pilots carry a fit to another.
    predicted_BM = replace(fit, pilots=None).predict(mixtures, validation.objective).losses_NM
    targets = validation.trials.targets
    validated_BM = np.array([[validation.mean(n, target) for target in targets] for n in names])
    shift_M: Array = (validated_BM - predicted_BM).mean(axis=0)
    return shift_M
