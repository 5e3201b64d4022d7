"""Signal and noise of each metric: readiness, verdicts, alternative objectives.

With replicates a loss is `ready` if the signal is at least the noise (95% lower bound) and the
chosen regressor ranks held-out trials no worse than the trivial controls; `weak` if only the
estimated ratio is at least 1; else `noise`.

Without replicates the held-out rank correlation bounds the ratio from below. Observations contain
noise, so that even a predictor of the true losses correlates with them by at most
ratio / sqrt(1 + ratio^2), which is sqrt(1/2) if noise equals signal. A loss is `ready` if the 95%
lower bound of the correlation is at least that, `weak` if the bound is above 0, else `noise`. The
bound uses Fisher's z with the variance of a rank correlation of Bonett and Wright (2000),
(1 + r^2 / 2) / (N - 3) for N mixtures. The verdict about arms uses the same limits: at sqrt(1/2)
two arms are in the right order three times in four ("ranked"); above 0 the best are told from the
worst ("only the ends").

The variance over trials has three parts: noise, from replicates or at most from the number of
questions; the part explained on held-out trials; and the rest (mixopt.fitting.factors).

Shapes: N trials, M metrics, Q columns: the objective and the metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from mixopt.config import TASK
from mixopt.errors import ConfigError
from mixopt.fitting.factors import Factor, Offer, factors, offers
from mixopt.fitting.held_out import CEILING, OBJECTIVE, controls, with_objective
from mixopt.fitting.power import ArmPower, power
from mixopt.fitting.rank_correlation import (
    MIN_SHARE_BETTER,
    NORMAL_QUANTILE,
    fisher,
    fisher_error,
    lower_bound,
    share_better,
    spearman_within,
)
from mixopt.objective import Objective, grouped_names
from mixopt.system import Array, IntArray
from mixopt.trials import Noise, Readiness, State, noise_of_trials, readiness_of

if TYPE_CHECKING:
    from mixopt.fitting.fitted import Fit

# Maximum rank correlation with observations that are half noise.
HALF_NOISE_CORRELATION = math.sqrt(0.5)
OWN_SHARE = "own_share"  # name of a control and of a regressor
STATES = ("ready", "weak", "noise")
VERDICT_TEXTS = {
    "only the ends": "only at the ends: the best are told from the worst, neighbours are not",
    "not at all": "not at all: held-out trials are in no order that a regressor predicts",
}


@dataclass(frozen=True)
class LossReadiness:
    """Readiness of a loss.

    Attributes:
        of_trials: Its spread, noise, and their ratio.
        weight: Its weight in the objective; 0 if it is not part of the objective.
        mixtures: Number of different mixtures that were ranked.
        spearman: Held-out rank correlation of the chosen regressor.
        ceiling: Rank correlation of a predictor of the true losses.
        control: The control that ranks best, and its rank correlation.
        domains: Rank correlation over the trials with the own loss of each training domain.
        followed: Share of the variance over trials that held-out predictions explain.
        item_error: Binomial standard deviation from the number of questions; None if not given.
        better: Probability that the regressor ranks better than own share, over resampled
            mixtures; None with trials of several sizes.
    """

    of_trials: Readiness
    weight: float
    mixtures: int
    spearman: float | None
    ceiling: float | None
    control: tuple[str, float] | None
    domains: dict[str, float]
    followed: float = 0.0
    item_error: float | None = None
    better: float | None = None

    @property
    def name(self) -> str:
        """Name of the loss."""
        return self.of_trials.name

    @property
    def spearman_low(self) -> float | None:
        """95% lower bound of the held-out rank correlation."""
        if self.spearman is None or self.mixtures < 4:
            return None
        return lower_bound(self.spearman, self.mixtures)

    @property
    def state(self) -> State:
        """`ready`, `weak` or `noise`; from the rank correlation alone without replicates."""
        state = self.of_trials.state
        if state == "unknown":
            state = self._state_by_rank
        if state == "ready" and self._is_beaten:
            return "weak"
        return state

    @property
    def _state_by_rank(self) -> State:
        low = self.spearman_low
        if low is None or low <= 0:
            return "noise"
        return "ready" if low >= HALF_NOISE_CORRELATION else "weak"

    @property
    def noise_share(self) -> float | None:
        """Share of the variance over trials that is noise; from questions, its maximum.

        Trials that answer the same questions differ by less than the binomial error.
        """
        spread = self.of_trials.spread
        noise = self.of_trials.noise
        if spread <= 0:
            return None
        if noise is not None:
            return min((noise / spread) ** 2, 1.0)
        if self.item_error is not None:
            return min((self.item_error / spread) ** 2, 1.0 - self.followed)
        return None

    @property
    def power(self) -> ArmPower | None:
        """Power to tell the best of as many new arms from a control; None if noise is unknown."""
        if self.noise_share is None:
            return None
        noise = math.sqrt(self.noise_share) * self.of_trials.spread
        signal = math.sqrt(1.0 - self.noise_share) * self.of_trials.spread
        return power(noise, signal, max(self.mixtures - 1, 1))

    @property
    def verdict(self) -> str:
        """Whether arms are `ranked`, `only the ends` of them are, or `not at all`."""
        low = self.spearman_low
        if low is None or low <= 0:
            return "not at all"
        return "ranked" if low >= HALF_NOISE_CORRELATION else "only the ends"

    @property
    def adds_nothing(self) -> bool:
        """Whether own share ranks held-out trials as well as the regressor."""
        return self.better is not None and self.better < MIN_SHARE_BETTER

    @property
    def nearest(self) -> tuple[str, float] | None:
        """The training domain whose own loss correlates most with this one, and the correlation."""
        if not self.domains:
            return None
        return max(self.domains.items(), key=lambda pair: abs(pair[1]))

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        control, control_spearman = self.control or (None, None)
        return {
            **self.of_trials.to_json(),
            "state": self.state,
            "weight": self.weight,
            "spearman": self.spearman,
            "spearman_low": self.spearman_low,
            "ceiling": self.ceiling,
            "control": control,
            "control_spearman": control_spearman,
            "domains": dict(self.domains),
            "followed": self.followed,
            "item_error": self.item_error,
            "noise_share": self.noise_share,
            "verdict": self.verdict,
            "better_than_own_share": self.better,
            "power": self.power and asdict(self.power),
        }

    @property
    def _is_beaten(self) -> bool:
        """Whether the regressor ranks nothing, or a control ranks significantly better."""
        if self.spearman is None:
            return True
        if self.control is None or self.mixtures <= 3:
            return False
        _, control_spearman = self.control
        difference = fisher(control_spearman) - fisher(self.spearman)
        return difference > NORMAL_QUANTILE * fisher_error(self.spearman, self.mixtures)


@dataclass(frozen=True)
class FitReadiness:
    """Readiness of each loss of a fit, and of its objective.

    Attributes:
        noise: Noise of each loss.
        objective: Readiness of the objective.
        losses: The losses, in the order of the fit's.
        left_out: Losses that the objective left out as noise.
        factors: Factors of the standardised metrics; the one that follows the mixture most first.
        offers: The objective, and alternatives.
    """

    noise: Noise
    objective: LossReadiness
    losses: tuple[LossReadiness, ...]
    left_out: tuple[str, ...]
    factors: tuple[Factor, ...] = ()
    offers: tuple[Offer, ...] = ()

    def named(self, state: str) -> list[str]:
        """Return the losses in a state: `ready`, `weak` or `noise`."""
        return [loss.name for loss in self.losses if loss.state == state]

    def lines(self, directory: str) -> Iterator[str]:
        """Yield a summary in a line or two, and the command that shows all figures."""
        counts = [f"{len(self.named(state))} {state}" for state in STATES if self.named(state)]
        source = "" if self.noise.trials else " (without replicates, from held-out folds alone)"
        command = f"mixopt status {directory} --readiness"
        yield f"readiness of the losses: {', '.join(counts)}{source}: {command}"
        if self.left_out:
            yield f"left out of the objective as noise: {grouped_names(self.left_out)}"
        if self.objective.verdict != "ranked":
            text = VERDICT_TEXTS[self.objective.verdict]
            yield f"by the objective the mixtures are ranked {text}"
        if self.objective.adds_nothing:
            yield (
                "the fit adds nothing to a domain's own share in ranking held-out trials:"
                f" fit.regressors: [{OWN_SHARE}] recommends by that share alone"
            )
        noisy = [loss.name for loss in self.losses if loss.weight and loss.state == "noise"]
        if not noisy:
            return
        names = grouped_names(noisy)
        if self.noise.trials:
            yield (
                "the objective has losses that vary less between mixtures than between seeds: "
                f"{names}; objective.noise: leave_out leaves them out"
            )
        else:
            yield f"the objective has losses that held-out folds cannot rank: {names}"

    def refuse_noise(self) -> None:
        """Raise ConfigError if the objective contains tasks that are noise."""
        for loss in self.losses:
            if not loss.weight or loss.state != "noise" or not loss.name.startswith(TASK):
                continue
            ratio = loss.of_trials.ratio
            if ratio is None:
                rank = "none" if loss.spearman is None else f"{loss.spearman:.2f}"
                reason = f"no regressor ranks held-out trials on it (Spearman {rank})"
                hint = "set design.replicates and objective.noise: leave_out"
            else:
                reason = f"its signal is {ratio:.2f} times the noise between seeds"
                hint = "set objective.noise: leave_out"
            raise ConfigError(
                f"objective: {loss.name!r} is noise: {reason}; {hint}, or objective.noise: allow"
            )

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "replicates": {"trials": self.noise.trials, "mixtures": self.noise.mixtures},
            "objective": self.objective.to_json(),
            "left_out": list(self.left_out),
            "losses": [entry.to_json() for entry in self.losses],
            "factors": [asdict(entry) for entry in self.factors],
            "offers": [entry.to_json() for entry in self.offers],
        }


def readiness(fit: Fit) -> FitReadiness:
    """Return the readiness of each loss of a fit, and of its objective."""
    evidence = _Evidence.of(fit)
    result = FitReadiness(
        noise=noise_of(fit),
        objective=_readiness_of(fit, 0, evidence),
        losses=tuple(_readiness_of(fit, 1 + m, evidence) for m in range(len(fit.targets))),
        left_out=fit.objective.left_out,
    )
    if fit.data.sizes.count > 1 or fit.is_carried:
        return result
    predicted_NM = fit.errors.predicted_NM
    return replace(
        result,
        factors=factors(fit.objective, fit.data.losses_NM, predicted_NM),
        offers=offers(fit, predicted_NM),
    )


@dataclass(frozen=True, eq=False)
class _Evidence:
    """Held-out evidence on the objective and the losses of a fit, by target or column.

    Attributes:
        ranks: Rank correlations of the chosen regressor.
        ceilings: Noise ceilings.
        controls: The best control and its rank correlation.
        predicted_NQ: Held-out predictions.
        item_errors_Q: Binomial standard deviations, 0 without questions.
        better_Q: Share of resamples in which the fit ranks better than own share.
    """

    ranks: dict[str, float | None]
    ceilings: dict[str, float | None]
    controls: dict[str, tuple[str, float]]
    predicted_NQ: Array
    item_errors_Q: Array
    better_Q: Array | None

    @classmethod
    def of(cls, fit: Fit) -> _Evidence:
        """Collect the evidence of a fit."""
        predicted_NQ = with_objective(fit.objective, fit.errors.predicted_NM)
        return cls(
            ranks=_spearman(fit.report, fit.name),
            ceilings=_spearman(fit.report, CEILING),
            controls=_best_controls(fit.report),
            predicted_NQ=predicted_NQ,
            item_errors_Q=_item_errors(fit),
            better_Q=_better_than_own_share(fit, predicted_NQ),
        )


def _readiness_of(fit: Fit, column: int, evidence: _Evidence) -> LossReadiness:
    """Return the readiness of the objective (column 0) or of a loss."""
    is_objective = column == 0
    name = OBJECTIVE if is_objective else fit.targets[column - 1]
    observed_N = fit.data.observed_NQ[:, column]
    predicted_N = evidence.predicted_NQ[:, column]
    shown_name = "the objective" if is_objective else name
    (of_trials,) = readiness_of(fit.trials, observed_N[:, None], [shown_name])
    item_error = float(evidence.item_errors_Q[column])
    better = None
    if evidence.better_Q is not None:
        better = float(evidence.better_Q[column])
    return LossReadiness(
        of_trials=of_trials,
        weight=1.0 if is_objective else fit.objective.weights.get(name, 0.0),
        mixtures=len(set(fit.data.mixtures)),
        spearman=evidence.ranks.get(name),
        ceiling=evidence.ceilings.get(name),
        control=evidence.controls.get(name),
        domains=_of_domains(fit, name, observed_N),
        followed=_explained(observed_N, predicted_N, fit.data.sizes.group_N),
        item_error=item_error if item_error > 0 else None,
        better=better,
    )


def _item_errors(fit: Fit) -> Array:
    """Return the binomial standard deviation of the objective and of each loss, shape (Q,)."""
    errors_NM = fit.objective.item_errors(fit.data.losses_NM)
    variances_NP = np.nan_to_num(errors_NM) ** 2 @ fit.objective.pieces().T ** 2
    errors_NQ = np.column_stack([np.sqrt(variances_NP.max(axis=1)), errors_NM])
    return np.array([np.sqrt((errors_N**2).mean()) for errors_N in errors_NQ.T])


def noise_of(fit: Fit) -> Noise:
    """Return the noise of a trial on each loss of a fit.

    From replicates; without any an upper bound: the binomial error from the number of questions, or
    the held-out error if that is lower.
    """
    noise = noise_of_trials(fit.trials, fit.objective, fit.data.losses_NM)
    if noise.freedom:
        return noise
    return noise.bounded(fit.errors.rmse_M, "held-out error")


def objective_noise(fit: Fit, objective: Objective) -> Noise:
    """Return the noise of a trial on an objective, from replicates or the held-out error."""
    values_N1 = objective.value(fit.data.losses_NM)[:, None]
    noise = Noise.of_trials(fit.trials, values_N1, [OBJECTIVE])
    error = fit.errors.objective_rmse(objective)
    return noise.bounded(np.array([error]), "held-out error")


def _explained(observed_N: Array, predicted_N: Array, group_N: IntArray) -> float:
    """Return the share of the variance within sizes explained by predictions, >= 0."""
    groups = [observed_N[group_N == group] for group in np.unique(group_N)]
    total = sum(float(((values_N - values_N.mean()) ** 2).sum()) for values_N in groups)
    missed = float(((observed_N - predicted_N) ** 2).sum())
    return max(1.0 - missed / total, 0.0) if total > 0 else 0.0


def _better_than_own_share(fit: Fit, predicted_NQ: Array) -> Array | None:
    """Return the share of resamples in which the fit ranks better than own share, by column."""
    data = fit.data
    if data.sizes.count > 1 or fit.name == OWN_SHARE:
        return None
    by_name = {
        control.name: control
        for control in controls(
            data.weights_ND, data.losses_NM, data.fold_N, fit.domains, fit.objective
        )
    }
    own_share = by_name[OWN_SHARE]
    assert own_share.ranks_NQ is not None
    return share_better(predicted_NQ, own_share.ranks_NQ, data.observed_NQ, data.seed)


def _spearman(report: pl.DataFrame, predictor: str) -> dict[str, float | None]:
    rows = report.filter(pl.col("predictor") == predictor)
    return dict(rows.select("target", "spearman").iter_rows())


def _best_controls(report: pl.DataFrame) -> dict[str, tuple[str, float]]:
    """Return the best control of each loss, and its rank correlation."""
    ranked = report.filter(pl.col("kind") == "control", pl.col("spearman").is_not_null())
    rows = ranked.sort("spearman").select("target", "predictor", "spearman").iter_rows()
    return {target: (predictor, rank) for target, predictor, rank in rows}


def _of_domains(fit: Fit, name: str, values_N: Array) -> dict[str, float]:
    """Return the rank correlation of a loss with the own loss of each training domain."""
    by_domain = {}
    for column, domain in enumerate(fit.targets):
        if domain in fit.domains and domain != name:
            losses_N = fit.data.losses_NM[:, column]
            rank = spearman_within(values_N, losses_N, fit.data.sizes.group_N)
            if rank is not None:
                by_domain[domain] = rank
    return by_domain
