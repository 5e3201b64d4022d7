"""Limits of single domains, of groups, of ratios between domains, and of the distance to a mixture.

A limit that follows from a setting (max_epochs: 4) is `setting x rate`, so that a message can say
the setting at which a weight would be allowed. Numbers in messages are rounded to the safe side.

Total variation, half the sum of absolute differences, is the share of the tokens that change
domain. KL(w || r) = sum_j w_j log(w_j / r_j), in nats, depends on how many times over a domain is
raised: a rare one may not become common, and one that the reference lacks stays out.

Shapes: N mixtures, D domains, R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import ConfigError, did_you_mean
from mixopt.mixture import Mixture, total_variation
from mixopt.system import Array


@dataclass(frozen=True)
class Limit:
    """A lower or an upper bound on the weight of one domain.

    Attributes:
        domain: The domain.
        value: The weight, in [0, 1].
        source: The field that it comes from, such as `constraints.bounds`.
        setting: What the field is set to, where the limit scales with it.
        rate: Weight for each unit of the setting; 0 where there is none.
    """

    domain: str
    value: float
    source: str
    setting: float | None = None
    rate: float = 0.0

    def refuse(self, weight: float) -> str:
        """Say why a weight this large is not allowed, and how to fix it."""
        return (
            f"a weight of {weight:.4g} is above {self.value:.4g}, the maximum set by "
            f"{described(self)}. {self._hint(weight)}"
        )

    def _hint(self, weight: float) -> str:
        lower = f"Lower it to <= {down(self.value)}"
        if not self.rate:
            return f"{lower}, or allow {up(weight)} in {self.source}."
        return f"{lower}, or allow {inside_section(self.source)}: {up(weight / self.rate)}."


@dataclass(frozen=True)
class EpochLimit(Limit):
    """The weight at which a domain is repeated `setting` times in a run of `target_tokens`."""

    inventory: int = 0
    target_tokens: int = 0

    def refuse(self, weight: float) -> str:
        """Say how many epochs a weight this large needs, and how to fix it."""
        if not self.inventory:
            return (
                f"a weight of {weight:.4g} needs training tokens, and the domain has none. Set it "
                "to 0."
            )
        epochs = weight * self.target_tokens / self.inventory
        return (
            f"a weight of {weight:.4g} of {tokens(self.target_tokens)} tokens needs {epochs:.3g}"
            f" epochs of its {tokens(self.inventory)} tokens; {self.source} is"
            f" {self.setting:g}. {self._hint(weight)}"
        )


def scaled_limit(domain: str, source: str, setting: float, rate: float) -> Limit:
    """Return the limit `setting x rate`, or 1 where that is more."""
    return Limit(domain, min(setting * rate, 1.0), source, setting, rate)


def epoch_limit(
    domain: str,
    inventory: int,
    max_epochs: float,
    target_tokens: int,
    source: str = "constraints.max_epochs",
) -> EpochLimit:
    """Return the largest weight at which `domain` is repeated at most `max_epochs` times."""
    rate = inventory / target_tokens
    value = min(max_epochs * rate, 1.0)
    return EpochLimit(domain, value, source, max_epochs, rate, inventory, target_tokens)


def strictest(
    limits: Iterable[Limit], domains: Sequence[str], pick: Callable[..., Limit]
) -> list[Limit]:
    """Return the limit that counts for each domain that has one, in the domains' order."""
    of: dict[str, list[Limit]] = {name: [] for name in domains}
    for limit in limits:
        of[limit.domain].append(limit)
    return [pick(group, key=lambda limit: limit.value) for group in of.values() if group]


def described(limit: Limit) -> str:
    """Write the source of a limit with its setting: `constraints.max_epochs: 4`."""
    return limit.source if limit.setting is None else f"{limit.source}: {limit.setting:g}"


def inside_section(source: str) -> str:
    """Return a dotted field without its section: `max_epochs` of `constraints.max_epochs`."""
    return source.partition(".")[2]


