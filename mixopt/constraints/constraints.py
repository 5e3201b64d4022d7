"""Limits on mixtures: bounds of domains and of groups, epochs, and a radius.

Limits come from bounds that the user sets, from how often a domain may be repeated in the full
run, and, for a design, from its caps. Whether any mixture meets all of them is decided here,
before anything is trained; where none does, the error names the limits that are in conflict, by
how much, and the smallest change that resolves it.

A radius and guardrails hold the proposal alone: a design that kept to them would try nothing from
which to learn what is outside.

Shapes: D domains, G groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mixopt.config import ConstraintsConfig
from mixopt.constraints.capped_simplex import CappedSimplex
from mixopt.constraints.convex_set import Allowed, ConvexSet
from mixopt.constraints.feasibility import check_feasible
from mixopt.constraints.guardrails import Guardrails
from mixopt.constraints.limits import (
    RADIUS_SOURCE,
    GroupLimit,
    Limit,
    Proportions,
    Radius,
    described,
    epoch_limit,
    strictest,
)
from mixopt.errors import ConfigError, InfeasibleError, MixtureError, did_you_mean
from mixopt.mixture import Mixture
from mixopt.system import Array

BINDING = 1e-4  # a weight this near its limit counts as held by it


@dataclass(frozen=True)
class Constraints:
    """Limits on the weights of named domains, satisfied by at least one mixture.

    Attributes:
        domains: Names, in order.
        floors: Least weights; a domain without one may have 0.
        caps: Most weights; a domain may have several, the lowest counts.
        groups: Bounds on what domains have together.
        radius: Most distance from a reference mixture.
        proportions: Domains that keep the same ratios to each other.
        guardrails: How much worse than a reference losses may be predicted; whether any mixture
            keeps them is seen in the search.
        lower_D: Least weight of each domain, shape (D,).
        upper_D: Most weight of each domain, shape (D,).

    Raises:
        ConfigError: A limit of a domain that is not there.
        InfeasibleError: No mixture meets the limits.
    """

    domains: tuple[str, ...]
    floors: tuple[Limit, ...] = ()
    caps: tuple[Limit, ...] = ()
    groups: tuple[GroupLimit, ...] = ()
    radius: Radius | None = None
    guardrails: Guardrails | None = None
    proportions: tuple[Proportions, ...] = ()
    lower_D: Array = field(init=False, repr=False, compare=False)
    upper_D: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for limit in (*self.floors, *self.caps):
            if limit.domain not in self.domains:
                near = did_you_mean(limit.domain, self.domains)
                raise ConfigError(f"{limit.source}: unknown domain {limit.domain!r}{near}")
        for group in self.groups:
            group.check_domains(self.domains)
        floors, caps = self._strictest
        self._keep("lower_D", floors, 0.0)
        self._keep("upper_D", caps, 1.0)
        check_feasible(self.domains, self.floors, self.caps, self.groups, self.radius)
        if self.proportions:
            self._check_proportions()

    @classmethod
    def from_config(
        cls,
        config: ConstraintsConfig,
        inventory: Mapping[str, int],
        target_tokens: int | None = None,
        base: Mapping[str, float] | None = None,
    ) -> Constraints:
        """Build the limits that a configuration states.

        Args:
            config: Bounds of domains and groups, epochs, radius and guardrails.
            inventory: Distinct training tokens of every domain, in order.
            target_tokens: Length of the full run; `max_epochs` needs it.
            base: What the checkpoint loses that trials begin with; None where not measured.

        Raises:
            ConfigError: An unknown domain, a least above its most, `max_epochs` without
                `target_tokens`, or a reference that cannot be read.
            InfeasibleError: No mixture meets the limits.
        """
        source = "constraints.bounds"
        for name, (least, most) in config.bounds.items():
            if least > most:
                raise ConfigError(
                    f"{source}.{name}: the minimum, {least:g}, is above the maximum, {most:g}"
                )
        floors = [Limit(n, least, source) for n, (least, _) in config.bounds.items() if least > 0]
        caps = [Limit(n, most, source) for n, (_, most) in config.bounds.items() if most < 1]
        return cls(
            tuple(inventory),
            tuple(floors),
            (*caps, *_epoch_caps(config, inventory, target_tokens)),
            tuple(_groups(config)),
            _radius(config, inventory),
            _guardrails(config, base),
            tuple(_proportions(config, inventory)),
        )

    def with_caps(self, caps: Iterable[Limit]) -> Constraints:
        """Return the same limits with additional caps.

        Raises:
            InfeasibleError: No mixture meets them together.
        """
        return replace(self, caps=(*self.caps, *caps))

    def with_floors(self, floors: Iterable[Limit]) -> Constraints:
        """Return the same limits with additional floors.

        Raises:
            InfeasibleError: No mixture meets them together.
        """
        return replace(self, floors=(*self.floors, *floors))

    @property
    def simplex(self) -> Allowed:
        """The weights allowed by bounds of domains and groups, from which designs draw."""
        bounds = CappedSimplex(self.lower_D, self.upper_D)
        return self._within(bounds, None) if self.groups or self.proportions else bounds

    @property
    def allowed(self) -> Allowed:
        """The weights allowed for a proposal, the radius included."""
        if self.radius is None:
            return self.simplex
        return self._within(CappedSimplex(self.lower_D, self.upper_D), self.radius)

    def violations(self, mixture: Mixture, *, tolerance: float = 1e-6) -> list[str]:
        """Return one line for each limit that a mixture violates by more than `tolerance`."""
        weights = mixture.over(self.domains)
        floors, caps = self._strictest
        broken = [
            f"domain {c.domain!r}: {c.refuse(weights[c.domain])}"
            for c in caps
            if weights[c.domain] > c.value + tolerance
        ]
        broken += [
            f"domain {f.domain!r}: a weight of {weights[f.domain]:.4g} is below {f.value:.4g}, "
            f"the minimum set by {described(f)}."
            for f in floors
            if weights[f.domain] < f.value - tolerance
        ]
        others = [group.refusal(weights, tolerance) for group in self.groups]
        others += [one.refusal(weights) for one in self.proportions]
        if self.radius is not None:
            others.append(self.radius.refusal(weights, tolerance))
        return broken + [line for line in others if line]

    def binding(self, mixture: Mixture, *, tolerance: float = BINDING) -> list[str]:
        """Name the active constraints: `europarl <= 0.157 (constraints.max_epochs: 4)`.

        Args:
            mixture: A mixture of the same domains.
            tolerance: How near its limit a weight counts as held.
        """
        weights = mixture.over(self.domains)
        floors, caps = self._strictest
        limits = [(c, "<=") for c in caps if c.value < 1] + [(f, ">=") for f in floors]
        held = [
            f"{limit.domain} {sign} {limit.value:.3g} ({described(limit)})"
            for limit, sign in limits
            if abs(weights[limit.domain] - limit.value) <= tolerance
        ]
        held += [line for group in self.groups for line in group.binding(weights, tolerance)]
        return held + ([] if self.radius is None else self.radius.binding(weights))

    @property
    def _strictest(self) -> tuple[list[Limit], list[Limit]]:
        """The floor and the cap that count for each domain that has one, in the domains' order."""
        floors = strictest(self.floors, self.domains, max)
        return floors, strictest(self.caps, self.domains, min)

    def _keep(self, name: str, limits: Sequence[Limit], otherwise: float) -> None:
        values = {limit.domain: limit.value for limit in limits}
        bounds_D = np.array([values.get(domain, otherwise) for domain in self.domains], dtype=float)
        bounds_D.flags.writeable = False
        object.__setattr__(self, name, bounds_D)

    def _within(self, bounds: CappedSimplex, radius: Radius | None) -> ConvexSet:
        members = [group.members(self.domains) for group in self.groups]
        fixed = [row_D for one in self.proportions for row_D in one.rows(self.domains)]
        none = [0.0] * len(fixed)
        return ConvexSet(
            bounds,
            np.array([*members, *fixed]).reshape(-1, len(self.domains)),
            np.array([*(group.least for group in self.groups), *none]),
            np.array([*(group.most for group in self.groups), *none]),
            radius,
        )

    def _check_proportions(self) -> None:
        """Check that some mixture is in the fixed ratios and meets the other limits."""
        fields = ", ".join(one.source for one in self.proportions)
        try:
            self._within(CappedSimplex(self.lower_D, self.upper_D), self.radius)
        except InfeasibleError as error:
            raise InfeasibleError(
                f"no mixture keeps the ratios of {fields} and meets the other limits; widen these,"
                " or leave the ratios out"
            ) from error


