"""Pilots: a few runs at the target size, which carry a fit from small proxies to that size.

Losses are carried by lines, and an objective, whichever is asked for, by these and a residual of
its own (mixopt.fitting.pilot_correction). So that a search minimises the carried objective without
knowing of pilots, its pieces are columns behind the losses, and guardrails stay on the losses
(`aimed`). Intervals are of a new run at the pilots' size: the quantile of Student's t for so many
runs, times the deviation.

Shapes: K pilots, L trials, N mixtures, D domains, M losses, P pieces of the objective.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import TrialsError, did_you_mean
from mixopt.fitting.intervals import LEVEL, Calibration
from mixopt.fitting.pilot_correction import ObjectiveResidual, PilotLines
from mixopt.fitting.regressor import (
    Learner,
    Predictor,
    fit_regressor,
    predict_with_std,
    select_targets,
    supports,
)
from mixopt.objective import Objective
from mixopt.system import Array
from mixopt.trials import Trials, schema

MIN_RELATIVE = 0.25  # of what is typical: a regressor that claims to know is not believed further


@dataclass(frozen=True, eq=False)
class CarriedRegressor:
    """A fitted regressor that predicts at the pilots' size; with a residual, an objective too.

    Attributes:
        name: The regressor's.
        regressor: Predicts at its own size.
        lines: What carries its losses over.
        typical_M: Deviations that are typical of it; 0 where it has none.
        make: Builds it again, unfitted.
        losses_LM: Losses of the trials.
        residual: What carries the objective over whose pieces are columns behind the losses.
    """

    name: str
    regressor: Predictor
    lines: PilotLines
    typical_M: Array
    make: Callable[[], Learner]
    losses_LM: Array
    residual: ObjectiveResidual | None = None

    def predict(self, weights_ND: ArrayLike, return_std: bool = False) -> Any:
        """Predict losses, then pieces of the objective, (N, M + P); deviations too if asked."""
        weights = np.asarray(weights_ND, dtype=np.float64)
        own_NM, stds_NM = self._own(weights, with_std=return_std)
        columns, residual = self.lines.apply(own_NM), self.residual
        if residual is not None:
            pieces_NP = residual.pieces(own_NM, weights)
            columns = np.hstack([columns, pieces_NP])
        if not return_std:
            return columns
        stds = self.lines.std(own_NM, self._relative(stds_NM))
        if residual is not None:
            together_N1 = self._together(residual, weights, stds_NM)[:, None]
            stds = np.hstack([stds, np.repeat(together_N1, pieces_NP.shape[1], axis=1)])
        return columns, stds

    @property
    def gradient(self) -> Callable[[ArrayLike], Array]:
        """The slope of each column by each weight; there is one where the regressor has one."""
        own = self.regressor
        if not supports(own, "gradient"):
            raise AttributeError(f"regressor {self.name!r} has no gradient")

        def gradient(weights_D: ArrayLike) -> Array:
            weights = np.asarray(weights_D, dtype=np.float64)
            lines_MD: Array = self.lines.slopes_M[:, None] * np.asarray(own.gradient(weights))
            if self.residual is None:
                return lines_MD
            pieces_PD = self.residual.objective.pieces() @ lines_MD
            return np.vstack([lines_MD, pieces_PD + self.residual.gradient(weights)])

        return gradient

    @property
    def plain_law(self) -> Callable[[], dict[str, Any]]:
        """The law as plain numbers; there is one where the regressor has one."""
        own = self.regressor
        if not supports(own, "plain_law"):
            raise AttributeError(f"regressor {self.name!r} has no plain law")

        def plain_law() -> dict[str, Any]:
            lines = {**self.lines.plain_law(), "typical_M": self.typical_M}
            corrected = {"kind": "corrected", "model": own.plain_law(), **lines}
            if self.residual is None:
                return corrected
            residual = {**self.residual.plain_law(), "typical": self._typical(self.residual)}
            return {"kind": "aimed", "corrected": corrected, **residual}

        return plain_law

    def select(self, targets: Sequence[int]) -> CarriedRegressor:
        """Return one that predicts only these targets, by position."""
        return replace(
            self,
            regressor=select_targets(self.regressor, targets),
            lines=self.lines.select(targets),
            typical_M=self.typical_M[list(targets)],
            losses_LM=self.losses_LM[:, list(targets)],
        )

    def tuned(self) -> CarriedRegressor:
        """Return one to fit again, on resampled trials and with the same pilots."""
        return self

    def fit(self, rows: ArrayLike, losses_NM: ArrayLike) -> CarriedRegressor:
        """Return one of other trials, with lines through the pilots again."""
        own = self.regressor.tuned() if supports(self.regressor, "tuned") else self.make()
        again = replace(self, regressor=fit_regressor(self.name, own, rows, losses_NM))
        predicted_KM, _ = again._own(self.lines.weights_KD, with_std=False)
        return replace(again, lines=replace(self.lines, predicted_KM=predicted_KM))

    def aimed(self, objective: Objective) -> tuple[CarriedRegressor, Objective]:
        """Return what predicts the pieces of an objective too, and the objective over these."""
        residual = ObjectiveResidual.learned(self.lines, objective, self.losses_LM)
        names = [f"piece {p} of the objective" for p in range(len(objective.pieces()))]
        over = replace(
            objective,
            evaluation=(*objective.evaluation, *names),
            kind="worst" if len(names) > 1 else "target",
            weights=dict.fromkeys(names, 1.0),
            scale="none",
            spreads=None,
        )
        return replace(self, residual=residual), over

    def _own(self, weights_ND: Array, *, with_std: bool) -> tuple[Array, Array]:
        """Return what the regressor predicts at its own size, and its deviations if asked."""
        if with_std:
            return predict_with_std(self.regressor, weights_ND)
        means = np.asarray(self.regressor.predict(weights_ND), dtype=np.float64)
        return means.reshape(len(weights_ND), -1), np.empty(0)

    def _relative(self, stds_NM: Array) -> Array:
        """Return the regressor's deviations over what is typical of it; 1 where it has none."""
        known_M = self.typical_M > 0
        relative_NM = np.where(known_M, stds_NM / np.where(known_M, self.typical_M, 1.0), 1.0)
        return np.maximum(relative_NM, MIN_RELATIVE)

    def _together(self, residual: ObjectiveResidual, weights_ND: Array, stds_NM: Array) -> Array:
        """Return deviations of the objective: wider where the fit is less sure than is typical."""
        typical = self._typical(residual)
        own_N = residual.objective.spread(self.lines.slopes_M * stds_NM)
        beyond_N = np.maximum(own_N**2 - typical**2, 0.0) if typical > 0 else np.zeros(len(own_N))
        std_N: Array = np.sqrt(residual.std(weights_ND) ** 2 + beyond_N)
        return std_N

    def _typical(self, residual: ObjectiveResidual) -> float:
        """Return the deviation of the objective that is typical of the regressor."""
        typical_M = self.lines.slopes_M * self.typical_M
        return float(residual.objective.spread(typical_M[None])[0])


