"""Limits on mixtures: of domains and groups, fixed ratios, and a radius around a mixture.

A limit that follows from a setting (max_epochs: 4) is `setting x rate`, so that a message can say
the setting at which a weight would be allowed. Numbers in messages are rounded to the safe side.

Total variation, half the sum of absolute differences, is the share of the tokens that change
domain. KL(w || r) = sum_j w_j log(w_j / r_j), in nats, depends on how many times over a domain is
raised: a rare one may not become common, and one that the reference lacks stays out.

Shapes: N mixtures, D domains, R rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import ConfigError, did_you_mean
from mixopt.mixture import Mixture, total_variation
from mixopt.system import Array, short_count

TOLERANCE = 1e-6  # by which a limit may be missed


@dataclass(frozen=True)
class LinearLimit:
    """The most, or the least, that a domain or a group of domains may have.

    Attributes:
        domains: The domain, or those of the group.
        value: Their share, in [0, 1].
        source: The field that it comes from, such as `constraints.bounds`.
        group: Name of the group; None for a domain.
        is_floor: Whether `value` is the least.
        setting: What the field is set to, where the limit scales with it.
        rate: Share for each unit of the setting; 0 where there is none.
        inventory: Tokens of the domain, where the setting is epochs.
        target_tokens: Length of the run, where the setting is epochs.
    """

    domains: tuple[str, ...]
    value: float
    source: str
    group: str | None = None
    is_floor: bool = False
    setting: float | None = None
    rate: float = 0.0
    inventory: int = 0
    target_tokens: int = 0

    @property
    def text(self) -> str:
        """The limit in short: `europarl <= 0.157`."""
        name = self.domains[0] if self.group is None else f"group {self.group}"
        return f"{name} {'>=' if self.is_floor else '<='} {self.value:.3g}"

    @property
    def origin(self) -> str:
        """The source with its setting: `constraints.max_epochs: 4`."""
        return self.source if self.setting is None else f"{self.source}: {self.setting:g}"

    @property
    def is_open(self) -> bool:
        """Whether every mixture meets it."""
        return self.value <= 0 if self.is_floor else self.value >= 1

    @property
    def moves_with(self) -> str:
        """What a user changes to move it: a setting, or one side of bounds."""
        if self.rate:
            return self.source
        domain = f" {self.domains[0]}" if self.group is None else ""
        return f"{self.source}{domain} {'least' if self.is_floor else 'most'}"

    @property
    def sign(self) -> float:
        """Turns a share into what may not exceed `sign * value`."""
        return -1.0 if self.is_floor else 1.0

    def row(self, domains: Sequence[str]) -> Array:
        """Return the row whose product with a mixture may not exceed `sign * value`."""
        return self.sign * np.array([1.0 if name in self.domains else 0.0 for name in domains])

    def share(self, weights: Mapping[str, float]) -> float:
        """Return what the domains have in a mixture."""
        return sum(weights[name] for name in self.domains)

    def violation(self, weights: Mapping[str, float]) -> str | None:
        """Say why a mixture is not allowed, and how to fix it; None where it is."""
        share = self.share(weights)
        if self.sign * (share - self.value) <= TOLERANCE:
            return None
        kind, what = ("domain", "weight") if self.group is None else ("group", "share")
        who = f"{kind} {self.group or self.domains[0]!r}: a {what} of {share:.4g}"
        if self.target_tokens and not self.inventory:
            return f"{who} needs training tokens, and the domain has none. Set it to 0."
        side, bound = ("below", "minimum") if self.is_floor else ("above", "maximum")
        why = f"is {side} {self.value:.4g}, the {bound} set by {self.origin}"
        if self.target_tokens:
            why = (
                f"of {short_count(self.target_tokens)} tokens needs"
                f" {share * self.target_tokens / self.inventory:.3g} epochs of its"
                f" {short_count(self.inventory)} tokens; {self.source} is {self.setting:g}"
            )
        move = f"Lower it to <= {down(self.value)}"
        allow = f"{down(share) if self.is_floor else up(share)} in {self.source}"
        if self.is_floor:
            move = f"Raise it to >= {up(self.value, 4)}"
        elif self.rate:
            allow = f"{self._field}: {up(share / self.rate)}"
        return f"{who} {why}. {move}, or allow {allow}."

    def hint(self, change: float) -> str:
        """Say the change of its setting that is enough.

        Args:
            change: How far the value has to move; in multiples of the setting where it scales.
        """
        name, where = (
            (self.domains[0], f" in {self.source}") if self.group is None else (self.source, "")
        )
        if self.is_floor:
            return f"lower the minimum of {name} to {down(max(self.value - change, 0.0))}{where}"
        if self.target_tokens and not self.inventory:
            return f"give {name} training tokens: it has none"
        if not self.rate:
            return f"raise the maximum of {name} to {up(self.value + change)}{where}"
        setting = change * (self.setting or 1.0)
        hint = f"allow {self._field}: {up(setting)}"
        if not self.target_tokens or not setting:
            return hint
        run = self.target_tokens * (self.setting or 0.0) / setting
        return f"{hint} (or a run of {short_count(float(down(run, 3)))} tokens)"

    @property
    def _field(self) -> str:
        """The source without its section: `max_epochs` of `constraints.max_epochs`."""
        return self.source.partition(".")[2]


def cap(
    domain: str, value: float, source: str, *, setting: float | None = None, rate: float = 0.0
) -> LinearLimit:
    """Return the most that a domain may have; `setting x rate`, at most 1, where it has a rate."""
    return LinearLimit((domain,), min(value, 1.0), source, setting=setting, rate=rate)


def floor(domain: str, value: float, source: str, *, setting: float | None = None) -> LinearLimit:
    """Return the least that a domain may have."""
    return LinearLimit((domain,), value, source, is_floor=True, setting=setting)


def up(value: float, digits: int = 3) -> str:
    """Write a number >= 0, rounded up to so many digits."""
    return _rounded(value, Context(prec=digits, rounding=ROUND_CEILING))


def down(value: float, digits: int = 4) -> str:
    """Write a number >= 0, rounded down to so many digits."""
    return _rounded(value, Context(prec=digits, rounding=ROUND_FLOOR))


def _rounded(value: float, context: Context) -> str:
    # Nine digits first: 8.000000000000002 is 8, not 8.01.
    return f"{float(context.create_decimal(Decimal(f'{value:.9g}'))):.{context.prec}g}"


@dataclass(frozen=True)
class Proportions:
    """Domains that keep the same ratios to each other."""

    ratios: Mapping[str, float]
    source: str

    @classmethod
    def of(cls, weights: Mapping[str, float], known: Sequence[str], source: str) -> Proportions:
        """Return the ratios of weights."""
        for domain in weights:
            if domain not in known:
                near = did_you_mean(domain, known)
                raise ConfigError(f"{source}: unknown domain {domain!r}{near}")
        total = float(sum(weights.values()))
        if not total > 0:
            raise ConfigError(f"{source}: the domains have no tokens: give their weights")
        return cls({domain: weights[domain] / total for domain in weights}, source)

    def rows(self, domains: Sequence[str]) -> Array:
        """Return the rows that are 0 for every mixture in these ratios, shape (R, D)."""
        members_D = np.array([1.0 if name in self.ratios else 0.0 for name in domains])
        places = [domains.index(name) for name in self.ratios][:-1]
        rows_RD = np.zeros((len(places), len(domains)))
        for row, place in enumerate(places):
            rows_RD[row] = -self.ratios[domains[place]] * members_D
            rows_RD[row, place] += 1.0
        return rows_RD

    def violation(self, weights: Mapping[str, float]) -> str | None:
        """Say why a mixture is not allowed; None where it is in these ratios."""
        total = sum(weights[name] for name in self.ratios)
        for name, ratio in self.ratios.items():
            if abs(weights[name] - ratio * total) > TOLERANCE:
                return (
                    f"domain {name!r}: a weight of {weights[name]:.4g} is not in the ratios of"
                    f" {self.source}: {down(ratio * total)} of the {total:.4g} of its set."
                )
        return None


NEAR = 2e-3  # share of the size within which a mixture counts as held by a radius
MISSED = 1e-6  # share of the size by which the least value may be missed
MIN_WEIGHT = 1e-12  # weight below which a slope stays what it is there: at 0 it has no bound
WORDS = {"kl": "KL divergence", "tv": "total variation"}


@dataclass(frozen=True)
class ConvexLimit:
    """A limit on a convex function of the mixture: how far it may be from a reference.

    A least entropy is one: log D less the divergence from uniform.

    Attributes:
        reference: The mixture.
        name: What messages call it.
        kind: The divergence, or total variation, which has kinks: solvers make it linear.
        size: The most that the distance may be.
        is_entropy: Whether it was set as a least entropy.
    """

    reference: Mixture
    name: str
    kind: Literal["kl", "tv"]
    size: float
    is_entropy: bool = False

    @classmethod
    def of_entropy(cls, domains: Sequence[str], least: float) -> ConvexLimit:
        """Return the limit of a least entropy in nats.

        Raises:
            ConfigError: Not even the uniform mixture has as much.
        """
        most = math.log(len(domains))
        if least >= most:
            raise ConfigError(
                f"constraints.min_entropy: {least:g} is not below {most:.4g}, the entropy"
                f" of {len(domains)} equal shares"
            )
        return cls(Mixture.uniform(domains), "uniform", "kl", most - least, is_entropy=True)

    @cached_property
    def center_D(self) -> Array:
        """The weights of the reference, shape (D,)."""
        return self.reference.array

    @property
    def source(self) -> str:
        """The field that it comes from."""
        return f"constraints.{'min_entropy' if self.is_entropy else 'radius'}"

    @property
    def setting(self) -> float:
        """What the field is set to: the most distance, or the least entropy in nats."""
        return self._as_set(self.size)

    @property
    def text(self) -> str:
        """The limit in short."""
        if self.is_entropy:
            return f"entropy >= {self.setting:.3g}"
        return f"{WORDS[self.kind]} from {self.name} <= {self.size:.3g}"

    def value(self, weights_ND: ArrayLike) -> Array:
        """Return how far each mixture is from the reference, shape (N,)."""
        weights = np.asarray(weights_ND, dtype=np.float64)
        if self.kind == "tv":
            return total_variation(weights, self.center_D)
        weights = np.maximum(weights, 0.0)
        ratio_ND = np.where(weights > 0, weights, 1.0) / self._safe_D
        terms_ND = weights * np.where(weights > 0, np.log(ratio_ND), 0.0)
        outside_N = (weights[:, self.center_D == 0] > MIN_WEIGHT).any(axis=1)
        divergence: Array = np.where(outside_N, np.inf, terms_ND.sum(axis=1))
        return divergence

    def slope(self, weights_D: Array) -> Array:
        """Return the gradient of the divergence at a mixture, shape (D,)."""
        slope_D = np.log(np.maximum(weights_D, MIN_WEIGHT) / self._safe_D) + 1.0
        return np.where(self.center_D > 0, slope_D, 0.0)

    def within(self, upper_D: Array) -> Array:
        """Return the most of each domain: what the reference lacks stays out of a divergence."""
        return np.where(self.center_D > 0, upper_D, 0.0) if self.kind == "kl" else upper_D

    def allows(self, weights_D: Array) -> bool:
        """Tell whether a nearest mixture is within the size, to the accuracy of finding it."""
        return bool(self._of(weights_D) <= self.size * (1.0 + MISSED) + MISSED**1.5)

    def binds(self, weights_D: Array) -> bool:
        """Tell whether it is an active constraint of a mixture."""
        return abs(self._of(weights_D) - self.size) <= NEAR * self.size

    def enough(self, weights_D: Array) -> str:
        """Write the setting that allows a mixture."""
        return self._allow(self._of(weights_D))

    def violation(self, weights_D: Array) -> str | None:
        """Say why a mixture is not allowed, and how to fix it; None where it is."""
        value = self._of(weights_D)
        if value <= self.size + TOLERANCE:
            return None
        if self.is_entropy:
            entropy = self._as_set(value)
            return (
                f"the mixture's entropy is {entropy:.4g} ({math.exp(entropy):.3g} effective"
                f" domains); {self.source} is {self.setting:g}. Spread it more evenly, or allow"
                f" {self._allow(value)}."
            )
        allow = f", or allow {self.kind}: {up(value)}" if np.isfinite(value) else ""
        return (
            f"the mixture is {value:.4g} ({WORDS[self.kind]}) from {self.name}; "
            f"{self.source}.{self.kind} is {self.size:g}. Move it closer{allow}."
        )

    def _of(self, weights_D: Array) -> float:
        return float(self.value(weights_D[None])[0])

    def _as_set(self, value: float) -> float:
        return math.log(len(self.center_D)) - value if self.is_entropy else value

    def _allow(self, value: float) -> str:
        if self.is_entropy:
            return f"min_entropy: {down(max(self._as_set(value), 0.0), 3)}"
        return f"radius.{self.kind}: {up(value)}"

    @property
    def _safe_D(self) -> Array:
        return np.where(self.center_D > 0, self.center_D, 1.0)
