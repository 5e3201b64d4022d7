"""Losses that a fit can predict: readiness from trials and from held-out folds.

With replicates a loss is `ready` where the signal is at least the noise (95% lower bound) and the
chosen regressor ranks held-out trials no worse than controls that know no law; `weak` where only
the estimate of the ratio is 1 or more; `noise` otherwise.

Without replicates the rank correlation on held-out folds bounds the ratio from below. What is
observed is signal and noise, so that even a predictor of the true losses correlates with it by
ratio / sqrt(1 + ratio^2) at most, which is sqrt(1/2) where noise equals signal. A loss is `ready`
where the correlation's 95% lower bound is at least that, `weak` where the bound is above 0, and
`noise` otherwise. The bound is Fisher's, with the variance of a rank correlation of Bonett and
Wright (2000), (1 + r^2 / 2) / (N - 3) for N mixtures.

Beside that stand the most that noise lets any predictor have, and the training domain whose own
loss goes most with it: a task that is one domain's loss again adds little to a fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from mixopt.config import TASK
from mixopt.errors import ConfigError
from mixopt.fitting.cross_validation import spearman_within
from mixopt.fitting.held_out import CEILING, OBJECTIVE
from mixopt.objective import grouped_names
from mixopt.system import Array
from mixopt.trials import Readiness, Replicates, State, readiness_of

if TYPE_CHECKING:
    from mixopt.fitting.fitted import Fit

EQUAL = math.sqrt(0.5)  # the most that one can correlate with what is half noise
LEVEL = 1.6449  # standard deviations below which 5% of a normal distribution lies


@dataclass(frozen=True)
class LossReadiness:
    """What is known of a loss.

    Attributes:
        of_trials: Its spread, noise, and their ratio.
        weight: Its weight in the objective; 0 where the objective does not measure it.
        mixtures: How many different mixtures were ranked.
        spearman: Rank correlation of the chosen regressor on held-out folds.
        ceiling: The rank correlation of a predictor that knew the truth.
        control: The control that ranks best, and its rank correlation.
        domains: Rank correlation over the trials with the own loss of each training domain.
    """

    of_trials: Readiness
    weight: float
    mixtures: int
    spearman: float | None
    ceiling: float | None
    control: tuple[str, float] | None
    domains: dict[str, float]

    @property
    def name(self) -> str:
        """The loss."""
        return self.of_trials.name

    @property
    def spearman_low(self) -> float | None:
        """The 95% lower bound of the rank correlation on held-out folds."""
        if self.spearman is None or self.mixtures < 4:
            return None
        return math.tanh(_fisher(self.spearman) - LEVEL * self._error(self.spearman))

    @property
    def state(self) -> State:
        """`ready`, `weak` or `noise`; from the rank correlation alone without replicates."""
        found = self.of_trials.state
        if found == "unknown":
            low = self.spearman_low
            if low is None or low <= 0:
                return "noise"
            found = "ready" if low >= EQUAL else "weak"
        return "weak" if found == "ready" and self._is_beaten else found

    @property
    def nearest(self) -> tuple[str, float] | None:
        """The training domain whose own loss goes most with this one, and how much."""
        if not self.domains:
            return None
        return max(self.domains.items(), key=lambda one: abs(one[1]))

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        name, best = self.control or (None, None)
        return {
            **self.of_trials.to_json(),
            "state": self.state,
            "weight": self.weight,
            "spearman": self.spearman,
            "spearman_low": self.spearman_low,
            "ceiling": self.ceiling,
            "control": name,
            "control_spearman": best,
            "domains": dict(self.domains),
        }

    @property
    def _is_beaten(self) -> bool:
        """Whether the regressor ranks nothing, or a control ranks better beyond doubt."""
        if self.spearman is None or self.control is None:
            return self.spearman is None
        apart = _fisher(self.control[1]) - _fisher(self.spearman)
        return self.mixtures > 3 and apart > LEVEL * self._error(self.spearman)

    def _error(self, rank: float) -> float:
        return math.sqrt((1 + rank**2 / 2) / (self.mixtures - 3))


def _fisher(rank: float) -> float:
    return math.atanh(min(max(rank, -1 + 1e-12), 1 - 1e-12))


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
        show = f"mixopt status {directory} --readiness"
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
                f"{names}; objective.noise: leave_out leaves them out"
            )
        else:
            yield f"the objective has losses that held-out folds cannot rank: {names}"

    def refuse_noise(self) -> None:
        """Refuse an objective that measures tasks that are noise."""
        for one in self.losses:
            if not one.weight or one.state != "noise" or not one.name.startswith(TASK):
                continue
            ratio = one.of_trials.ratio
            if ratio is None:
                found = f"no regressor ranks held-out trials on it (Spearman {_ranked(one)})"
                hint = "set design.replicates and objective.noise: leave_out"
            else:
                found = f"its signal is {ratio:.2f} times the noise between seeds"
                hint = "set objective.noise: leave_out"
            raise ConfigError(
                f"objective: {one.name!r} is noise: {found}; {hint}, or objective.noise: allow"
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
