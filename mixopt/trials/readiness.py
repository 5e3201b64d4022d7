"""Whether trials separate mixtures on a loss: signal between mixtures against noise of seeds.

The signal is the spread between mixtures beyond the noise of a trial (mixopt.trials.noise),
signal^2 = spread^2 - noise^2, by one-way analysis of variance; the F distribution gives the ratio's
lower bound. A loss is `ready` if the bound is at least 1, `weak` if only the estimate is, and else
`noise`: then a trial tells more about its seed than about its mixture.

The ratio is AI2's "signal to noise" (2508.13144) with the noise within mixtures, not over the
checkpoints of all mixtures, which would contain the signal.

Shapes: N trials, M losses, K different mixtures (of each size), S sizes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mixopt.config import TASK
from mixopt.errors import ConfigError
from mixopt.objective import Objective
from mixopt.system import Array
from mixopt.trials.noise import Noise, group_means, mixtures_and_sizes, model_sizes, numbered
from mixopt.trials.table import Trials

State = Literal["ready", "weak", "noise", "unknown"]
LEVEL = 0.95  # level of the lower bound
MIN_RATIO = 1.0  # ratios below are noise
MAX_RATIO = 1e6  # reported if replicates do not differ at all


@dataclass(frozen=True)
class Readiness:
    """Signal and noise of trials on a loss.

    Attributes:
        name: The loss.
        spread: Standard deviation of a trial's loss over mixtures.
        noise: Standard deviation over seeds of one mixture; None without replicates.
        ratio: Signal over noise; None without replicates.
        low: 95% lower bound of the ratio; None without replicates.
    """

    name: str
    spread: float
    noise: float | None = None
    ratio: float | None = None
    low: float | None = None

    @property
    def state(self) -> State:
        """`ready`, `weak` or `noise`; `unknown` without replicates (see mixopt.fitting)."""
        if self.ratio is None or self.low is None:
            return "unknown"
        if self.ratio < MIN_RATIO:
            return "noise"
        return "ready" if self.low >= MIN_RATIO else "weak"

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {**asdict(self), "state": self.state}


def readiness_of(trials: Trials, losses_NM: Array, names: Sequence[str]) -> tuple[Readiness, ...]:
    """Return signal and noise of finished trials on each loss."""
    noise = Noise.of_trials(trials, losses_NM, names)
    between = _Between.of(trials, losses_NM)
    if not noise.freedom:
        spreads = np.sqrt(between.mean_square_M / between.group_size).tolist()
        return tuple(Readiness(name, spread) for name, spread in zip(names, spreads, strict=True))
    from scipy.stats import f as f_distribution

    with np.errstate(divide="ignore", invalid="ignore"):
        f_statistics_M = between.mean_square_M / noise.variances_M
    f_statistics_M = np.nan_to_num(f_statistics_M, nan=0.0, posinf=MAX_RATIO**2)
    quantile = f_distribution.ppf(LEVEL, between.freedom, noise.freedom)
    signals_M = np.maximum(between.mean_square_M - noise.variances_M, 0.0) / between.group_size
    columns = zip(
        names,
        np.sqrt(signals_M + noise.variances_M).tolist(),
        noise.stds_M.tolist(),
        between.ratio(f_statistics_M).tolist(),
        between.ratio(f_statistics_M / quantile).tolist(),
        strict=True,
    )
    return tuple(Readiness(*column) for column in columns)


@dataclass(frozen=True, eq=False)
class _Between:
    """The spread between mixtures, within model sizes.

    Attributes:
        mean_square_M: Mean square between mixtures, shape (M,).
        freedom: Its degrees of freedom.
        group_size: Effective number of trials of a mixture.
    """

    mean_square_M: Array
    freedom: int
    group_size: float

    @classmethod
    def of(cls, trials: Trials, losses_NM: Array) -> "_Between":
        """Compare the means of mixtures with those of their model size."""
        mixture_N = numbered(mixtures_and_sizes(trials))
        size_N = numbered(model_sizes(trials))
        counts_K = np.bincount(mixture_N)
        counts_S = np.bincount(size_N)
        freedom = len(counts_K) - len(counts_S)
        deviations_NM = group_means(losses_NM, mixture_N) - group_means(losses_NM, size_N)
        uneven = float((counts_K[mixture_N] / counts_S[size_N]).sum())
        return cls(
            mean_square_M=(deviations_NM**2).sum(axis=0) / max(freedom, 1),
            freedom=freedom,
            group_size=(len(mixture_N) - uneven) / max(freedom, 1) or 1.0,
        )

    def ratio(self, f_statistics_M: Array) -> Array:
        """Return signal over noise, from the ratio of mean squares."""
        signals_M = np.maximum(f_statistics_M - 1.0, 0.0) / self.group_size
        return np.minimum(np.sqrt(signals_M), MAX_RATIO)


def settled(objective: Objective, trials: Trials) -> Objective:
    """Return the objective with spreads from the trials, and without noise if configured."""
    absent = [n for n in objective.evaluation if n.startswith(TASK) and n not in trials.targets]
    for name in objective.measured:
        if name in absent:
            proxy = trials.table["proxy"][0]
            raise ConfigError(
                f"objective: no trial was scored on {name!r}: proxy {proxy!r} does not score "
                "tasks; use another proxy, or another objective"
            )
    if absent:
        objective = objective.over([name for name in objective.evaluation if name not in absent])
    if objective.leave_out == "noise":
        objective = _without_noise(objective, trials.finished)
    if objective.scale == "none" and objective.kind != "hinge":
        return objective
    finished = trials.finished
    losses_NM = objective.losses(finished)
    if objective.kind == "hinge":
        means = dict(zip(trials.targets, losses_NM.mean(axis=0).tolist(), strict=True))
        return objective.against(means, noise_of_trials(finished, objective, losses_NM).by_name)
    spreads_M = losses_NM.std(axis=0)
    return objective.scaled(dict(zip(trials.targets, spreads_M.tolist(), strict=True)))


def _without_noise(objective: Objective, finished: Trials) -> Objective:
    losses_NM = finished.with_targets(objective.measured).losses(objective.unit)
    result = readiness_of(finished, losses_NM, objective.measured)
    if any(readiness.state == "unknown" for readiness in result):
        raise ConfigError(
            "objective.noise: leave_out: no mixture was trained twice, so the noise of a trial is"
            " not known; set design.replicates, or give tables with replicates"
        )
    return objective.without([readiness.name for readiness in result if readiness.state == "noise"])


def noise_of_trials(trials: Trials, objective: Objective, losses_NM: Array) -> Noise:
    """Return the noise of each loss: from replicates, else at most that of the questions."""
    errors_M = np.sqrt((objective.item_errors(losses_NM) ** 2).mean(axis=0))
    return Noise.of_trials(trials, losses_NM, trials.targets).bounded(errors_M, "questions")
