"""Limits on mixtures, and a check that some mixture meets them; else the conflict and its fix.

Limits come from bounds that the user sets, from the maximum epochs of a domain in the full run,
and, for a design, from its caps. The radius and guardrails apply only to the proposal: a design
within them would have no trials to learn from outside.

If no mixture meets all limits, limits are deleted one by one as long as the rest stays infeasible
(the deletion filter of Chinneck and Dravnieks, 1991). The remaining limits are a minimal conflict:
without any one of them it would be feasible. For each of their settings, the message then gives the
least change of this setting alone that makes the limits feasible.

Shapes: D domains, G groups, R rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from mixopt.config import ConstraintsConfig
from mixopt.constraints.capped_simplex import SLACK, CappedSimplex
from mixopt.constraints.convex_set import Allowed, ConvexSet
from mixopt.constraints.guardrails import BASE, FLOORS, SOURCE as GUARDRAILS, Guardrails
from mixopt.constraints.limits import RADIUS, LinearLimit, Proportions, Radius, cap, floor
from mixopt.constraints.solvers import LimitSystem
from mixopt.errors import ConfigError, InfeasibleError, MixtureError, did_you_mean
from mixopt.mixture import Mixture, Phases
from mixopt.system import Array, below_branch, choice_fault, chosen, html_table, share_text

FREE = "--free"  # prefix of the source of limits that fix all other domains
PHASES = "design.phases"
BINDING = 1e-4  # a limit is active if the weight is this near to it


@dataclass(frozen=True)
class Constraints:
    """Limits on the weights of named domains, satisfied by at least one mixture.

    Attributes:
        domains: Names, in order.
        linear: Maxima and minima of domains and groups; the strictest of several applies.
        radius: Maximum distance from another mixture.
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
    radius: Radius | None = None
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
        constraints = cls(
            tuple(inventory),
            tuple(_linear(config, inventory, target_tokens)),
            _radius(config, inventory),
            tuple(
                Proportions.of(
                    fixed if isinstance(fixed, dict) else {n: inventory.get(n, 0) for n in fixed},
                    tuple(inventory),
                    f"constraints.proportions.{name}",
                )
                for name, fixed in (config.proportions or {}).items()
            ),
            _guardrails(config, base),
        )
        return constraints if phases is None else constraints._by_phase(phases)

    def _by_phase(self, phases: Phases) -> Constraints:
        """Return limits on cells; limits of domains apply to their shares over all phases."""
        linear = [
            replace(a, domains=phases.cells(a.domains), group=a.group or a.domains[0])
            for a in self.linear
        ]
        for phase, length in phases.items():
            cells = tuple(f"{phase}/{name}" for name in self.domains)
            maximum = LinearLimit(cells, length, PHASES, f"phase {phase}")
            linear += [maximum, replace(maximum, is_floor=True)]
        radius = self.radius
        if radius is not None:
            radius = replace(radius, reference=phases.tied(radius.reference))
        proportions = [
            Proportions({f"{phase}/{name}": r for name, r in fixed.ratios.items()}, fixed.source)
            for fixed in self.proportions
            for phase in phases
        ]
        return Constraints(
            phases.cells(self.domains), tuple(linear), radius, tuple(proportions), self.guardrails
        )

    def tied(self, phases: Phases) -> Constraints:
        """Add the limit that the mixture of cells is equal in all phases."""
        ties = [
            Proportions({f"{phase}/{name}": phases[phase] for phase in phases}, PHASES)
            for name in phases.names(self.domains)
        ]
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
        moving = {domain for pattern in free for domain in chosen(pattern, self.domains)}
        if len(moving) < 2:
            raise ConfigError(
                f"{FREE} {' '.join(free)}: the other domains fix the share of a single one; free"
                " two or more, such as a branch"
            )
        source = f"{FREE}, at the shares of {name}"
        fixed = {n: w for n, w in reference.over(self.domains).items() if n not in moving}
        caps = [cap(domain, weight, source) for domain, weight in fixed.items()]
        return self.with_limits([*caps, *(floor(n, w, source) for n, w in fixed.items())])

    @cached_property
    def lower_D(self) -> Array:
        """Lower bound of each weight, shape (D,)."""
        return self._bounds(is_floor=True)

    @cached_property
    def upper_D(self) -> Array:
        """Upper bound of each weight, shape (D,)."""
        return self._bounds(is_floor=False)

    @cached_property
    def simplex(self) -> Allowed:
        """The weights allowed by linear limits and proportions; designs draw from it."""
        if self.groups or self.proportions:
            return self._within(None)
        return CappedSimplex(self.lower_D, self.upper_D)

    @cached_property
    def allowed(self) -> Allowed:
        """The weights allowed for a proposal, including the radius."""
        return self._within(self.radius) if self.radius else self.simplex

    @cached_property
    def strictest(self) -> list[LinearLimit]:
        """The strictest limits: caps and floors in domain order, then those of groups."""
        strictest: dict[tuple[str | None, str, bool], LinearLimit] = {}
        for limit in self.linear:
            key = (limit.group, limit.domains[0], limit.is_floor)
            previous = strictest.get(key)
            if previous is None or limit.sign * limit.value < limit.sign * previous.value:
                strictest[key] = limit
        single = [(None, domain, side) for side in (False, True) for domain in self.domains]
        groups = [key for key in strictest if key[0] is not None]
        return [strictest[key] for key in (*single, *groups) if key in strictest]

    @cached_property
    def groups(self) -> dict[str, tuple[tuple[str, ...], float, float]]:
        """The domains of each group, and the minimum and maximum of their total share."""
        groups: dict[str, tuple[tuple[str, ...], float, float]] = {}
        for limit in self.strictest:
            if limit.group is not None:
                _, low, high = groups.get(limit.group, ((), 0.0, 1.0))
                ends = (limit.value, high) if limit.is_floor else (low, limit.value)
                groups[limit.group] = (limit.domains, *ends)
        return groups

    @property
    def in_force(self) -> tuple[str, ...]:
        """The fields of the limits, without duplicates: `constraints.max_epochs: 4`."""
        linear = [limit.origin for limit in self.strictest if not limit.is_open]
        sources = [fixed.source for fixed in self.proportions]
        sources += [RADIUS] * (self.radius is not None)
        rails = [] if self.guardrails is None else self.guardrails.sources
        return tuple(dict.fromkeys([*linear, *sources, *rails]))

    def violations(self, mixture: Mixture) -> list[str]:
        """Return one line for each limit that a mixture violates by more than 1e-6."""
        weights = mixture.over(self.domains)
        lines = [limit.violation(weights) for limit in self.strictest]
        lines += [fixed.violation(weights) for fixed in self.proportions]
        lines += [self.radius.violation(weights.array)] if self.radius else []
        return [line for line in lines if line]

    def binding(self, mixture: Mixture) -> list[str]:
        """Name the active constraints: `europarl <= 0.157 (constraints.max_epochs: 4)`."""
        weights = mixture.over(self.domains)
        active = [
            f"{limit.text} ({limit.origin})"
            for limit in self.strictest
            if not (limit.is_open or limit.source == PHASES or limit.source.startswith(FREE))
            and abs(limit.share(weights) - limit.value) <= BINDING
        ]
        frozen = [r.source for r in self.linear if r.is_floor and r.source.startswith(FREE)]
        active += [f"{frozen.count(s)} domains are fixed ({s})" for s in dict.fromkeys(frozen)]
        if self.radius is not None and self.radius.binds(weights.array):
            active.append(f"{self.radius.text} ({RADIUS})")
        return active

    def _repr_html_(self) -> str:
        """Return a table of the limits, for notebooks."""
        rows = [(limit.text, limit.origin) for limit in self.strictest if not limit.is_open]
        for fixed in self.proportions:
            ratios = " : ".join(f"{name} {share_text(r)}" for name, r in fixed.ratios.items())
            rows.append((ratios, fixed.source))
        rows += [(self.radius.text, RADIUS)] if self.radius else []
        rails = self.guardrails
        if rails is not None:
            default = {} if rails.margin is None else {"every other loss": rails.margin}
            margins = {**rails.targets, **default}
            worse = [
                f"{name} at most {m} worse than {rails.reference}" for name, m in margins.items()
            ]
            worse += ["experts do not collapse"] * rails.experts
            rows += [(line, GUARDRAILS) for line in worse]
            rows += [(f"{name}: floor {bound:g}", FLOORS) for name, bound in rails.floors.items()]
        return html_table(("limit", "field"), rows)

    def _bounds(self, *, is_floor: bool) -> Array:
        single = [s for s in self.strictest if s.group is None and s.is_floor is is_floor]
        values = {limit.domains[0]: limit.value for limit in single}
        bounds_D = np.array([values.get(name, 0.0 if is_floor else 1.0) for name in self.domains])
        bounds_D.flags.writeable = False
        return bounds_D

    def _within(self, radius: Radius | None) -> ConvexSet:
        """Return the mixtures within bounds, groups, proportions and a radius."""
        rows: list[Array] = []
        lows: list[float] = []
        highs: list[float] = []
        for members, low, high in self.groups.values():
            rows.append(np.array([1.0 if name in members else 0.0 for name in self.domains]))
            lows, highs = [*lows, low], [*highs, high]
        for fixed in self.proportions:
            ratio_rows_RD = fixed.rows(self.domains)
            rows += [*ratio_rows_RD]
            zeros = [0.0] * len(ratio_rows_RD)
            lows, highs = [*lows, *zeros], [*highs, *zeros]
        rows_GD = np.array(rows).reshape(-1, len(self.domains))
        base = CappedSimplex(self.lower_D, self.upper_D)
        upper_R = np.array([*highs, *(-low for low in lows)])
        return ConvexSet(base, np.vstack([rows_GD, -rows_GD]), upper_R, radius)

    def _check_feasible(self) -> None:
        """Raise an error that names a minimal conflict if no mixture meets all limits."""
        limits = [limit for limit in self.linear if not limit.is_open]
        system = LimitSystem(self.domains, limits, self.radius)
        system.limits.sort(key=lambda limit: (limit.group is not None, limit.is_floor))
        crossed = (self.lower_D > self.upper_D + SLACK).any()
        is_simple = not (self.groups or self.radius or crossed)
        leaves_room = self.lower_D.sum() <= 1 + SLACK and self.upper_D.sum() >= 1 - SLACK
        if not (is_simple and leaves_room) and not system.is_possible:
            raise InfeasibleError(system.smallest().explain(system))
        if not self.proportions:
            return
        try:
            self._within(self.radius)
        except InfeasibleError as error:
            fields = ", ".join(fixed.source for fixed in self.proportions)
            raise InfeasibleError(
                f"no mixture keeps the ratios of {fields} and meets the other limits; widen the"
                " limits, or remove the ratios"
            ) from error