def _epoch_caps(
    config: ConstraintsConfig, inventory: Mapping[str, int], target_tokens: int | None
) -> Iterator[Limit]:
    """Yield a cap for each domain with a number of epochs; its own number wins."""
    own = config.max_epochs_of or {}
    if config.max_epochs is None and not own:
        return
    field = "max_epochs" if config.max_epochs is not None else "max_epochs_of"
    if target_tokens is None:
        raise ConfigError(
            f"constraints.{field}: needs the length of the full run; set propose.target_tokens"
            " (or --tokens 25e9)"
        )
    for name in own:
        if name not in inventory:
            near = did_you_mean(name, inventory)
            raise ConfigError(f"constraints.max_epochs_of: unknown domain {name!r}{near}")
    for name, tokens in inventory.items():
        if name in own:
            source = f"constraints.max_epochs_of.{name}"
            yield epoch_limit(name, tokens, own[name], target_tokens, source)
        elif config.max_epochs is not None:
            yield epoch_limit(name, tokens, config.max_epochs, target_tokens)


def _groups(config: ConstraintsConfig) -> Iterator[GroupLimit]:
    for name, group in (config.groups or {}).items():
        least, most = group.bounds
        yield GroupLimit(name, tuple(group.domains), least, most, f"constraints.groups.{name}")


def _proportions(config: ConstraintsConfig, inventory: Mapping[str, int]) -> Iterator[Proportions]:
    for name, given in (config.proportions or {}).items():
        source = f"constraints.proportions.{name}"
        weights: Mapping[str, float] = given.weights or {
            d: inventory.get(d, 0) for d in given.domains
        }
        yield Proportions.of(name, weights, tuple(inventory), source)


def _radius(config: ConstraintsConfig, inventory: Mapping[str, int]) -> Radius | None:
    if config.radius is None:
        return None
    reference = _reference(config.radius.reference, inventory)
    if config.radius.kl is not None:
        return Radius(reference, config.radius.reference, "kl", config.radius.kl)
    assert config.radius.tv is not None
    return Radius(reference, config.radius.reference, "tv", config.radius.tv)


def _reference(name: str, inventory: Mapping[str, int]) -> Mixture:
    """Return the mixture that a radius is around."""
    if name == "natural":
        return Mixture.natural(inventory)
    if name == "uniform":
        return Mixture.uniform(tuple(inventory))
    try:
        return Mixture.from_file(Path(name)).over(tuple(inventory))
    except MixtureError as error:
        raise ConfigError(
            f"{RADIUS_SOURCE}.reference: {error}; it is natural, uniform, or a file of weights"
        ) from error


def _guardrails(config: ConstraintsConfig, base: Mapping[str, float] | None) -> Guardrails | None:
    rails = config.guardrails
    if rails is None:
        return None
    return Guardrails(rails.reference, rails.margin, rails.targets, rails.experts is not None, base)
