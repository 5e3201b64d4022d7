"""Limits on mixtures, and a check that some mixture meets them; else the conflict and its fix.

Limits come from bounds that the user sets, from the maximum epochs of a domain in the full run,
and, for a design, from its caps. Convex limits, such as a radius, and guardrails apply only to the
proposal: a design within them would have no trials to learn from outside.

Shapes: D domains, R rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from mixopt.config import ConstraintsConfig, RadiusConfig
from mixopt.constraints.capped_simplex import SLACK, CappedSimplex
from mixopt.constraints.conflicts import conflict_message
from mixopt.constraints.convex_limits import (
    ConvexLimit,
    KLRadius,
    Radius,
    TotalVariationRadius,
    named_limit,
)
from mixopt.constraints.epoch_caps import epoch_caps
from mixopt.constraints.feasible_set import FeasibleSet
from mixopt.constraints.guardrails import BASE, SOURCE as GUARDRAILS, Guardrails
from mixopt.constraints.limits import LinearLimit, Proportions, cap, floor, indicator
from mixopt.errors import ConfigError, InfeasibleError, MixtureError, did_you_mean
from mixopt.mixture import Mixture, Phases
from mixopt.system import Array, below_branch, choice_fault, chosen, html_table, share_text

FREE = "--free"  # prefix of the source of limits that fix all other domains
PHASES = "design.phases"
BOUNDS = "constraints.bounds"
BINDING = 1e-4  # a limit is active if the weight is this near to it


@dataclass(frozen=True)
class Constraints:
    """Limits on the weights of named domains, satisfied by at least one mixture.

    Attributes:
        domains: Names, in order.
        linear: Maxima and minima of domains and groups; the strictest of several applies.
        convex: Convex limits, such as a radius around a mixture.
        proportions: Domains with fixed ratios to each other.
        guardrails: How much worse than a reference predicted losses may be; only the search finds
            whether any mixture satisfies them.

    Raises:
        ConfigError: A limit of an unknown domain.
        InfeasibleError: No mixture meets the limits.

    Examples:
        >>> from mixopt.constraints import Constraints, cap
        >>> limits = Constraints(("code", "prose"), (cap("code", 0.5, "a cap of mine"),))
        >>> print(*limits.violations(mixopt.Mixture({"code": 0.6, "prose": 0.4})))
        domain 'code': a weight of 0.6 is above 0.5, the maximum set by a cap of mine. ...
    """

    domains: tuple[str, ...]
    linear: tuple[LinearLimit, ...] = ()
    convex: tuple[ConvexLimit, ...] = ()
    proportions: tuple[Proportions, ...] = ()
    guardrails: Guardrails | None = None

    def __post_init__(self) -> None:
        for limit in self.linear:
            for domain in limit.domains:
                if domain not in self.domains:
                    near = did_you_mean(domain, self.domains)
                    raise ConfigError(f"{limit.source}: unknown domain {domain!r}{near}")
        self._check_feasible()

    @classmethod
    def from_config(
        cls,
        config: ConstraintsConfig,
        inventory: Mapping[str, int],
        target_tokens: int | None = None,
        base: Mapping[str, float] | None = None,
        phases: Phases | None = None,
    ) -> Constraints:
        """Build the limits of a configuration.

        Args:
            config: Bounds of domains and groups, epochs, radius and guardrails.
            inventory: Distinct training tokens of every domain, in order.
            target_tokens: Length of the full run; `max_epochs` needs it.
            base: Losses of the checkpoint that trials start from; None: not measured.
            phases: Phases of the run: mixtures are of cells, limits of domains over all phases.

        Raises:
            ConfigError: An unknown domain, a minimum above its maximum, `max_epochs` without
                `target_tokens`, or an unreadable reference.
            InfeasibleError: No mixture meets the limits.
        """
        domains = tuple(inventory)
        linear = tuple(_linear(config, inventory, target_tokens))
        convex = tuple(_convex(config, inventory))
        proportions: list[Proportions] = []
        for name, members in (config.proportions or {}).items():
            if isinstance(members, dict):
                ratios = members
            else:
                ratios = {domain: float(inventory.get(domain, 0)) for domain in members}
            proportions.append(Proportions.of(ratios, domains, f"constraints.proportions.{name}"))
        constraints = cls(
            domains,
            linear=linear,
            convex=convex,
            proportions=tuple(proportions),
            guardrails=_guardrails(config, base),
        )
        return constraints if phases is None else constraints._by_phase(phases)

    def _by_phase(self, phases: Phases) -> Constraints:
        """Return limits on cells; limits of domains apply to their shares over all phases."""
        linear: list[LinearLimit] = []
        for limit in self.linear:
            group = limit.group or limit.domains[0]
            linear.append(replace(limit, domains=phases.cells(limit.domains), group=group))
        for phase, length in phases.items():
            cells = tuple(f"{phase}/{name}" for name in self.domains)
            maximum = LinearLimit(cells, length, PHASES, f"phase {phase}")
            linear += [maximum, replace(maximum, is_floor=True)]
        proportions: list[Proportions] = []
        for fixed in self.proportions:
            for phase in phases:
                ratios = {f"{phase}/{name}": ratio for name, ratio in fixed.ratios.items()}
                proportions.append(Proportions(ratios, fixed.source))
        return Constraints(
            phases.cells(self.domains),
            linear=tuple(linear),
            convex=tuple(limit.over_phases(phases, self.domains) for limit in self.convex),
            proportions=tuple(proportions),
            guardrails=self.guardrails,
        )

    def tied(self, phases: Phases) -> Constraints:
        """Add the limit that the mixture of cells is equal in all phases."""
        ties: list[Proportions] = []
        for name in phases.names(self.domains):
            lengths = {f"{phase}/{name}": length for phase, length in phases.items()}
            ties.append(Proportions(lengths, PHASES))
        return replace(self, proportions=(*self.proportions, *ties))

    def with_limits(self, limits: Iterable[LinearLimit]) -> Constraints:
        """Return these limits with further ones added.

        Raises:
            InfeasibleError: No mixture meets them together.
        """
        return replace(self, linear=(*self.linear, *limits))

    def frozen_but(self, free: Sequence[str], reference: Mixture, name: str) -> Constraints:
        """Fix all domains except `free` at their shares in a mixture, within these limits.

        Args:
            free: Domains, branches or globs that may vary.
            reference: The mixture.
            name: Name of the mixture in messages.

        Raises:
            ConfigError: A pattern matches no domain, or fewer than two domains are free.
            InfeasibleError: No mixture meets the limits with these shares.
        """
        for pattern in free:
            fault = choice_fault(pattern, self.domains, "domain")
            if fault is not None:
                raise ConfigError(f"{FREE} {pattern}: {fault}")
        moving: set[str] = set()
        for pattern in free:
            moving.update(chosen(pattern, self.domains))
        if len(moving) < 2:
            raise ConfigError(
                f"{FREE} {' '.join(free)}: the other domains fix the share of a single one; free"
                " two or more, such as a branch"
            )
        source = f"{FREE}, at the shares of {name}"
        caps: list[LinearLimit] = []
        floors: list[LinearLimit] = []
        for domain, weight in reference.over(self.domains).items():
            if domain not in moving:
                caps.append(cap(domain, weight, source))
                floors.append(floor(domain, weight, source))
        return self.with_limits([*caps, *floors])

    @cached_property
    def lower_D(self) -> Array:
        """Lower bound of each weight, shape (D,)."""
        return self._bounds(is_floor=True)

    @cached_property
    def upper_D(self) -> Array:
        """Upper bound of each weight, shape (D,)."""
        return self._bounds(is_floor=False)

    @cached_property
    def simplex(self) -> FeasibleSet:
        """The weights allowed by linear limits and proportions; designs draw from it."""
        return self._feasible_set(())

    @cached_property
    def allowed(self) -> FeasibleSet:
        """The weights allowed for a proposal, within convex limits too."""
        if not self.convex:
            return self.simplex
        return self._feasible_set(self.convex)

    @cached_property
    def strictest(self) -> list[LinearLimit]:
        """The strictest limits: caps and floors in domain order, then those of groups."""
        strictest: dict[tuple[str | None, str, bool], LinearLimit] = {}
        for limit in self.linear:
            key = (limit.group, limit.domains[0], limit.is_floor)
            previous = strictest.get(key)
            if previous is None or limit.sign * limit.value < limit.sign * previous.value:
                strictest[key] = limit
        order: list[tuple[str | None, str, bool]] = []
        order += [(None, domain, False) for domain in self.domains]
        order += [(None, domain, True) for domain in self.domains]
        order += [key for key in strictest if key[0] is not None]
        return [strictest[key] for key in order if key in strictest]

    @cached_property
    def groups(self) -> dict[str, tuple[tuple[str, ...], float, float]]:
        """The domains of each group, and the minimum and maximum of their total share."""
        groups: dict[str, tuple[tuple[str, ...], float, float]] = {}
        for limit in self.strictest:
            if limit.group is not None:
                _, low, high = groups.get(limit.group, ((), 0.0, 1.0))
                if limit.is_floor:
                    low = limit.value
                else:
                    high = limit.value
                groups[limit.group] = (limit.domains, low, high)
        return groups

    @property
    def in_force(self) -> tuple[str, ...]:
        """The fields of the limits, without duplicates: `constraints.max_epochs: 4`."""
        sources = [limit.origin for limit in self.strictest if not limit.is_open]
        sources += [fixed.source for fixed in self.proportions]
        sources += [limit.source for limit in self.convex]
        if self.guardrails is not None:
            sources += self.guardrails.sources
        return tuple(dict.fromkeys(sources))

    def violations(self, mixture: Mixture) -> list[str]:
        """Return one line for each limit that a mixture violates by more than 1e-6."""
        weights = mixture.over(self.domains)
        lines = [limit.violation(weights) for limit in self.strictest]
        lines += [fixed.violation(weights) for fixed in self.proportions]
        lines += [limit.violation(weights.array) for limit in self.convex]
        return [line for line in lines if line]

    def binding(self, mixture: Mixture) -> list[str]:
        """Name the active constraints: `europarl <= 0.157 (constraints.max_epochs: 4)`."""
        weights = mixture.over(self.domains)
        active: list[str] = []
        for limit in self.strictest:
            is_stated = limit.source != PHASES and not limit.source.startswith(FREE)
            is_near = abs(limit.share(weights) - limit.value) <= BINDING
            if is_stated and is_near and not limit.is_open:
                active.append(f"{limit.text} ({limit.origin})")
        fixed = Counter(limit.source for limit in self.linear if limit.is_floor)
        for source, count in fixed.items():
            if source.startswith(FREE):
                active.append(f"{count} domains are fixed ({source})")
        convex = [limit for limit in self.convex if limit.is_active(weights.array)]
        active += [f"{limit.describe()} ({limit.source})" for limit in convex]
        return active

    def _repr_html_(self) -> str:
        """Return a table of the limits, for notebooks."""
        rows = [(limit.text, limit.origin) for limit in self.strictest if not limit.is_open]
        for fixed in self.proportions:
            ratios = [f"{name} {share_text(ratio)}" for name, ratio in fixed.ratios.items()]
            rows.append((" : ".join(ratios), fixed.source))
        rows += [(limit.describe(), limit.source) for limit in self.convex]
        if self.guardrails is not None:
            rows += self.guardrails.described
        return html_table(("limit", "field"), rows)

    def _bounds(self, *, is_floor: bool) -> Array:
        bounds_D = np.zeros(len(self.domains)) if is_floor else np.ones(len(self.domains))
        for limit in self.strictest:
            if limit.group is None and limit.is_floor is is_floor:
                bounds_D[self.domains.index(limit.domains[0])] = limit.value
        bounds_D.flags.writeable = False
        return bounds_D

    def _feasible_set(self, convex: tuple[ConvexLimit, ...]) -> FeasibleSet:
        """Return the mixtures within bounds, groups, proportions and convex limits."""
        rows: list[Array] = []
        lows: list[float] = []
        highs: list[float] = []
        for members, low, high in self.groups.values():
            rows.append(indicator(members, self.domains))
            lows.append(low)
            highs.append(high)
        for fixed in self.proportions:
            for row_D in fixed.rows(self.domains):
                rows.append(row_D)
                lows.append(0.0)
                highs.append(0.0)
        rows_RD = np.array(rows).reshape(-1, len(self.domains))
        return FeasibleSet(
            CappedSimplex(self.lower_D, self.upper_D),
            rows_RD=np.vstack([rows_RD, -rows_RD]),
            upper_R=np.array([*highs, *(-low for low in lows)]),
            convex=convex,
        )

    def _check_feasible(self) -> None:
        """Raise an error that names a minimal conflict if no mixture meets all limits."""
        crossed = (self.lower_D > self.upper_D + SLACK).any()
        is_simple = not (self.groups or self.convex or crossed)
        leaves_room = self.lower_D.sum() <= 1 + SLACK and self.upper_D.sum() >= 1 - SLACK
        if not (is_simple and leaves_room):
            limits = [limit for limit in self.linear if not limit.is_open]
            conflict = conflict_message(self.domains, limits, self.convex)
            if conflict is not None:
                raise InfeasibleError(conflict)
        if not self.proportions:
            return
        try:
            self._feasible_set(self.convex)
        except InfeasibleError as error:
            fields = ", ".join(fixed.source for fixed in self.proportions)
            raise InfeasibleError(
                f"no mixture keeps the ratios of {fields} and meets the other limits; widen the"
                " limits, or remove the ratios"
            ) from error


def _guardrails(config: ConstraintsConfig, base: Mapping[str, float] | None) -> Guardrails | None:
    """Return the limits on predictions: guardrails, floors, or both; None: neither."""
    rails = config.guardrails
    floors = config.floors
    if rails is None:
        return Guardrails("natural", floors=floors) if floors else None
    has_experts = rails.experts is not None
    reference = rails.reference
    if isinstance(reference, str):
        return Guardrails(reference, rails.margin, rails.targets, has_experts, base, floors)
    for name in rails.targets:
        if name not in reference:
            near = did_you_mean(name, tuple(reference))
            raise ConfigError(f"{GUARDRAILS}.targets: the reference has no {name!r}{near}")
    margin = rails.margin or 0.0
    targets = {name: rails.targets.get(name, margin) for name in reference}
    return Guardrails(BASE, None, targets, has_experts, reference, floors)


def _linear(
    config: ConstraintsConfig, inventory: Mapping[str, int], target_tokens: int | None
) -> Iterator[LinearLimit]:
    """Yield the bounds of domains, caps by epochs, and the bounds of branches and groups."""
    names = tuple(inventory)
    for name, (low, high) in config.bounds_of(names).items():
        _check_order(f"{BOUNDS}.{name}", low, high)
        if high < 1:
            yield cap(name, high, BOUNDS)
        if low > 0:
            yield floor(name, low, BOUNDS)
    yield from epoch_caps(config, inventory, target_tokens)
    for branch, (low, high) in config.branch_bounds(names).items():
        members = below_branch(branch, names)
        yield from _group_limits(f"{BOUNDS}.{branch}", f"{branch}/*", members, low, high)
    for name, group in (config.groups or {}).items():
        chosen_names: list[str] = []
        for pattern in group.domains:
            chosen_names += chosen(pattern, names) or (pattern,)
        low, high = group.bounds
        yield from _group_limits(f"constraints.groups.{name}", name, tuple(chosen_names), low, high)


def _group_limits(
    source: str, name: str, domains: tuple[str, ...], low: float, high: float
) -> Iterator[LinearLimit]:
    """Yield the maximum and the minimum of a group."""
    for domain in domains:
        if domains.count(domain) > 1:
            raise ConfigError(f"{source}: domain {domain!r} is given twice")
    _check_order(source, low, high)
    yield LinearLimit(domains, high, source, name)
    yield LinearLimit(domains, low, source, name, is_floor=True)


def _check_order(source: str, low: float, high: float) -> None:
    if low > high:
        raise ConfigError(f"{source}: the minimum {low:g} is above the maximum {high:g}")


def _convex(config: ConstraintsConfig, inventory: Mapping[str, int]) -> Iterator[ConvexLimit]:
    """Yield the radius and the convex limits of plug-ins."""
    if config.radius is not None:
        yield _radius(config.radius, inventory)
    for name, options in (config.convex or {}).items():
        yield named_limit(name, options, Mixture.natural(inventory))


def _radius(radius: RadiusConfig, inventory: Mapping[str, int]) -> Radius:
    domains = tuple(inventory)
    if radius.reference == "natural":
        reference = Mixture.natural(inventory)
    elif radius.reference == "uniform":
        reference = Mixture.uniform(domains)
    else:
        try:
            reference = Mixture.from_file(Path(radius.reference)).over(domains)
        except MixtureError as error:
            raise ConfigError(
                f"constraints.radius.reference: {error}; use natural, uniform, or a file of weights"
            ) from error
    if radius.kl is not None:
        return KLRadius(reference, radius.reference, radius.kl)
    assert radius.tv is not None
    return TotalVariationRadius(reference, radius.reference, radius.tv)