def _guardrails(config: ConstraintsConfig, base: Mapping[str, float] | None) -> Guardrails | None:
    """Return the limits on predictions: guardrails, floors, or both; None: neither."""
    rails, floors = config.guardrails, config.floors
    if rails is None:
        return Guardrails("natural", floors=floors) if floors else None
    has_experts, reference, margin = rails.experts is not None, rails.reference, rails.margin
    if isinstance(reference, str):
        return Guardrails(reference, margin, rails.targets, has_experts, base, floors)
    for name in rails.targets:
        if name not in reference:
            near = did_you_mean(name, tuple(reference))
            raise ConfigError(f"{GUARDRAILS}.targets: the reference has no {name!r}{near}")
    targets = {name: rails.targets.get(name, margin or 0.0) for name in reference}
    return Guardrails(BASE, None, targets, has_experts, reference, floors)


def _linear(
    config: ConstraintsConfig, inventory: Mapping[str, int], target_tokens: int | None
) -> Iterator[LinearLimit]:
    """Yield the bounds of domains, caps by epochs, and the bounds of branches and groups."""
    names = tuple(inventory)
    for name, (low, high) in config.bounds_of(names).items():
        source = "constraints.bounds"
        _check_order(f"{source}.{name}", low, high)
        yield from (cap(name, high, source),) if high < 1 else ()
        yield from (floor(name, low, source),) if low > 0 else ()
    epochs = config.epochs_of(names)
    if epochs and target_tokens is None:
        raise ConfigError(
            "constraints.max_epochs: needs the length of the full run; set propose.target_tokens"
            " (or --tokens 25e9)"
        )
    for domain, max_epochs in epochs.items():
        field = f".{domain}" if domain in (config.max_epochs or {}) else ""
        rate = inventory[domain] / (target_tokens or 1)
        yield LinearLimit(
            (domain,),
            min(max_epochs * rate, 1.0),
            f"constraints.max_epochs{field}",
            setting=max_epochs,
            rate=rate,
            inventory=inventory[domain],
            target_tokens=target_tokens or 0,
        )
    groups = [
        (f"constraints.bounds.{branch}", f"{branch}/*", below_branch(branch, names), ends)
        for branch, ends in config.branch_bounds(names).items()
    ]
    for name, group in (config.groups or {}).items():
        members = [m for pattern in group.domains for m in chosen(pattern, names) or (pattern,)]
        groups.append((f"constraints.groups.{name}", name, tuple(members), group.bounds))
    for source, name, domains, (low, high) in groups:
        for domain in domains:
            if domains.count(domain) > 1:
                raise ConfigError(f"{source}: domain {domain!r} is given twice")
        _check_order(source, low, high)
        yield LinearLimit(domains, high, source, name)
        yield LinearLimit(domains, low, source, name, is_floor=True)


def _check_order(source: str, low: float, high: float) -> None:
    if low > high:
        raise ConfigError(f"{source}: the minimum {low:g} is above the maximum {high:g}")


def _radius(config: ConstraintsConfig, inventory: Mapping[str, int]) -> Radius | None:
    radius = config.radius
    if radius is None:
        return None
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
        return Radius(reference, radius.reference, "kl", radius.kl)
    assert radius.tv is not None
    return Radius(reference, radius.reference, "tv", radius.tv)
