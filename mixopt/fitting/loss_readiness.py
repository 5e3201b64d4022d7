"""Losses that a fit can predict: readiness from trials and from held-out folds.

Beside the signal over the noise of each loss stand the rank correlation that the chosen regressor
has on held-out folds, that of the best control, the most that noise lets any predictor have, and
the training domain whose own loss goes most with it: a task that is one domain's loss again adds
little to a fit. How a state follows is in mixopt.fitting.loss_state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from mixopt.config import TASK
from mixopt.errors import ConfigError
from mixopt.fitting.cross_validation import spearman_within
from mixopt.fitting.fit_report import CEILING
from mixopt.fitting.held_out_predictions import OBJECTIVE
from mixopt.fitting.loss_state import LossReadiness
from mixopt.objective import grouped_names
from mixopt.system import Array
from mixopt.trials import Readiness, Replicates, readiness_of

if TYPE_CHECKING:
    from mixopt.fitting.fitted import Fit

STATES = ("ready", "weak", "noise")


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

    def only(self, prefix: str) -> FitReadiness:
        """Return the same of the losses whose names begin so."""
        kept = tuple(one for one in self.losses if one.name.startswith(prefix))
        return replace(self, losses=kept)

    def named(self, state: str) -> list[str]:
        """Return the losses that are in a state: `ready`, `weak` or `noise`."""
        return [one.name for one in self.losses if one.state == state]

    def lines(self, directory: str) -> Iterator[str]:
        """Say in a line or two what a reader should know, and the command that shows the rest."""
        show = f"mixopt readiness {directory}"
        counts = ", ".join(f"{len(self.named(s))} {s}" for s in STATES if self.named(s))
        alone = "" if self.replicates.trials else " (without replicates, from held-out folds alone)"
        yield f"readiness of {len(self.losses)} losses: {counts}{alone}: {show}"
        if self.left_out:
            yield f"left out of the objective as noise: {grouped_names(self.left_out)}"
        noisy = [one.name for one in self.losses if one.weight and one.state == "noise"]
        if not noisy:
            return
        names = grouped_names(noisy)
        if self.replicates.trials:
            yield (
                "the objective has losses that vary less between mixtures than between seeds: "
                f"{names}; objective.leave_out: noise leaves them out"
            )
        else:
            yield f"the objective has losses that held-out folds cannot rank: {names}"

    def refuse_noise(self) -> None:
        """Refuse an objective that measures tasks that are noise.

        Raises:
            ConfigError: It does.
        """
        for one in self.losses:
            if not one.weight or one.state != "noise" or not one.name.startswith(TASK):
                continue
            ratio = one.of_trials.ratio
            if ratio is None:
                found = f"no regressor ranks held-out trials on it (Spearman {_ranked(one)})"
                mend = "set design.replicates and objective.leave_out: noise"
            else:
                found = f"its signal is {ratio:.2f} times the noise between seeds"
                mend = "set objective.leave_out: noise"
            raise ConfigError(
                f"objective: {one.name!r} is noise: {found}; {mend}, or objective.allow_noise: true"
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
    mixtures = len(set(data.mixtures))
    ranks, ceilings = _spearman(fit.report, fit.name), _spearman(fit.report, CEILING)
    best = _best_controls(fit.report)
    found = readiness_of(fit.trials, data.losses_NM, fit.targets)
    (whole,) = readiness_of(fit.trials, data.observed_N[:, None], ["the objective"])

    def of(one: Readiness, name: str, weight: float, values_N: Array) -> LossReadiness:
        rank, ceiling = ranks.get(name), ceilings.get(name)
        others = _of_domains(fit, name, values_N)
        return LossReadiness(one, weight, mixtures, rank, ceiling, best.get(name), others)

    columns = zip(found, data.losses_NM.T, strict=True)
    return FitReadiness(
        Replicates.of(fit.trials),
        of(whole, OBJECTIVE, 1.0, data.observed_N),
        tuple(of(o, o.name, objective.weights.get(o.name, 0.0), values) for o, values in columns),
        objective.left_out,
    )


def _spearman(report: pl.DataFrame, predictor: str) -> dict[str, float | None]:
    rows = report.filter(pl.col("predictor") == predictor)
    return dict(rows.select("target", "spearman").iter_rows())


def _best_controls(report: pl.DataFrame) -> dict[str, tuple[str, float]]:
    """Return the control that ranks each loss best, and its rank correlation."""
    ranked = report.filter(pl.col("kind") == "control", pl.col("spearman").is_not_null())
    rows = ranked.sort("spearman").select("target", "predictor", "spearman").iter_rows()
    return {target: (predictor, rank) for target, predictor, rank in rows}


def _of_domains(fit: Fit, name: str, values_N: Array) -> dict[str, float]:
    """Return the rank correlation of a loss with the own loss of each training domain."""
    found = {}
    for column, domain in enumerate(fit.targets):
        if domain in fit.domains and domain != name:
            group_N, losses_N = fit.data.sizes.group_N, fit.data.losses_NM[:, column]
            rank = spearman_within(values_N, losses_N, group_N)
            if rank is not None:
                found[domain] = rank
    return found


def _ranked(one: LossReadiness) -> str:
    return "none" if one.spearman is None else f"{one.spearman:.2f}"
