"""Limits on mixtures: linear ones of domains and groups, fixed ratios, and convex ones.

A limit that follows from a setting (max_epochs: 4) is `setting x rate`, so that a message can say
the setting at which a weight would be allowed. Numbers in messages are rounded to the safe side.

Total variation, half the sum of absolute differences, is the share of the tokens that change
domain. KL(w || r) = sum_j w_j log(w_j / r_j), in nats, depends on how many times over a domain is
raised: a rare one may not become common, and one that the reference lacks stays out.

Shapes: N mixtures, D domains, R rows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import ConfigError, did_you_mean
from mixopt.mixture import Mixture, total_variation
from mixopt.system import Array, BoolArray


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

    def violation(self, weights: Mapping[str, float], tolerance: float) -> str | None:
        """Say why a mixture is not allowed, and how to fix it; None where it is."""
        share = self.share(weights)
        if self.sign * (share - self.value) <= tolerance:
            return None
        kind = "domain" if self.group is None else "group"
        return f"{kind} {self.group or self.domains[0]!r}: {self.refusal(share)}"

    def refusal(self, share: float) -> str:
        """Say why a share is not allowed, and how to fix it."""
        what = "weight" if self.group is None else "share"
        if self.target_tokens:
            if not self.inventory:
                return (
                    f"a weight of {share:.4g} needs training tokens, and the domain has none. Set"
                    " it to 0."
                )
            epochs = share * self.target_tokens / self.inventory
            why = (
                f"of {token_text(self.target_tokens)} tokens needs {epochs:.3g} epochs of its"
                f" {token_text(self.inventory)} tokens; {self.source} is {self.setting:g}"
            )
        else:
            side = "below" if self.is_floor else "above"
            bound = "minimum" if self.is_floor else "maximum"
            why = f"is {side} {self.value:.4g}, the {bound} set by {self.origin}"
        return f"a {what} of {share:.4g} {why}. {self._fix(share)}"

    def _fix(self, share: float) -> str:
        if self.is_floor:
            move, allow = f"Raise it to >= {up(self.value, 4)}", down(share)
        else:
            move, allow = f"Lower it to <= {down(self.value)}", up(share)
        if self.rate:
            return f"{move}, or allow {inside_section(self.source)}: {up(share / self.rate)}."
        return f"{move}, or allow {allow} in {self.source}."

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
        hint = f"allow {inside_section(self.source)}: {up(setting)}"
        if not self.target_tokens or not setting:
            return hint
        run = self.target_tokens * (self.setting or 0.0) / setting
        return f"{hint} (or a run of {token_text(float(down(run, 3)))} tokens)"


def cap(
    domain: str, value: float, source: str, *, setting: float | None = None, rate: float = 0.0
) -> LinearLimit:
    """Return the most that a domain may have; `setting x rate`, at most 1, where it has a rate."""
    return LinearLimit((domain,), min(value, 1.0), source, setting=setting, rate=rate)


def floor(domain: str, value: float, source: str, *, setting: float | None = None) -> LinearLimit:
    """Return the least that a domain may have."""
    return LinearLimit((domain,), value, source, is_floor=True, setting=setting)


def epoch_cap(
    domain: str,
    inventory: int,
    max_epochs: float,
    target_tokens: int,
    source: str = "constraints.max_epochs",
) -> LinearLimit:
    """Return the largest weight at which `domain` is repeated at most `max_epochs` times."""
    rate = inventory / target_tokens
    return LinearLimit(
        (domain,),
        min(max_epochs * rate, 1.0),
        source,
        setting=max_epochs,
        rate=rate if inventory else 0.0,
        inventory=inventory,
        target_tokens=target_tokens,
    )


def inside_section(source: str) -> str:
    """Return a dotted field without its section: `max_epochs` of `constraints.max_epochs`."""
    return source.partition(".")[2]


def token_text(count: float) -> str:
    """Write a number of tokens for reading: 25B, 0.98B, 410M, 1.2k."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9 * size:
            return f"{count / size:.3g}{unit}"
    return f"{count:g}"


def up(value: float, digits: int = 3) -> str:
    """Write a number >= 0, rounded up to so many digits."""
    return _rounded(value, Context(prec=digits, rounding=ROUND_CEILING))


def down(value: float, digits: int = 4) -> str:
    """Write a number >= 0, rounded down to so many digits."""
    return _rounded(value, Context(prec=digits, rounding=ROUND_FLOOR))


def _rounded(value: float, context: Context) -> str:
    # Nine digits first: 8.000000000000002 is 8, not 8.01.
    return f"{float(context.create_decimal(Decimal(f'{value:.9g}'))):.{context.prec}g}"


RATIO_TOLERANCE = 1e-6  # by which a share may be off its ratio


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
            if abs(weights[name] - ratio * total) > RATIO_TOLERANCE:
                return (
                    f"domain {name!r}: a weight of {weights[name]:.4g} is not in the ratios of"
                    f" {self.source}: {down(ratio * total)} of the {total:.4g} of its set."
                )
        return None


