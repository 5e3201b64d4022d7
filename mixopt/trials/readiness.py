"""Whether trials separate mixtures on a loss: signal between mixtures against noise of seeds.

Trials of one mixture with several seeds differ by initial weights and order of data only: their
pooled standard deviation is the noise of a trial. The signal is the spread between mixtures beyond
it, signal^2 = spread^2 - noise^2, by one-way analysis of variance; the F distribution gives the
ratio's lower bound. A loss is `ready` if the bound is at least 1, `weak` if only the estimate is,
and else `noise`: then a trial tells more about its seed than about its mixture.

The ratio is AI2's "signal to noise" (2508.13144) with the noise within mixtures, not over the
checkpoints of all mixtures, which would contain the signal.

Shapes: N trials, M losses, K different mixtures (of each size), S sizes.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np

from mixopt.config import TASK
from mixopt.errors import ConfigError, TrialsError, did_you_mean
from mixopt.objective import Objective
from mixopt.system import Array, IntArray
from mixopt.trials.columns import HAS_LOSSES, listed
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


@dataclass(frozen=True)
class Replicates:
    """Replicates: numbers of trials of repeated mixtures, and of such mixtures."""

    trials: int
    mixtures: int

    @classmethod
    def of(cls, trials: Trials) -> Self:
        """Count the finished replicates, separately for each model size."""
        counts_K = np.bincount(_cells(trials.finished)[0])
        repeated_K = counts_K[counts_K > 1]
        return cls(int(repeated_K.sum()), len(repeated_K))

    def describe(self) -> str:
        """Return the counts as text."""
        if not self.trials:
            return "no mixture was trained twice, so the noise of a trial is not known"
        mixtures = "one mixture" if self.mixtures == 1 else f"{self.mixtures} mixtures"
        return f"noise from {self.trials} trials of {mixtures}"


def readiness_of(trials: Trials, losses_NM: Array, names: Sequence[str]) -> tuple[Readiness, ...]:
    """Return signal and noise of finished trials on each loss."""
    cell_N, size_N = _cells(trials)
    between_M, within_M, freedom, each = _variances(losses_NM, cell_N, size_N)
    if not freedom[1]:
        spreads_M = np.sqrt(between_M / each)
        return tuple(Readiness(n, float(s)) for n, s in zip(names, spreads_M, strict=True))
    from scipy.stats import f as f_distribution

    with np.errstate(divide="ignore", invalid="ignore"):
        f_statistics_M = np.nan_to_num(between_M / within_M, nan=0.0, posinf=MAX_RATIO**2)
    sure_M = f_statistics_M / f_distribution.ppf(LEVEL, *freedom)
    ratios_M, lows_M = (_ratio(values_M, each) for values_M in (f_statistics_M, sure_M))
    noises_M = np.sqrt(within_M)
    spreads_M = np.sqrt(np.maximum(between_M - within_M, 0.0) / each + within_M)
    columns = zip(spreads_M, noises_M, ratios_M, lows_M, strict=True)
    return tuple(
        Readiness(name, *map(float, numbers)) for name, numbers in zip(names, columns, strict=True)
    )


def _cells(trials: Trials) -> tuple[IntArray, IntArray]:
    """Number each trial's combination of mixture and size, and its size."""
    sizes = trials.table.select("parameters", "tokens").rows()
    if len(set(sizes)) > max(len(sizes) // 2, 1):  # nearly every trial has its own size
        sizes = [(0, 0)] * len(sizes)
    return _numbered(list(zip(trials.mixtures, sizes, strict=True))), _numbered(sizes)


def _numbered(values: Sequence[Any]) -> IntArray:
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return np.array([places[value] for value in values])


def _variances(
    losses_NM: Array, cell_N: IntArray, size_N: IntArray
) -> tuple[Array, Array, tuple[int, int], float]:
    """Return mean squares between and within mixtures, degrees of freedom, and group sizes."""
    counts_K, means_NM = _means(losses_NM, cell_N)
    counts_S, of_sizes_NM = _means(losses_NM, size_N)
    freedom = (len(counts_K) - len(counts_S), len(cell_N) - len(counts_K))
    uneven = float((counts_K[cell_N] / counts_S[size_N]).sum())
    return (
        ((means_NM - of_sizes_NM) ** 2).sum(axis=0) / max(freedom[0], 1),
        ((losses_NM - means_NM) ** 2).sum(axis=0) / max(freedom[1], 1),
        freedom,
        (len(cell_N) - uneven) / max(freedom[0], 1) or 1.0,
    )


def _means(losses_NM: Array, group_N: IntArray) -> tuple[IntArray, Array]:
    """Return the size of each group, and the group mean of each row."""
    counts_K = np.bincount(group_N)
    sums_KM = np.zeros((len(counts_K), losses_NM.shape[1]))
    np.add.at(sums_KM, group_N, losses_NM)
    return counts_K, (sums_KM / counts_K[:, None])[group_N]


def _ratio(f_statistics_M: Array, each: float) -> Array:
    return np.minimum(np.sqrt(np.maximum(f_statistics_M - 1.0, 0.0) / each), MAX_RATIO)


MIN_MIXTURES = 4


def check_trials(trials: Trials, objective: Objective, folds: int) -> None:
    """Check finished trials before a fit."""
    _check_targets(trials, objective)
    mixtures, need = len(set(trials.mixtures)), max(folds, MIN_MIXTURES)
    if mixtures < need:
        lower = f", or lower fit.folds to {mixtures}" if mixtures >= MIN_MIXTURES else ""
        raise TrialsError(
            f"{len(trials)} finished trials of {mixtures} different mixtures; {folds}-fold"
            f" cross-validation needs {need}: raise design.trials, train failed ones again with"
            f" --retry-failed{lower}"
        )
    losses_NM = trials.losses(objective.unit)
    for target, losses_N in zip(trials.targets, losses_NM.T, strict=True):
        if np.ptp(losses_N) <= 1e-9 * max(abs(float(losses_N[0])), 1e-12):
            raise TrialsError(
                f"the loss on {target!r} is {losses_N[0]:.6g} in all {len(trials)} trials, so no"
                " mixture is better than another on it: check its held-out text, or drop it from"
                " the evaluation domains"
            )
        if target in objective.items:
            _check_shares(trials, target, losses_N, objective.items[target])


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
    losses_NM = finished.losses(objective.unit)
    if objective.kind == "hinge":
        means = dict(zip(trials.targets, losses_NM.mean(axis=0).tolist(), strict=True))
        return objective.against(means, noise_by_seeds(finished, objective, losses_NM))
    spreads_M = losses_NM.std(axis=0)
    return objective.scaled(dict(zip(trials.targets, spreads_M.tolist(), strict=True)))


def _without_noise(objective: Objective, finished: Trials) -> Objective:
    if not Replicates.of(finished).trials:
        raise ConfigError(
            "objective.noise: leave_out: no mixture was trained twice, so the noise of a trial is"
            " not known; set design.replicates, or give tables with replicates"
        )
    losses_NM = finished.with_targets(objective.measured).losses(objective.unit)
    result = readiness_of(finished, losses_NM, objective.measured)
    return objective.without([readiness.name for readiness in result if readiness.state == "noise"])


def noise_by_seeds(trials: Trials, objective: Objective, losses_NM: Array) -> dict[str, float]:
    """Return the standard deviation of a run about its mixture's loss, by name, where known.

    From replicates; without them, for shares of right answers, an upper bound from the questions.
    """
    items_M = np.sqrt((objective.item_errors(losses_NM) ** 2).mean(axis=0))
    result = readiness_of(trials, losses_NM, trials.targets)
    noises = {
        readiness.name: float(item_error) if readiness.noise is None else readiness.noise
        for readiness, item_error in zip(result, items_M, strict=True)
    }
    return {name: noise for name, noise in noises.items() if np.isfinite(noise)}


def without_flat_tasks(trials: Trials, measured: Collection[str]) -> Trials:
    """Return the trials without constant tasks, unless these are requested."""
    finished = trials.table.filter(HAS_LOSSES)
    flat = [
        name
        for name in trials.targets
        if name.startswith(TASK) and name not in measured and finished[name].n_unique() == 1
    ]
    if not flat:
        return trials
    names = [name for name in trials.targets if name not in flat]
    return trials.with_targets(names).with_notes(
        f"left out {listed(flat)}: the same in every trial"
    )


def trials_fingerprint(trials: Trials) -> str:
    """Return a hash of 12 hexadecimal digits that does not depend on the order of trials."""
    columns = [name for name in trials.table.columns if name not in ("seconds", "reason")]
    rows = sorted(repr(row) for row in trials.table.select(columns).iter_rows())
    return hashlib.sha256("\n".join([repr(columns), *rows]).encode()).hexdigest()[:12]


def _check_targets(trials: Trials, objective: Objective) -> None:
    if objective.evaluation == trials.targets:
        return
    for name in objective.evaluation:
        if name not in trials.targets:
            near = did_you_mean(name, trials.targets)
            raise TrialsError(f"the trials have no losses on evaluation domain {name!r}{near}")
    raise TrialsError(
        f"the objective's evaluation domains are {', '.join(objective.evaluation)}; the trials' are"
        f" {', '.join(trials.targets)}: give both in the same order"
    )


def _check_shares(trials: Trials, target: str, values_N: Array, questions: int) -> None:
    """Raise TrialsError if a metric with a number of questions is no share of right answers."""
    highest = float(values_N.max())
    row = int(np.argmax(values_N if highest > 1.0 else -values_N))
    if 0.0 <= values_N[row] <= 1.0:
        return
    hint = f"correct it, or the number of questions in items/{target}"
    if (values_N % 1.0 == 0.0).all() and values_N.min() >= 0.0 and highest <= questions:
        hint = f"divide counts by {questions}"
    elif values_N.min() >= 0.0 and highest <= 100.0:
        hint = "divide by 100 if it is in percent"
    raise TrialsError(
        f"objective.items: {target!r} is {values_N[row]:g} in trial"
        f" {trials.table['trial'][row]!r} of {questions} questions; a share of right answers is"
        f" from 0 to 1: {hint}"
    )
