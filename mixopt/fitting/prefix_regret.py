"""How good the pick of the first n trials would have been: whether more trials would still help.

The chosen regressor is fitted again on the first n trials alone, in the order of the table, and
picks the mixture with the lowest predicted objective among all mixtures of the table. A refit
keeps what the fit of all trials chose on held-out folds where the regressor can (`tuned`), as
refits on resampled trials do: it takes seconds where choosing again takes minutes, and the first n
trials know a little of the others through that choice. Any other regressor is built as it was for
the fit. The regret of that pick is the objective that the fit of all trials predicts for it - the
lowest that the same fit predicts for any mixture of the table. So it is 0 where the pick is that
of all trials, and it is 0 at the end by construction. A curve that is at 0 long before the end
means that the last trials did not change the pick; one that falls until the end, that further
trials may change it again. It does not tell how far the fit of all trials is from the truth:
validation does.

Beside it is the regret of the trial with the lowest observed objective among the first n: what one
would have picked without a fit. It need not be 0 at the end, since the luckiest trial is not the
best mixture.

Pilots are left out: what they add is the same for every n.

Shapes: N trials, M losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from mixopt.errors import PluginError, TrialsError
from mixopt.fitting.capabilities import supports_refit
from mixopt.fitting.fitted import Fit
from mixopt.fitting.regressor import fit_regressor
from mixopt.system import Array, Update, no_progress

FEWEST = 6  # trials to fit on
REGRET_COUNTS = 8  # numbers of trials that are tried when none are asked for


def regret_by_trials(
    fit: Fit, counts: Sequence[int] | None = None, *, update: Update = no_progress
) -> pl.DataFrame:
    """Return the regret of what the first n trials would have picked.

    Args:
        fit: Of all trials.
        counts: How many trials, each from 6 to all; 8 numbers, evenly spread, when None.
        update: Receives how many refits are done.

    Returns:
        A row for each number: `trials`, `law` (regret of the refit's pick) and `best_trial`
        (regret of the trial with the lowest observed objective), in the objective's unit. `law` is
        null where the regressor cannot be fitted to so few.

    Raises:
        TrialsError: A number that is below 6 or above the number of trials.
    """
    every = len(fit.trials)
    asked = _counts(every) if counts is None else tuple(sorted(set(counts)))
    for count in asked:
        if not FEWEST <= count <= every:
            raise TrialsError(
                f"regret of {count} trials: need a number from {FEWEST} to {every}, all trials"
            )
    plain = replace(fit, pilots=None)
    own = plain.data
    final_N = plain.predict(own.weights_ND).objective_N
    observed_N = plain.objective.value(own.losses_NM)
    rows = []
    for done, count in enumerate(asked, start=1):
        guess_N = final_N if count == every else _refit(plain, count)
        law = None if guess_N is None else float(final_N[np.argmin(guess_N)] - final_N.min())
        best = float(final_N[np.argmin(observed_N[:count])] - final_N.min())
        rows.append({"trials": count, "law": law, "best_trial": best})
        update(done, "refits")
    return pl.DataFrame(
        rows, schema={"trials": pl.Int64, "law": pl.Float64, "best_trial": pl.Float64}
    )


def _counts(every: int) -> Sequence[int]:
    if every < FEWEST:
        raise TrialsError(f"regret by number of trials: needs {FEWEST} trials or more, not {every}")
    found = (
        np.linspace(max(FEWEST, every // REGRET_COUNTS), every, REGRET_COUNTS).round().astype(int)
    )
    counts: list[int] = np.unique(found).tolist()
    return counts


def _refit(fit: Fit, count: int) -> Array | None:
    """Return the objective that a fit of the first trials predicts for all, shape (N,)."""
    own = fit.data
    try:
        own_law = fit.regressor
        again = own_law.tuned() if supports_refit(own_law) else fit.unfitted()
        learned = fit_regressor(fit.name, again, fit.rows()[:count], own.losses_NM[:count])
        predicted_NM = np.asarray(learned.predict(own.weights_ND), dtype=float)
        predicted_NM = predicted_NM.reshape(own.losses_NM.shape)
    except PluginError:
        return None
    return fit.objective.value(predicted_NM)