NEAR = 2e-3  # share of the size within which a mixture counts as held by a convex limit
MISSED = 1e-6  # share of the size by which the least value may be missed
MIN_WEIGHT = 1e-12  # weight below which a slope stays what it is there: at 0 it has no bound


class ConvexLimit(ABC):
    """A convex function of the mixture that may not exceed a size.

    Attributes:
        size: The most that it may be.
        source: The field that it comes from.
        center_D: A mixture at which it is least, shape (D,).
        is_variation: Whether it is the total variation from `center_D`, which has kinks: solvers
            make it linear.
    """

    size: float
    source: ClassVar[str]
    center_D: Array
    is_variation: bool = False

    @property
    @abstractmethod
    def text(self) -> str:
        """The limit in short."""

    @abstractmethod
    def value(self, weights_ND: ArrayLike) -> Array:
        """Return the function of each mixture, shape (N,)."""

    @abstractmethod
    def slope(self, weights_D: Array) -> Array:
        """Return its gradient at a mixture, shape (D,); of a smooth one."""

    @abstractmethod
    def allow(self, value: float) -> str:
        """Write the setting at which a value would be allowed."""

    @abstractmethod
    def refusal(self, value: float) -> str:
        """Say why a value is not allowed, and how to fix it."""

    @property
    def possible_D(self) -> BoolArray | None:
        """The domains that may have any weight at all; None for all."""
        return None

    def allows(self, value: float) -> bool:
        """Tell whether a least value is within the size, to the accuracy of finding it."""
        return bool(value <= self.size * (1.0 + MISSED) + MISSED**1.5)

    def violation(self, weights_D: Array, tolerance: float) -> str | None:
        """Say why a mixture is not allowed; None where it is."""
        value = float(self.value(weights_D[None])[0])
        return None if value <= self.size + tolerance else self.refusal(value)

    def binds(self, weights_D: Array) -> bool:
        """Tell whether it is an active constraint of a mixture."""
        return abs(float(self.value(weights_D[None])[0]) - self.size) <= NEAR * self.size


Distance = Literal["kl", "tv"]
WORDS = {"kl": "KL divergence", "tv": "total variation"}


@dataclass(frozen=True)
class Radius(ConvexLimit):
    """The largest allowed distance of a mixture from a reference."""

    source = "constraints.radius"

    reference: Mixture
    name: str
    kind: Distance
    size: float
    center_D: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        center_D = self.reference.array
        center_D.flags.writeable = False
        object.__setattr__(self, "center_D", center_D)

    @property
    def is_variation(self) -> bool:  # type: ignore[override]
        """Whether it is the total variation from the reference."""
        return self.kind == "tv"

    @property
    def text(self) -> str:
        """The limit in short."""
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

    def allow(self, value: float) -> str:
        """Write the setting at which a distance would be allowed."""
        return f"radius.{self.kind}: {up(value)}"

    def refusal(self, value: float) -> str:
        """Say why a distance is not allowed, and how to fix it."""
        allow = f", or allow {self.kind}: {up(value)}" if np.isfinite(value) else ""
        return (
            f"the mixture is {value:.4g} ({WORDS[self.kind]}) from {self.name}; "
            f"{self.source}.{self.kind} is {self.size:g}. Move it closer{allow}."
        )

    @property
    def possible_D(self) -> BoolArray | None:
        """What the reference lacks stays out of a divergence."""
        return self.center_D > 0 if self.kind == "kl" else None

    @property
    def _safe_D(self) -> Array:
        return np.where(self.center_D > 0, self.center_D, 1.0)


class MinEntropy(Radius):
    """The least entropy of a mixture of D domains: log D less its divergence from uniform."""

    source = "constraints.min_entropy"

    @classmethod
    def of(cls, domains: Sequence[str], least: float) -> MinEntropy:
        """Return the limit of a least entropy in nats.

        Raises:
            ConfigError: Not even the uniform mixture has as much.
        """
        room = math.log(len(domains)) - least
        if room <= 0:
            raise ConfigError(
                f"{cls.source}: {least:g} is not below {math.log(len(domains)):.4g}, the entropy"
                f" of {len(domains)} equal shares"
            )
        return cls(Mixture.uniform(domains), "uniform", "kl", room)

    @property
    def least(self) -> float:
        """The least entropy, in nats."""
        return math.log(len(self.center_D)) - self.size

    @property
    def text(self) -> str:
        """The limit in short."""
        return f"entropy >= {self.least:.3g}"

    def allow(self, value: float) -> str:
        """Write the setting at which a divergence from uniform would be allowed."""
        return f"min_entropy: {down(max(math.log(len(self.center_D)) - value, 0.0), 3)}"

    def refusal(self, value: float) -> str:
        """Say why a divergence from uniform is not allowed, and how to fix it."""
        entropy = math.log(len(self.center_D)) - value
        return (
            f"the mixture's entropy is {entropy:.4g} ({math.exp(entropy):.3g} effective domains);"
            f" {self.source} is {self.least:g}. Spread it more evenly, or allow"
            f" {self.allow(value)}."
        )