def tokens(count: float) -> str:
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


@dataclass(frozen=True)
class GroupLimit:
    """Bounds on the total weight of a group of domains."""

    name: str
    domains: tuple[str, ...]
    least: float
    most: float
    source: str

    def __post_init__(self) -> None:
        if not self.domains:
            raise ConfigError(f"{self.source}: needs at least one domain")
        for domain in self.domains:
            if self.domains.count(domain) > 1:
                raise ConfigError(f"{self.source}: domain {domain!r} is given twice")
        if self.least > self.most:
            raise ConfigError(
                f"{self.source}: the minimum, {self.least:g}, is above the maximum, {self.most:g}"
            )

    def check_domains(self, known: Sequence[str]) -> None:
        """Check that its domains exist."""
        for domain in self.domains:
            if domain not in known:
                near = did_you_mean(domain, known)
                raise ConfigError(f"{self.source}: unknown domain {domain!r}{near}")

    def members(self, domains: Sequence[str]) -> Array:
        """Return 1 for each domain of the group and 0 for others, shape (D,)."""
        return np.array([1.0 if name in self.domains else 0.0 for name in domains])

    def share(self, weights: Mapping[str, float]) -> float:
        """Return the total weight of the group in a mixture."""
        return sum(weights[name] for name in self.domains)

    def refusal(self, weights: Mapping[str, float], tolerance: float) -> str | None:
        """Say why a mixture is not allowed, and how to fix it; None where it is."""
        share = self.share(weights)
        if share > self.most + tolerance:
            return (
                f"group {self.name!r}: a share of {share:.4g} is above {self.most:.4g}, the "
                f"maximum set by {self.source}. Lower it to <= {down(self.most)}, or allow "
                f"{up(share)}."
            )
        if share < self.least - tolerance:
            return (
                f"group {self.name!r}: a share of {share:.4g} is below {self.least:.4g}, the "
                f"minimum set by {self.source}. Raise it to >= {up(self.least, 4)}, or allow "
                f"{down(share)}."
            )
        return None

    def binding(self, weights: Mapping[str, float], tolerance: float) -> list[str]:
        """Name the active bounds of a mixture: `group code <= 0.4 (constraints.groups.code)`."""
        share, sides = self.share(weights), []
        if self.most < 1 and abs(share - self.most) <= tolerance:
            sides.append(self.above)
        if self.least > 0 and abs(share - self.least) <= tolerance:
            sides.append(self.below)
        return [f"{side} ({self.source})" for side in sides]

    @property
    def above(self) -> str:
        """The upper bound in short."""
        return f"group {self.name} <= {self.most:.3g}"

    @property
    def below(self) -> str:
        """The lower bound in short."""
        return f"group {self.name} >= {self.least:.3g}"


RATIO_TOLERANCE = 1e-6  # by which a share may be off its ratio


@dataclass(frozen=True)
class Proportions:
    """Fixed ratios of some domains."""

    name: str
    ratios: Mapping[str, float]
    source: str

    @classmethod
    def of(
        cls, name: str, weights: Mapping[str, float], known: Sequence[str], source: str
    ) -> Proportions:
        """Return the ratios of weights."""
        for domain in weights:
            if domain not in known:
                near = did_you_mean(domain, known)
                raise ConfigError(f"{source}: unknown domain {domain!r}{near}")
        total = float(sum(weights.values()))
        if not total > 0:
            raise ConfigError(f"{source}: the domains have no tokens: give their weights")
        return cls(name, {domain: weights[domain] / total for domain in weights}, source)

    def rows(self, domains: Sequence[str]) -> Array:
        """Return the rows that are 0 for every mixture in these ratios, shape (R, D)."""
        members_D = np.array([1.0 if name in self.ratios else 0.0 for name in domains])
        places = [domains.index(name) for name in self.ratios][:-1]
        rows_RD = np.zeros((len(places), len(domains)))
        for row, place in enumerate(places):
            rows_RD[row] = -self.ratios[domains[place]] * members_D
            rows_RD[row, place] += 1.0
        return rows_RD

    def refusal(
        self, weights: Mapping[str, float], tolerance: float = RATIO_TOLERANCE
    ) -> str | None:
        """Say why a mixture is not allowed; None where it is in these ratios."""
        total = sum(weights[name] for name in self.ratios)
        for name, ratio in self.ratios.items():
            if abs(weights[name] - ratio * total) > tolerance:
                return (
                    f"domain {name!r}: a weight of {weights[name]:.4g} is not in the ratios of"
                    f" {self.source}: {down(ratio * total)} of the {total:.4g} of its set."
                )
        return None