def aimed(regressor: Predictor, objective: Objective) -> tuple[Predictor, Objective]:
    """Return what predicts all that an objective is made from, and the objective over that."""
    if isinstance(regressor, CarriedRegressor):
        return regressor.aimed(objective)
    return regressor, objective


def carried_values(
    regressor: Predictor, objective: Objective, losses_NM: Array, weights_ND: Array
) -> Array:
    """Return the objective of losses of the trials' size, as pilots carry it over, shape (N,)."""
    if not isinstance(regressor, CarriedRegressor):
        return objective.value(losses_NM)
    residual = ObjectiveResidual.learned(regressor.lines, objective, regressor.losses_LM)
    return residual.value(losses_NM, weights_ND)


@dataclass(frozen=True, eq=False)
class Pilots:
    """Runs at the target size, and how a fit is carried there."""

    trials: Trials
    lines: PilotLines
    typical_M: Array

    @property
    def slopes(self) -> dict[str, float]:
        """Slope of each loss's line: how much of a difference between proxies is left."""
        return dict(zip(self.trials.targets, self.lines.slopes_M.tolist(), strict=True))

    def describe(self) -> str:
        """Say in a line how many runs there are and what they changed."""
        slopes, count = list(self.slopes.values()), len(self.trials)
        return (
            f"is corrected to the size of {count} pilot{'s' * (count != 1)} by lines, "
            f"slopes {min(slopes):.2f} to {max(slopes):.2f}"
        )

    @cached_property
    def calibration(self) -> Calibration:
        """How a deviation becomes half of a 90% interval."""
        from scipy.stats import t

        return Calibration(float(t.ppf(0.5 + LEVEL / 2, self.lines.freedom)), 0.0, True)


def aligned(pilots: Trials, trials: Trials, objective: Objective) -> Trials:
    """Return the finished pilots on the domains and losses of the trials, in their order."""
    if not isinstance(pilots, Trials):
        raise TrialsError(
            f"pilots: expected Trials, such as Trials.from_csv(mixtures, losses); got {pilots!r}"
        )
    _check_names(pilots, trials)
    if not pilots.has(objective.unit):
        raise TrialsError(f"pilots: their losses are not in {objective.unit}, as the fit's are")
    try:
        done = pilots.finished
    except TrialsError as error:
        raise TrialsError(f"pilots: {error}; a correction needs at least one") from error
    table = done.table.select(list(schema(trials.domains, trials.targets)))
    found = Trials(table, trials.domains, trials.targets, pilots.notes)
    _check_not_trials(found, trials, objective)
    return found


def _check_names(pilots: Trials, trials: Trials) -> None:
    for name in pilots.domains:
        if name not in trials.domains:
            near = did_you_mean(name, trials.domains)
            raise TrialsError(f"pilots: the trials have no domain {name!r}{near}")
    for what, own, theirs in (
        ("weight of domain", pilots.domains, trials.domains),
        ("loss on", pilots.targets, trials.targets),
    ):
        for name in theirs:
            if name not in own:
                raise TrialsError(
                    f"pilots: no {what} {name!r}{did_you_mean(name, own)}; pilots need what the"
                    " trials have"
                )


def _check_not_trials(pilots: Trials, trials: Trials, objective: Objective) -> None:
    """Check that pilots are of another size, as far as the tables tell."""
    columns = ("proxy", "parameters", "tokens")
    sizes = set(trials.table.select(columns).iter_rows())
    for name, *own in pilots.table.select("trial", *columns).iter_rows():
        if tuple(own) in sizes and None not in own[1:]:
            raise TrialsError(
                f"pilots: {name!r} is of the trials' own size ({own[1]} parameters, {own[2]}"
                " tokens); pilots are runs at the target size: fit it with the trials instead"
            )
    known = {numbers: name for name, numbers in _numbers(trials, objective)}
    for name, numbers in _numbers(pilots, objective):
        if numbers in known:
            raise TrialsError(
                f"pilots: {name!r} is trial {known[numbers]!r} (the same mixture and losses);"
                " pilots are runs at the target size"
            )


def _numbers(trials: Trials, objective: Objective) -> list[tuple[str, tuple[float, ...]]]:
    """Return name, and weights and losses together, of each trial."""
    both = np.hstack([trials.weights(), trials.losses(objective.unit)])
    names = trials.table["trial"].to_list()
    return [(name, tuple(row)) for name, row in zip(names, both.tolist(), strict=True)]
