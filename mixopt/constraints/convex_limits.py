"""Convex limits on mixtures: a radius around a mixture, or a class of somebody else's.

A convex limit is `value(weights) <= upper` with a convex `value`. A new one is one class, named by
an entry point in the group `mixopt.constraints`, or as `package.module:Name`:

    class MyLimit(ConvexLimit):
        def __init__(self, natural, *, minimum): ...   # `natural` is given, options are from YAML
        def value(self, weights_ND): ...
        def gradient(self, weights_D): ...
        def describe(self): ...

    constraints: {convex: {my_limit: {minimum: 1.5}}}

Searches keep it, designs ignore it. `mixopt.testing.check_convex_limit` checks its promises.

Total variation, half the sum of absolute differences, is the share of the tokens that change
domain. KL(w || r) = sum_j w_j log(w_j / r_j), in nats, depends on the factor by which a domain
grows: a rare domain cannot become common, and a domain absent from the reference stays absent.

Shapes: N mixtures, D domains, R rows, C cells of phases, U further variables.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from mixopt.constraints.limits import BROKEN, up
from mixopt.errors import ConfigError, PluginError
from mixopt.mixture import Mixture, Phases, total_variation
from mixopt.system import Array, build_plugin

RADIUS = "constraints.radius"
CONVEX = "constraints.convex"
NEAR = 2e-3  # distance from its bound within which a limit is active, relative to the bound
SOLVED = 1e-6  # relative error of a lowest value that a solver found
MIN_SOLVED = 1e-9  # the same error in the unit of the value, for bounds near 0
MIN_WEIGHT = 1e-12  # weight at which gradients are clipped: they are unbounded at 0


class LinearForm(NamedTuple):
    """A convex limit as linear rows over the weights w and further variables u in [0, 1].

    `value(w) <= v` if and only if some u satisfies
    `weights_RD . w + further_RU . u <= upper_R + v per_value_R`; such a u of w is `further_at(w)`.
    """

    weights_RD: Array
    further_RU: Array
    upper_R: Array
    per_value_R: Array
    further_at: Callable[[Array], Array]


class ConvexLimit(ABC):
    """A limit `value(weights) <= upper`, where `value` is convex and has a gradient.

    `value`, `gradient`, `describe` and the attribute `upper` are required. A configuration creates
    the limit with the natural mixture as `natural`, and its options by name; the order of domains
    is that of `natural`. The other methods have defaults.

    Attributes:
        upper: Maximum of the value.
        source: Field of the limit; set by mixopt.
    """

    upper: float
    source: str = CONVEX

    @abstractmethod
    def value(self, weights_ND: Array) -> Array:
        """Return the value of each mixture, shape (N,); inf where it is not allowed at any bound.

        Weights that should be 0 may be below 0 by rounding.
        """

    @abstractmethod
    def gradient(self, weights_D: Array) -> Array:
        """Return the gradient of the value at a mixture, shape (D,), finite also at 0."""

    @abstractmethod
    def describe(self) -> str:
        """Return the limit in a few words: `entropy >= 1.5 nats`."""

    def hint(self, value: float) -> str | None:
        """Return the change of a setting that allows a value: `allow minimum: 1.2`.

        None: unknown, and messages suggest other changes.
        """
        return None

    @property
    def center_D(self) -> Array | None:
        """A mixture with a low value, from which solvers start; None: unknown."""
        return None

    @property
    def linear_form(self) -> LinearForm | None:
        """The limit as linear rows, which solvers prefer to the gradient; None: not linear."""
        return None

    def upper_bounds(self, upper_D: Array) -> Array:
        """Return upper bounds of the weights, lowered to those that the limit implies."""
        return upper_D

    def over_phases(self, phases: Phases, domains: Sequence[str]) -> "ConvexLimit":
        """Return the limit on cells: it applies to shares over all phases."""
        is_cell_of_CD = np.tile(np.eye(len(domains)), (len(phases), 1))
        return OverPhases(self, is_cell_of_CD)

    def violation(self, weights_D: Array) -> str | None:
        """Return why a mixture is not allowed, with a fix if there is one; None: it is allowed."""
        value = self.value_at(weights_D)
        excess = value - self.upper
        if excess <= BROKEN:
            return None
        hint = self.hint(value)
        fix = "" if hint is None else f"; {hint}"
        return f"the mixture breaks {self.describe()} ({self.source}) by {excess:.4g}{fix}."

    def is_active(self, weights_D: Array) -> bool:
        """Return whether the value of a mixture is at its bound."""
        near = NEAR * abs(self.upper) or BROKEN
        return abs(self.value_at(weights_D) - self.upper) <= near

    def is_met(self, weights_D: Array) -> bool:
        """Return whether a solver's mixture meets the limit, up to the solver's error."""
        error = SOLVED * abs(self.upper) + MIN_SOLVED
        return bool(self.value_at(weights_D) <= self.upper + error)

    def value_at(self, weights_D: Array) -> float:
        """Return the value of one mixture."""
        return float(self.value(weights_D[None])[0])

    def with_upper(self, upper: float) -> Self:
        """Return the same limit with another bound."""
        limit = copy(self)
        object.__setattr__(limit, "upper", upper)
        return limit


@dataclass(frozen=True)
class Radius(ConvexLimit):
    """The maximum distance of a mixture from a reference.

    Attributes:
        reference: The reference mixture.
        name: Name of the reference in messages.
        upper: Maximum distance.
    """

    reference: Mixture
    name: str
    upper: float
    source = RADIUS
    kind: ClassVar[Literal["kl", "tv"]]
    words: ClassVar[str]

    @cached_property
    def center_D(self) -> Array:
        """The weights of the reference, shape (D,)."""
        return self.reference.array

    def describe(self) -> str:
        """Return the limit in a few words: `KL divergence from natural <= 0.1`."""
        return f"{self.words} from {self.name} <= {self.upper:.3g}"

    def hint(self, value: float) -> str:
        """Return the radius that allows a distance."""
        return f"allow radius.{self.kind}: {up(value)}"

    def violation(self, weights_D: Array) -> str | None:
        """Return why a mixture is not allowed, with a fix; None: it is allowed."""
        value = self.value_at(weights_D)
        if value <= self.upper + BROKEN:
            return None
        allow = f", or allow {self.kind}: {up(value)}" if np.isfinite(value) else ""
        return (
            f"the mixture is {value:.4g} ({self.words}) from {self.name}; "
            f"{RADIUS}.{self.kind} is {self.upper:g}. Move it closer{allow}."
        )

    def over_phases(self, phases: Phases, domains: Sequence[str]) -> ConvexLimit:
        """Return the radius around the reference in all phases."""
        return replace(self, reference=phases.tied(self.reference))


@dataclass(frozen=True)
class KLRadius(Radius):
    """The maximum KL divergence from a reference, in nats."""

    kind = "kl"
    words = "KL divergence"

    def value(self, weights_ND: ArrayLike) -> Array:
        """Return the divergence of each mixture from the reference, shape (N,)."""
        weights = np.maximum(np.asarray(weights_ND, float), 0.0)
        ratio_ND = np.where(weights > 0, weights, 1.0) / self._safe_D
        terms_ND = weights * np.where(weights > 0, np.log(ratio_ND), 0.0)
        outside_N = (weights[:, self.center_D == 0] > MIN_WEIGHT).any(axis=1)
        return np.where(outside_N, np.inf, terms_ND.sum(axis=1))

    def gradient(self, weights_D: Array) -> Array:
        """Return the gradient of the divergence at a mixture, shape (D,)."""
        slope_D = np.log(np.maximum(weights_D, MIN_WEIGHT) / self._safe_D) + 1.0
        return np.where(self.center_D > 0, slope_D, 0.0)

    def upper_bounds(self, upper_D: Array) -> Array:
        """Return upper bounds that are 0 for domains absent from the reference."""
        return np.where(self.center_D > 0, upper_D, 0.0)

    @property
    def _safe_D(self) -> Array:
        return np.where(self.center_D > 0, self.center_D, 1.0)


@dataclass(frozen=True)
class TotalVariationRadius(Radius):
    """The maximum total variation from a reference: the share of tokens that change domain."""

    kind = "tv"
    words = "total variation"

    def value(self, weights_ND: ArrayLike) -> Array:
        """Return the total variation of each mixture from the reference, shape (N,)."""
        return total_variation(np.asarray(weights_ND, float), self.center_D)

    def gradient(self, weights_D: Array) -> Array:
        """Return a subgradient of the total variation at a mixture, shape (D,)."""
        return 0.5 * np.sign(weights_D - self.center_D)

    @cached_property
    def linear_form(self) -> LinearForm:
        """The rows u >= w - reference, u >= reference - w and sum u <= 2 v."""
        domains = len(self.center_D)
        eye_DD = np.eye(domains)
        none_1D = np.zeros((1, domains))
        return LinearForm(
            weights_RD=np.vstack([eye_DD, -eye_DD, none_1D]),
            further_RU=np.vstack([-eye_DD, -eye_DD, np.ones((1, domains))]),
            upper_R=np.concatenate([self.center_D, -self.center_D, np.zeros(1)]),
            per_value_R=np.append(np.zeros(2 * domains), 2.0),
            further_at=lambda weights_D: np.abs(weights_D - self.center_D),
        )


class OverPhases(ConvexLimit):
    """A convex limit on each domain's share over all phases."""

    def __init__(self, limit: ConvexLimit, is_cell_of_CD: Array) -> None:
        """Apply a limit on mixtures of domains to mixtures of cells.

        Args:
            limit: The limit on mixtures of domains.
            is_cell_of_CD: 1 where a cell is of a domain, else 0.
        """
        self.limit = limit
        self.is_cell_of_CD = is_cell_of_CD
        self.upper = limit.upper
        self.source = limit.source

    def value(self, weights_NC: Array) -> Array:
        """Return the value of each mixture's shares over all phases, shape (N,)."""
        return self.limit.value(weights_NC @ self.is_cell_of_CD)

    def gradient(self, weights_C: Array) -> Array:
        """Return the gradient at a mixture of cells, shape (C,)."""
        return self.is_cell_of_CD @ self.limit.gradient(weights_C @ self.is_cell_of_CD)

    def describe(self) -> str:
        """Return the limit in a few words."""
        return self.limit.describe()

    def hint(self, value: float) -> str | None:
        """Return the change of a setting that allows a value."""
        return self.limit.hint(value)

    def upper_bounds(self, upper_C: Array) -> Array:
        """Return upper bounds of cells, lowered to those of their domains."""
        domains = self.is_cell_of_CD.shape[1]
        upper_D = self.limit.upper_bounds(np.ones(domains))
        return np.minimum(upper_C, self.is_cell_of_CD @ upper_D)

    def violation(self, weights_C: Array) -> str | None:
        """Return why a mixture of cells is not allowed; None: it is allowed."""
        return self.limit.violation(weights_C @ self.is_cell_of_CD)


def named_limit(name: str, options: Mapping[str, Any], natural: Mixture) -> ConvexLimit:
    """Return the convex limit of an entry point in `mixopt.constraints`, or of `module:Name`.

    Args:
        name: Its name.
        options: Its parameters by name.
        natural: The natural mixture, which it gets as `natural`.

    Raises:
        PluginError: An unknown name, or not a convex limit.
        ConfigError: An unknown or invalid option.
    """
    source = f"{CONVEX}.{name}"
    try:
        limit = build_plugin("constraint", name, options, {"natural": natural})
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from error
    if not isinstance(limit, ConvexLimit):
        raise PluginError(
            f"constraint {name!r}: {type(limit).__name__} is not derived from"
            " mixopt.constraints.ConvexLimit"
        )
    object.__setattr__(limit, "source", source)
    return limit
