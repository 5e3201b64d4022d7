"""What is minimised: one evaluation domain's loss, a weighted mean of several, or the worst.

Each is the largest of a few weighted sums of losses ("pieces"): a target and a mean have one
piece, the worst domain has a piece for each. That gives one formula for values, subgradients, and
the constrained search. The loss of an aggregate is always computed from the losses by domain,
never fitted itself: a law fitted to the mean of several domains misses that each wants its own
share.

Shapes: N mixtures, M evaluation domains, P pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixopt.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from mixopt.config import ObjectiveConfig

Array = NDArray[np.float64]
Unit = Literal["nats_per_token", "bits_per_byte"]
Kind = Literal["target", "mean", "worst"]


@dataclass(frozen=True)
class Objective:
    """A number to minimise, made from losses by evaluation domain.

    Attributes:
        evaluation: All evaluation domains, in the order of the losses' columns.
        kind: How the losses become one number.
        weights: Weight of each measured evaluation domain; adds up to 1 for a mean, and is 1
            each otherwise.
        unit: Unit of the losses.

    Raises:
        ConfigError: An evaluation domain that is not there.
    """

    evaluation: tuple[str, ...]
    kind: Kind
    weights: Mapping[str, float]
    unit: Unit = "bits_per_byte"

    def __post_init__(self) -> None:
        for name in self.weights:
            if name not in self.evaluation:
                near = did_you_mean(name, self.evaluation)
                raise ConfigError(
                    f"objective.{self.kind}: unknown evaluation domain {name!r}{near}"
                )
        if not self.weights:
            raise ConfigError(f"objective.{self.kind}: needs at least one evaluation domain")

    @classmethod
    def from_config(cls, config: ObjectiveConfig, evaluation: Sequence[str]) -> Objective:
        """Build the objective that a configuration states.

        Args:
            config: Exactly one of target, mean and worst, and the unit.
            evaluation: Evaluation domains, in the order of the losses' columns.

        Raises:
            ConfigError: An evaluation domain that is not there.
        """
        names = tuple(evaluation)
        if config.target is not None:
            return cls(names, "target", {config.target: 1.0}, config.unit)
        if config.mean is not None:
            total = sum(config.mean.values()) or 1.0
            shares = {name: weight / total for name, weight in config.mean.items()}
            return cls(names, "mean", shares, config.unit)
        return cls(names, "worst", dict.fromkeys(config.worst or (), 1.0), config.unit)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Objective:
        """Build the objective that `to_json` described."""
        return cls(
            tuple(content["evaluation"]), content["kind"], content["weights"], content["unit"]
        )

    def to_json(self) -> dict[str, Any]:
        """Return the objective as plain values."""
        return {
            "kind": self.kind,
            "weights": dict(self.weights),
            "unit": self.unit,
            "evaluation": list(self.evaluation),
        }

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
        return Objective(self.measured, self.kind, self.weights, self.unit)

    def pieces(self) -> Array:
        """Weighted sums whose maximum is the objective, shape (P, M)."""
        weights_M = np.zeros(len(self.evaluation))
        weights_M[self.columns] = list(self.weights.values())
        return np.diag(weights_M)[self.columns] if self.kind == "worst" else weights_M[None]

    def value(self, losses_NM: ArrayLike) -> Array:
        """Return the objective of each row of losses, shape (N,)."""
        values_NP = self._columns(losses_NM) @ self._small_pieces.T
        value: Array = values_NP.max(axis=1)
        return value

    def gradient(self, losses_M: ArrayLike) -> Array:
        """Return a subgradient by the losses, shape (M,): how much each moves the objective."""
        losses = np.asarray(losses_M, dtype=np.float64)
        pieces_PM = self.pieces()
        active = int(np.argmax(self._columns(losses[None])[0] @ self._small_pieces.T))
        return np.array(pieces_PM[active])

    def describe(self) -> str:
        """Say in words what is minimised."""
        if self.kind == "target":
            return self.measured[0]
        if self.kind == "worst":
            return f"the worst of {_listed(self.measured)}"
        if len(set(self.weights.values())) == 1:
            return f"the mean of {_listed(self.measured)}"
        return f"the mean of {_listed(f'{w:.3g} {name}' for name, w in self.weights.items())}"

    @property
    def _small_pieces(self) -> Array:
        return self.pieces()[:, self.columns]

    def _columns(self, losses_NM: ArrayLike) -> Array:
        # Only measured columns: another domain's missing loss must not reach the value.
        columns: Array = np.asarray(losses_NM, dtype=np.float64)[:, self.columns]
        return columns


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
