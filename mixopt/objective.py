"""The objective: one evaluation domain's loss, a weighted mean of several, the worst, or a hinge.

Each is the maximum of a few weighted sums of losses and constants ("pieces"): a target and a mean
have one piece, the worst domain has one per domain. This gives one formula for values,
subgradients, and the constrained search. An aggregate is always computed from the losses by domain,
never fitted itself: a law fitted to the mean of several domains misses that each has its own best
share.

A hinge is the difference of a target from the average trial, plus the amount by which the worst
other loss exceeds the average trial by more than its noise, in units of noise
(mixopt.trials.readiness): soft guardrails that a large enough gain may cross.

Losses are lower-better here and in every fit: metrics of which higher is better are negated where
they come in from a table (`Objective.losses`), and turned back where values go out (`turned`,
`turned_value`). With `scale: spread` each loss is
divided by its standard deviation over the trials, since the spread of losses among mixtures depends
on the domain and on the model size. Losses whose spread is below the noise of replicates
(mixopt.trials.readiness) are left out on request.

Shapes: N mixtures, M evaluation domains, P pieces.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from mixopt.config import task_metric
from mixopt.errors import ConfigError, did_you_mean
from mixopt.system import Array

if TYPE_CHECKING:
    from mixopt.config import ObjectiveConfig

MAX_NAMES = 8  # up to this many names are listed completely
FEW = 4  # names listed of more
ROUNDING = 1e-9  # of weights that count as equal
Kind = Literal["target", "mean", "worst", "hinge"]
Unit = Literal["nats_per_token", "bits_per_byte"]
Direction = Literal["lower", "higher"]
Scale = Literal["none", "spread"]
LeaveOut = Literal["noise"]
Value = TypeVar("Value", float, Array)


class LossTable(Protocol):
    """A table with losses by evaluation domain, in the objective's order."""

    def losses(self, unit: Unit) -> Array:
        """Return the losses in a unit, shape (N, M)."""


def listed(names: Iterable[str]) -> str:
    """Return names as text: `a, b and c`."""
    *first, last = names
    if not first:
        return last
    return f"{', '.join(first)} and {last}"


def grouped_names(names: Sequence[str]) -> str:
    """Return names as text, of many only the first: `a, b, c, d and 53 more`."""
    if len(names) <= MAX_NAMES:
        return listed(names)
    return listed([*names[:FEW], f"{len(names) - FEW} more"])


def mean_in_words(weights: Mapping[str, float], families: Mapping[str, Sequence[str]]) -> str:
    """Return the members of a weighted mean as text."""
    if families:
        return _families_in_words(weights, families)
    if len(weights) <= MAX_NAMES:
        return listed(_weighted_names(weights))
    uneven = "" if _are_equal(weights) else ", with different weights"
    return f"{len(weights)} losses{uneven}: {grouped_names(list(weights))}"


def _families_in_words(weights: Mapping[str, float], families: Mapping[str, Sequence[str]]) -> str:
    shares = {}
    for family, names in families.items():
        shares[family] = sum(weights[name] for name in names)
    parts = []
    for weighted, names in zip(_weighted_names(shares), families.values(), strict=True):
        noun = "loss" if len(names) == 1 else "losses"
        parts.append(f"{weighted} ({len(names)} {noun})")
    kind = "family" if len(families) == 1 else "families"
    return f"{len(families)} {kind}: {grouped_names(parts)}"


def _are_equal(weights: Mapping[str, float]) -> bool:
    return max(weights.values()) - min(weights.values()) <= ROUNDING


def _weighted_names(weights: Mapping[str, float]) -> list[str]:
    """Return the names, each after its weight unless all weights are equal."""
    if _are_equal(weights):
        return list(weights)
    return [f"{weight:.3g} {name}" for name, weight in weights.items()]


