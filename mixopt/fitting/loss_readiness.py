"""Which losses a fit can be asked about: what trials tell (mixopt.trials.readiness), and folds.

Beside the signal over the noise of each loss stand the rank correlation that the chosen regressor
has on held-out folds and the most that noise lets any predictor have. Without replicates there is
no noise to compare with: then spread and rank correlation are all that is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from mixopt.fitting.fit_report import CEILING
from mixopt.fitting.held_out_predictions import OBJECTIVE
from mixopt.objective import grouped_names
from mixopt.trials import Readiness, Replicates, readiness_of

if TYPE_CHECKING:
    from mixopt.fitting.fitted import Fit

STATES = ("ready", "weak", "noise")


@dataclass(frozen=True)
class LossReadiness:
    """What is known of a loss.

    Attributes:
        of_trials: Its spread, noise, and their ratio.
        weight: Its weight in the objective; 0 where the objective does not measure it.
        spearman: Rank correlation of the chosen regressor on held-out folds.
        ceiling: The rank correlation of a predictor that knew the truth.
    """

    of_trials: Readiness
    weight: float
    spearman: float | None
    ceiling: float | None

    @property
    def name(self) -> str:
        """The loss."""
        return self.of_trials.name

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        others = {"weight": self.weight, "spearman": self.spearman, "ceiling": self.ceiling}
        return {**self.of_trials.to_json(), **others}


@dataclass(frozen=True)
class FitReadiness:
    """What is known of each loss of a fit, and of its objective.

    Attributes:
        replicates: What the noise is from.
        objective: The objective itself, as a loss.
        losses: The losses, in the order of the fit's.
        left_out: Losses that the objective left out as noise.
    """

    replicates: Replicates
    objective: LossReadiness
    losses: tuple[LossReadiness, ...]
    left_out: tuple[str, ...]

    def named(self, state: str) -> list[str]:
        """Return the losses that are in a state: `ready`, `weak`, `noise` or `unknown`."""
        return [one.name for one in self.losses if one.of_trials.state == state]

    def lines(self, directory: str) -> Iterator[str]:
        """Say in a line or two what a reader should know, and the command that shows the rest."""
        show = f"mixopt readiness {directory}"
        if not self.replicates.trials:
            yield f"readiness: {self.replicates.describe()}: {show} has spreads"
            return
        counts = ", ".join(f"{len(self.named(s))} {s}" for s in STATES if self.named(s))
        yield f"readiness of {len(self.losses)} losses: {counts}: {show}"
        if self.left_out:
            yield f"left out of the objective as noise: {grouped_names(self.left_out)}"
        noisy = [one.name for one in self.losses if one.weight and one.of_trials.state == "noise"]
        if noisy:
            yield (
                f"the objective has losses that differ less over mixtures than over seeds:"
                f" {grouped_names(noisy)}; objective.leave_out: noise leaves them out"
            )

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "replicates": {
                "trials": self.replicates.trials,
                "mixtures": self.replicates.mixtures,
            },
            "objective": self.objective.to_json(),
            "left_out": list(self.left_out),
            "losses": [one.to_json() for one in self.losses],
        }


def readiness(fit: Fit) -> FitReadiness:
    """Return how ready each loss of a fit is, and its objective."""
    objective, data = fit.objective, fit.data
    ranks = _spearman(fit.report, fit.name)
    ceilings = _spearman(fit.report, CEILING)
    found = readiness_of(fit.trials, data.losses_NM, fit.targets)
    (whole,) = readiness_of(fit.trials, data.observed_N[:, None], ["the objective"])
    return FitReadiness(
        Replicates.of(fit.trials),
        LossReadiness(whole, 1.0, ranks.get(OBJECTIVE), ceilings.get(OBJECTIVE)),
        tuple(
            LossReadiness(
                one,
                objective.weights.get(one.name, 0.0),
                ranks.get(one.name),
                ceilings.get(one.name),
            )
            for one in found
        ),
        objective.left_out,
    )


def _spearman(report: pl.DataFrame, predictor: str) -> dict[str, float | None]:
    rows = report.filter(pl.col("predictor") == predictor)
    return dict(rows.select("target", "spearman").iter_rows())
