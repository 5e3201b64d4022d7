"""What is minimised: one evaluation domain's loss, a weighted mean of several, or the worst.

Each is the largest of a few weighted sums of losses ("pieces"): a target and a mean have one
piece, the worst domain has a piece for each. That gives one formula for values, subgradients, and
the constrained search. The loss of an aggregate is always computed from the losses by domain,
never fitted itself: a law fitted to the mean of several domains misses that each wants its own
share.

A metric of which higher is better enters with its sign turned, so that lower is better of every
objective. How far losses differ among mixtures depends on the domain and on the size of the
model, so a plain mean weights domains differently at each size; with `scale: spread` each loss
is divided by its standard deviation over the trials first.

Shapes: N mixtures, M evaluation domains, P pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import ConfigError, did_you_mean
from mixopt.system import Array

if TYPE_CHECKING:
    from mixopt.config import ObjectiveConfig

Unit = Literal["nats_per_token", "bits_per_byte"]
Kind = Literal["target", "mean", "worst"]
Direction = Literal["lower", "higher"]
Scale = Literal["none", "spread"]
# How the unit of losses, and of an objective (`value_unit`), is written.
UNITS = {
    "bits_per_byte": "bits per byte",
    "nats_per_token": "nats per token",
    "standard_deviations": "standard deviations",
    "metric_units": "units of the metric",
}


@dataclass(frozen=True)
class Objective:
    """A number to minimise, made from losses by evaluation domain.

    Attributes:
        evaluation: All evaluation domains, in the order of the losses' columns.
        kind: How the losses become one number.
        weights: Weight of each measured evaluation domain; adds up to 1 for a mean, and is 1
            each otherwise.
        unit: Unit of the losses.
        higher: Evaluation domains whose metric is better when it is higher.
        scale: `spread` where each loss is divided by its standard deviation over the trials.
        spreads: These standard deviations; they come from trials (`scaled`).

    Raises:
        ConfigError: An evaluation domain that is not there, losses and metrics of which higher
            is better in one worst, or a spread that is not above 0.
    """

    evaluation: tuple[str, ...]
    kind: Kind
    weights: Mapping[str, float]
    unit: Unit = "bits_per_byte"
    higher: tuple[str, ...] = ()
    scale: Scale = "none"
    spreads: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for field, names in ((self.kind, self.weights), ("direction", self.higher)):
            for name in names:
                if name not in self.evaluation:
                    near = did_you_mean(name, self.evaluation)
                    raise ConfigError(
                        f"objective.{field}: unknown evaluation domain {name!r}{near}"
                    )
        if not self.weights:
            raise ConfigError(f"objective.{self.kind}: needs at least one evaluation domain")
        self._check_worst()
        self._check_spreads()

    @classmethod
    def from_config(cls, config: ObjectiveConfig, evaluation: Sequence[str]) -> Objective:
        """Build the objective that a configuration states.

        Args:
            config: Exactly one of target, mean and worst, the unit, directions and scale.
            evaluation: Evaluation domains, in the order of the losses' columns.

        Raises:
            ConfigError: An evaluation domain that is not there.
        """
        higher = tuple(name for name, which in config.direction.items() if which == "higher")
        kind, weights = _kind_and_weights(config)
        return cls(tuple(evaluation), kind, weights, config.unit, higher, config.scale)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Objective:
        """Build the objective that `to_json` described."""
        return cls(
            tuple(content["evaluation"]),
            content["kind"],
            content["weights"],
            content["unit"],
            tuple(content.get("higher", ())),
            content.get("scale", "none"),
            content.get("spreads"),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the objective as plain values."""
        return {
            "kind": self.kind,
            "weights": dict(self.weights),
            "unit": self.unit,
            "evaluation": list(self.evaluation),
            "higher": list(self.higher),
            "scale": self.scale,
            "spreads": None if self.spreads is None else dict(self.spreads),
        }

    def scaled(self, spreads: Mapping[str, float]) -> Objective:
        """Return the objective with the spreads that its losses are divided by.

        Args:
            spreads: Standard deviation of each measured loss over the trials, > 0; others are
                left out.

        Raises:
            ConfigError: A measured loss without a spread, or one that is not above 0.
        """
        kept = {name: float(spreads[name]) for name in self.measured if name in spreads}
        return replace(self, scale="spread", spreads=kept)

    @property
    def measured(self) -> tuple[str, ...]:
        """Evaluation domains that the objective depends on."""
        return tuple(self.weights)

    @property
    def columns(self) -> list[int]:
        """Positions of the measured evaluation domains among all."""
        return [self.evaluation.index(name) for name in self.weights]

    def only_measured(self) -> Objective:
        """Return the same objective over the measured evaluation domains alone, in their order."""
        return self.over(self.measured)

    def over(self, evaluation: Sequence[str]) -> Objective:
        """Return the same objective over some evaluation domains, the measured ones among them."""
        higher = tuple(name for name in self.higher if name in evaluation)
        return replace(self, evaluation=tuple(evaluation), higher=higher)

    @property
    def signs(self) -> Array:
        """1 for each loss and -1 for each metric of which higher is better, shape (M,)."""
        return np.array([-1.0 if name in self.higher else 1.0 for name in self.evaluation])

    @property
    def value_unit(self) -> str:
        """Unit of the objective: that of the losses, `standard_deviations` or `metric_units`."""
        if self.scale == "spread":
            return "standard_deviations"
        return "metric_units" if any(name in self.higher for name in self.weights) else self.unit

    def pieces(self) -> Array:
        """Weighted sums whose maximum is the objective, shape (P, M).

        Raises:
            ConfigError: The spreads are missing; see `scaled`.
        """
        if self.scale == "spread" and self.spreads is None:
            raise ConfigError("objective.scale: spread: the spreads of the trials are missing")
        weights_M = np.zeros(len(self.evaluation))
        for name, column in zip(self.weights, self.columns, strict=True):
            weights_M[column] = self.weights[name] / (self.spreads or {}).get(name, 1.0)
        weights_M *= self.signs
        return np.diag(weights_M)[self.columns] if self.kind == "worst" else weights_M[None]

    def value(self, losses_NM: ArrayLike) -> Array:
        """Return the objective of each row of losses, shape (N,)."""
        values_NP = self._columns(losses_NM) @ self._small_pieces.T
        value: Array = values_NP.max(axis=1)
        return value

    def spread(self, stds_NM: ArrayLike) -> Array:
        """Return a deviation of the objective from those of the losses, shape (N,).

        Errors are taken to go together, which is the most that they can add up to.
        """
        spreads_NP = self._columns(stds_NM) @ np.abs(self._small_pieces).T
        spread: Array = spreads_NP.max(axis=1)
        return spread

    def gradient(self, losses_M: ArrayLike) -> Array:
        """Return a subgradient by the losses, shape (M,): how much each moves the objective."""
        losses = np.asarray(losses_M, dtype=np.float64)
        pieces_PM = self.pieces()
        active = int(np.argmax(self._columns(losses[None])[0] @ self._small_pieces.T))
        return np.array(pieces_PM[active])

    def describe(self) -> str:
        """Say in words what is minimised."""
        higher = [name for name in self.measured if name in self.higher]
        better = f" (higher {_listed(higher)} is better)" if higher else ""
        divided = ", each divided by its spread over the trials" if self.scale == "spread" else ""
        return f"{self._combined()}{better}{divided}"

    def _combined(self) -> str:
        signed = {name: f"minus {name}" if name in self.higher else name for name in self.weights}
        if self.kind == "target":
            return signed[self.measured[0]]
        if self.kind == "worst":
            return f"the worst of {_listed(signed.values())}"
        if len(set(self.weights.values())) == 1:
            return f"the mean of {_listed(signed.values())}"
        return (
            f"the mean of {_listed(f'{w:.3g} {signed[name]}' for name, w in self.weights.items())}"
        )

    def _check_worst(self) -> None:
        higher = [name for name in self.weights if name in self.higher]
        if self.kind == "worst" and higher and len(higher) < len(self.weights):
            raise ConfigError(
                f"objective.worst: higher is better of {_listed(higher)} and lower of the others,"
                " which cannot be compared; use objective.mean with objective.scale: spread"
            )

    def _check_spreads(self) -> None:
        if self.spreads is None:
            return
        for name in self.weights:
            if not self.spreads.get(name, 0.0) > 0:
                raise ConfigError(
                    f"objective.scale: spread: the spread of {name!r} is"
                    f" {self.spreads.get(name, 'missing')}; it must be above 0: leave {name!r} out"
                )

    @property
    def _small_pieces(self) -> Array:
        return self.pieces()[:, self.columns]

    def _columns(self, losses_NM: ArrayLike) -> Array:
        # Only measured columns: another domain's missing loss must not reach the value.
        columns: Array = np.asarray(losses_NM, dtype=np.float64)[:, self.columns]
        return columns


def _kind_and_weights(config: ObjectiveConfig) -> tuple[Kind, dict[str, float]]:
    if config.target is not None:
        return "target", {config.target: 1.0}
    if config.mean is not None:
        total = sum(config.mean.values()) or 1.0
        return "mean", {name: weight / total for name, weight in config.mean.items()}
    return "worst", dict.fromkeys(config.worst or (), 1.0)


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