@dataclass(frozen=True)
class Objective:
    """A number to minimise, computed from losses by evaluation domain.

    Attributes:
        evaluation: All evaluation domains, in the order of the losses' columns.
        kind: Function from losses to one number.
        weights: Weight of each measured evaluation domain; weights of a mean add up to 1, others
            are 1. The first of a hinge is the target.
        unit: Unit of the losses.
        higher: Evaluation domains with a metric where higher is better.
        scale: `spread`: each loss is divided by its standard deviation over the trials.
        spreads: These standard deviations, or the noise in a hinge; they come from trials
            (`scaled`).
        references: Means of the losses over the trials, for a hinge.
        families: Names of measured evaluation domains by family, for a mean of families.
        leave_out: `noise`: losses whose spread is below the noise are left out.
        left_out: The losses left out; they come from trials (`without`).
        items: Number of questions of each metric that is a share of right answers.

    Raises:
        ConfigError: An unknown evaluation domain, a worst that combines losses and metrics where
            higher is better, or a spread <= 0.

    Examples:
        >>> objective = Objective(("code", "prose"), "mean", {"code": 0.75, "prose": 0.25})
        >>> objective.value([[2.0, 4.0]])
        array([2.5])
        >>> Objective(("exam",), "target", {"exam": 1.0}, higher=("exam",)).turned([[0.62]])
        array([[-0.62]])
    """

    evaluation: tuple[str, ...]
    kind: Kind
    weights: Mapping[str, float]
    unit: Unit = "bits_per_byte"
    higher: tuple[str, ...] = ()
    scale: Scale = "none"
    spreads: Mapping[str, float] | None = None
    families: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    leave_out: LeaveOut | None = None
    left_out: tuple[str, ...] = ()
    items: Mapping[str, int] = field(default_factory=dict)
    references: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        self._check_names(self.kind, self.weights)
        self._check_names("direction", self.higher)
        self._check_names("items", self.items)
        if not self.weights:
            raise ConfigError(f"objective.{self.kind}: needs at least one evaluation domain")
        self._check_worst()
        self._check_spreads()

    @classmethod
    def from_config(cls, config: ObjectiveConfig, evaluation: Sequence[str]) -> Objective:
        """Build the objective of a configuration."""
        from mixopt.config import chosen_losses

        losses = chosen_losses(config, evaluation)
        return cls(
            tuple(evaluation),
            losses.kind,
            losses.weights,
            config.unit,
            losses.higher,
            config.scale,
            families=losses.families,
            leave_out="noise" if config.noise == "leave_out" else None,
            items=losses.items,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the objective as plain values."""
        return asdict(self)

    def scaled(self, spreads: Mapping[str, float]) -> Objective:
        """Return the objective with the spreads of its losses."""
        scales = {name: float(spreads[name]) for name in self.measured if name in spreads}
        return replace(self, scale="spread", spreads=scales)

    def against(self, means: Mapping[str, float], noise: Mapping[str, float]) -> Objective:
        """Return a hinge with means and noise of the losses, from the trials, metrics negated.

        Raises:
            ConfigError: The noise of one of its losses is unknown, or 0.
        """
        for name in self.measured:
            if not noise.get(name, 0.0) > 0:
                raise ConfigError(
                    f"objective.hinge: the noise of {name!r} is unknown: set design.replicates to"
                    " 2 or more, or objective.items for shares of right answers"
                )
        return replace(
            self,
            spreads={name: float(noise[name]) for name in self.measured},
            references={name: float(means[name]) for name in self.measured},
        )

    def without(self, names: Collection[str]) -> Objective:
        """Return the objective without some of its losses, whose weights go to the others."""
        removed = tuple(name for name in self.weights if name in names)
        if not removed:
            return self
        weights = {name: weight for name, weight in self.weights.items() if name not in removed}
        if not weights:
            raise ConfigError(
                f"objective.noise: leave_out leaves nothing of {self._kind_text()}: choose another "
                "objective, or run longer trials"
            )
        families = {}
        for family, members in self.families.items():
            rest = tuple(name for name in members if name in weights)
            if not rest:
                continue
            families[family] = rest
            before = sum(self.weights[name] for name in members)
            now = sum(weights[name] for name in rest)
            for name in rest:
                weights[name] = weights[name] * before / now
        if self.kind == "mean":
            total = sum(weights.values())
            weights = {name: weight / total for name, weight in weights.items()}
        left_out = (*self.left_out, *removed)
        return replace(self, weights=weights, families=families, left_out=left_out)

    def of(self, kind: Kind, weights: Mapping[str, float], scale: Scale = "none") -> Objective:
        """Return another objective over the same losses, in the same unit and directions."""
        return Objective(
            self.evaluation, kind, weights, self.unit, self.higher, scale, items=self.items
        )

    @property
    def needs_trials(self) -> bool:
        """Whether it depends on the trials: for spreads, noise, or losses to leave out."""
        return self.scale != "none" or self.leave_out is not None or self.kind == "hinge"

    @property
    def measured(self) -> tuple[str, ...]:
        """Evaluation domains that the objective depends on."""
        return tuple(self.weights)

    @cached_property
    def columns(self) -> list[int]:
        """Positions of the measured evaluation domains among all."""
        return [self.evaluation.index(name) for name in self.weights]

    def over(self, evaluation: Sequence[str]) -> Objective:
        """Return the same objective over some evaluation domains, the measured ones among them."""
        higher = tuple(name for name in self.higher if name in evaluation)
        items = {name: count for name, count in self.items.items() if name in evaluation}
        return replace(self, evaluation=tuple(evaluation), higher=higher, items=items)

    def item_errors(self, losses_NM: ArrayLike) -> Array:
        """Return the binomial standard deviation of each share of right answers; nan for losses.

        It is the deviation over draws of the questions. Runs that answer the same questions differ
        less, since the difficulty of a question is the same for all runs.
        """
        counts_M = np.array([self.items.get(name, np.nan) for name in self.evaluation])
        shares_NM = self.turned(losses_NM)
        spread: Array = np.sqrt(np.maximum(shares_NM * (1.0 - shares_NM), 0.0) / counts_M)
        return spread

    @property
    def signs(self) -> Array:
        """1 for each loss and -1 for each metric where higher is better, shape (M,)."""
        return np.array([-1.0 if name in self.higher else 1.0 for name in self.evaluation])

    def losses(self, trials: LossTable) -> Array:
        """Return the losses of a table in its unit, metrics negated: lower is better for all."""
        return self.turned(trials.losses(self.unit))

    def turned(self, values_NM: ArrayLike) -> Array:
        """Negate metrics of which higher is better: to enter a fit, or to come back from it."""
        return np.asarray(values_NM, float) * self.signs

    def turned_value(self, values: Value) -> Value:
        """Negate values of the objective if higher is better, to show them or to come back."""
        return -values if self.is_higher else values

    @property
    def is_higher(self) -> bool:
        """Whether higher is better for every metric that it measures; False for a hinge."""
        return self.kind != "hinge" and all(name in self.higher for name in self.weights)

    @property
    def value_unit(self) -> str:
        """Unit of the objective, a key of `mixopt.difference.UNITS`."""
        if self.kind == "hinge":
            return "noise"
        if self.scale == "spread":
            return "metric_deviations" if self.is_higher else "standard_deviations"
        if self.is_higher:
            return "right_answers" if self.items.keys() >= self.weights.keys() else "metric_units"
        if any(name in self.higher for name in self.weights):
            return "mixed_units"
        # Tasks have a unit of their own, whatever the losses are in.
        if all(task_metric(name) and name.endswith("/bits_per_byte") for name in self.weights):
            return "bits_per_byte"
        return self.unit

    def unit_of(self, target: str | None) -> str:
        """Return the unit of a target, or of the objective if it is None."""
        if target is None:
            return self.value_unit
        if target in self.items:
            return "right_answers"
        return "metric_units" if target in self.higher else self.unit

    def pieces(self) -> Array:
        """Coefficients of the sums whose maximum, with `offsets_P`, is the objective, (P, M)."""
        if self.spreads is None and (self.scale == "spread" or self.kind == "hinge"):
            raise ConfigError("objective.scale: spread: the spreads of the trials are missing")
        spreads = self.spreads or {}
        weights_M = np.zeros(len(self.evaluation))
        for name, column in zip(self.weights, self.columns, strict=True):
            weights_M[column] = self.weights[name] / spreads.get(name, 1.0)
        if self.kind == "worst":
            return np.diag(weights_M)[self.columns]
        if self.kind != "hinge":
            return weights_M[None]
        target = self.columns[0]
        pieces_PM = np.diag(weights_M)[self.columns]
        pieces_PM[1:, target] = weights_M[target]
        return pieces_PM

    @cached_property
    def offsets_P(self) -> Array:
        """Constant of each weighted sum, shape (P,); 0 except for a hinge."""
        pieces_PM = self.pieces()
        if self.references is None:
            return np.zeros(len(pieces_PM))
        references_M = np.array([self.references.get(name, 0.0) for name in self.evaluation])
        offsets_P: Array = -(pieces_PM @ references_M) - (np.arange(len(pieces_PM)) > 0)
        return offsets_P

    def sums(self, losses_NM: ArrayLike) -> Array:
        """Return the weighted sums of each row of losses, shape (N, P).

        Only measured columns are read: a missing loss of another domain must not affect the value.
        """
        measured_NM = np.asarray(losses_NM, float)[:, self.columns]
        return measured_NM @ self._small_pieces.T + self.offsets_P

    def value(self, losses_NM: ArrayLike) -> Array:
        """Return the objective of each row of losses, shape (N,)."""
        value: Array = self.sums(losses_NM).max(axis=1)
        return value

    def spread(self, stds_NM: ArrayLike) -> Array:
        """Bound the deviation of the objective by those of the losses, shape (N,)."""
        measured_NM = np.asarray(stds_NM, float)[:, self.columns]
        spreads_NP = measured_NM @ np.abs(self._small_pieces).T
        return np.asarray(spreads_NP.max(axis=1))

    @cached_property
    def _small_pieces(self) -> Array:
        return self.pieces()[:, self.columns]

    def describe(self) -> str:
        """Return the minimised quantity as text, short even with many losses."""
        parts = [self._kind_text()]
        higher = [name for name in self.measured if name in self.higher]
        if self.is_higher:
            parts.append(" (higher is better)")
        elif higher:
            parts.append(f" (higher {grouped_names(higher)} is better)")
        if self.scale == "spread":
            parts.append(", each divided by its spread over the trials")
        if self.left_out:
            parts.append(f", without {grouped_names(self.left_out)} (noise)")
        return "".join(parts)

    def _kind_text(self) -> str:
        negated = () if self.is_higher else self.higher
        signed = {}
        for name in self.weights:
            signed[name] = f"minus {name}" if name in negated else name
        if self.kind == "target":
            return signed[self.measured[0]]
        if self.kind == "worst":
            return f"the worst of {grouped_names(list(signed.values()))}"
        if self.kind == "hinge":
            target, *limited = signed.values()
            return (
                f"{target} against the average trial, plus the largest excess of"
                f" {grouped_names(limited)} over the average trial beyond noise, in units of noise"
            )
        if self.families:
            return f"the mean of {mean_in_words(self.weights, self.families)}"
        weights = {signed[name]: weight for name, weight in self.weights.items()}
        return f"the mean of {mean_in_words(weights, {})}"

    def _check_names(self, field_name: str, names: Iterable[str]) -> None:
        """Raise ConfigError if a field names an unknown evaluation domain."""
        for name in names:
            if name not in self.evaluation:
                near = did_you_mean(name, self.evaluation)
                raise ConfigError(
                    f"objective.{field_name}: unknown evaluation domain {name!r}{near}"
                )

    def _check_worst(self) -> None:
        higher = [name for name in self.weights if name in self.higher]
        if self.kind == "worst" and higher and len(higher) < len(self.weights):
            raise ConfigError(
                f"objective.worst: higher is better for {grouped_names(higher)} and lower for the "
                "others, so they cannot be compared; use objective.mean with objective.scale: "
                "spread"
            )

    def _check_spreads(self) -> None:
        if self.spreads is None or self.kind == "hinge":
            return
        for name in self.weights:
            if not self.spreads.get(name, 0.0) > 0:
                raise ConfigError(
                    f"objective.scale: spread: the spread of {name!r} is"
                    f" {self.spreads.get(name, 'missing')}; it must be above 0: remove {name!r}"
                )