Distance = Literal["kl", "tv"]
RADIUS_SOURCE = "constraints.radius"
WORDS = {"kl": "KL divergence", "tv": "total variation"}
NEAR_RADIUS = 2e-3  # share of the radius within which a mixture counts as held by it
MISSED = 1e-6  # share of the radius by which the least distance may be missed
MIN_WEIGHT = 1e-12  # weight below which a slope stays what it is there: at 0 it has no bound


@dataclass(frozen=True)
class Radius:
    """The largest allowed distance of a mixture from a reference."""

    reference: Mixture
    name: str
    kind: Distance
    size: float
    reference_D: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        reference_D = self.reference.array
        reference_D.flags.writeable = False
        object.__setattr__(self, "reference_D", reference_D)

    def distance(self, weights_ND: ArrayLike) -> Array:
        """Return how far each mixture is from the reference, shape (N,)."""
        weights = np.asarray(weights_ND, dtype=np.float64)
        if self.kind == "tv":
            return total_variation(weights, self.reference_D)
        return self._divergence(np.maximum(weights, 0.0))

    def allows(self, distance: float) -> bool:
        """Tell whether a least distance is within the radius, to the accuracy of finding it."""
        return bool(distance <= self.size * (1.0 + MISSED) + MISSED**1.5)

    def slope(self, weights_D: Array) -> Array:
        """Return the gradient of the divergence at a mixture, shape (D,); for `kl`."""
        safe_D = np.where(self.reference_D > 0, self.reference_D, 1.0)
        slope_D = np.log(np.maximum(weights_D, MIN_WEIGHT) / safe_D) + 1.0
        return np.where(self.reference_D > 0, slope_D, 0.0)

    def refusal(self, mixture: Mixture, tolerance: float) -> str | None:
        """Say why a mixture is not allowed, and how to fix it; None where it is."""
        away = float(self.distance(mixture.over(self.reference.domains).array[None])[0])
        if away <= self.size + tolerance:
            return None
        allow = f", or allow {self.kind}: {up(away)}" if np.isfinite(away) else ""
        return (
            f"the mixture is {away:.4g} ({WORDS[self.kind]}) from {self.name}; "
            f"{RADIUS_SOURCE}.{self.kind} is {self.size:g}. Move it closer{allow}."
        )

    def binding(self, mixture: Mixture) -> list[str]:
        """Name the radius where it is an active constraint."""
        away = float(self.distance(mixture.over(self.reference.domains).array[None])[0])
        return (
            [f"{self.text} ({RADIUS_SOURCE})"]
            if abs(away - self.size) <= NEAR_RADIUS * self.size
            else []
        )

    @property
    def text(self) -> str:
        """The limit in short."""
        return f"{WORDS[self.kind]} from {self.name} <= {self.size:.3g}"

    def _divergence(self, weights_ND: Array) -> Array:
        safe_D = np.where(self.reference_D > 0, self.reference_D, 1.0)
        ratio_ND = np.where(weights_ND > 0, weights_ND, 1.0) / safe_D
        terms_ND = weights_ND * np.where(weights_ND > 0, np.log(ratio_ND), 0.0)
        outside_N = (weights_ND[:, self.reference_D == 0] > MIN_WEIGHT).any(axis=1)
        divergence: Array = np.where(outside_N, np.inf, terms_ND.sum(axis=1))
        return divergence
