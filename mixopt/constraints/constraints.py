"""Limits on mixtures, and whether any mixture meets them; if not, the conflict and how to fix it.

Limits come from bounds that the user sets, from how often a domain may be repeated in the full
run, and, for a design, from its caps. Convex limits and guardrails hold the proposal alone: a
design that kept to them would try nothing from which to learn what is outside.

Where limits have no mixture in common, they are left out one by one as long as there is still none
(the deletion filter of Chinneck and Dravnieks, 1991). What remains is in conflict, and without any
one of it would not be. Then each setting in the conflict is asked for the least change of it alone
that lets a mixture in.

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
from mixopt.constraints.limits import ConvexLimit, LinearLimit, Proportions, cap, floor
from mixopt.constraints.solvers import LimitSystem
from mixopt.errors import ConfigError, InfeasibleError, MixtureError, did_you_mean
from mixopt.mixture import Mixture, Phases
from mixopt.system import Array, below_branch, choice_fault, chosen, html_table, share_text

FREE = "--free"  # begins the source of limits that hold all other domains
PHASES = "design.phases"
BINDING = 1e-4  # a weight this near its limit counts as held by it


@dataclass(frozen=True)
class Constraints:
    """Limits on the weights of named domains, satisfied by at least one mixture.

    Attributes:
        domains: Names, in order.
        linear: The most and the least that domains and groups may have; of several for the same,
            the strictest counts.
        convex: Limits on convex functions of the mixture, such as its distance from another.
        proportions: Domains that keep the same ratios to each other.
        guardrails: How much worse than a reference losses may be predicted; whether any mixture
            keeps them is seen in the search.

    Raises:
        ConfigError: A limit of a domain that is not there.
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
        """Build the limits that a configuration states.

        Args:
            config: Bounds of domains and groups, epochs, radius, entropy and guardrails.
            inventory: Distinct training tokens of every domain, in order.
            target_tokens: Length of the full run; `max_epochs` needs it.
            base: What the checkpoint loses that trials begin with; None where not measured.
            phases: Phases of the run, whose mixtures are of cells; limits are of domains over all.

        Raises:
            ConfigError: An unknown domain, a least above its most, `max_epochs` without
                `target_tokens`, or a reference that cannot be read.
            InfeasibleError: No mixture meets the limits.
        """
        constraints = cls(
            tuple(inventory),
            tuple(_linear(config, inventory, target_tokens)),
            tuple(_convex(config, inventory)),
            tuple(
                Proportions.of(
                    given if isinstance(given, dict) else {n: inventory.get(n, 0) for n in given},
                    tuple(inventory),
                    f"constraints.proportions.{name}",
                )
                for name, given in (config.proportions or {}).items()
            ),
            _guardrails(config, base),
        )
        return constraints if phases is None else constraints._by_phase(phases)

    def _by_phase(self, phases: Phases) -> Constraints:
        """Return limits of cells: those of domains hold their shares over all phases."""
        linear = [
            replace(one, domains=phases.cells(one.domains), group=one.group or one.domains[0])
            for one in self.linear
        ]
        for phase, length in phases.items():
            own = tuple(f"{phase}/{name}" for name in self.domains)
            held = LinearLimit(own, length, PHASES, f"phase {phase}")
            linear += [held, replace(held, is_floor=True)]
        if any(one.is_entropy for one in self.convex):
            raise ConfigError("constraints.min_entropy: is not for phases; use a radius or bounds")
        fixed = [
            Proportions({f"{phase}/{name}": r for name, r in one.ratios.items()}, one.source)
            for one in self.proportions
            for phase in phases
        ]
        return Constraints(
            phases.cells(self.domains),
            tuple(linear),
            tuple(replace(one, reference=phases.tied(one.reference)) for one in self.convex),
            tuple(fixed),
            self.guardrails,
        )

    def tied(self, phases: Phases) -> Constraints:
        """Return the same limits on mixtures of cells that are the same in all phases."""
        ties = [
            Proportions({f"{phase}/{name}": phases[phase] for phase in phases}, PHASES)
            for name in phases.names(self.domains)
        ]
        return replace(self, proportions=(*self.proportions, *ties))

    def with_limits(self, limits: Iterable[LinearLimit]) -> Constraints:
        """Return the same limits and further ones.

        Raises:
            InfeasibleError: No mixture meets them together.
        """
        return replace(self, linear=(*self.linear, *limits))

    def frozen_but(self, free: Sequence[str], reference: Mixture, name: str) -> Constraints:
        """Return the same limits with all domains but some held at their shares in a mixture.

        Args:
            free: Domains, branches or globs that may move.
            reference: The mixture.
            name: What messages call it.

        Raises:
            ConfigError: A pattern that chooses no domain, or fewer than two domains are free.
            InfeasibleError: No mixture meets the limits with these shares.
        """
        for pattern in free:
            fault = choice_fault(pattern, self.domains, "domain")
            if fault is not None:
                raise ConfigError(f"{FREE} {pattern}: {fault}")
        moving = {one for pattern in free for one in chosen(pattern, self.domains)}
        if len(moving) < 2:
            raise ConfigError(
                f"{FREE} {' '.join(free)}: one domain alone has what the others leave; free two or"
                " more, such as a branch"
            )
        source = f"{FREE}, at the shares of {name}"
        fixed = {n: w for n, w in reference.over(self.domains).items() if n not in moving}
        caps = [cap(domain, weight, source) for domain, weight in fixed.items()]
        return self.with_limits([*caps, *(floor(n, w, source) for n, w in fixed.items())])

    @cached_property
    def lower_D(self) -> Array:
        """Least weight of each domain, shape (D,)."""
        return self._bounds(is_floor=True)

    @cached_property
    def upper_D(self) -> Array:
        """Most weight of each domain, shape (D,)."""
        return self._bounds(is_floor=False)

    @cached_property
    def simplex(self) -> Allowed:
        """The weights allowed by linear limits and proportions, from which designs draw."""
        if self.groups or self.proportions:
            return self._within(())
        return CappedSimplex(self.lower_D, self.upper_D)

    @cached_property
    def allowed(self) -> Allowed:
        """The weights allowed for a proposal, convex limits included."""
        return self._within(self.convex) if self.convex else self.simplex

    @cached_property
    def strictest(self) -> list[LinearLimit]:
        """The limits that count: caps and floors in the domains' order, then those of groups."""
        strictest: dict[tuple[str | None, str, bool], LinearLimit] = {}
        for limit in self.linear:
            key = (limit.group, limit.domains[0], limit.is_floor)
            other = strictest.get(key)
            if other is None or limit.sign * limit.value < limit.sign * other.value:
                strictest[key] = limit
        single = [(None, domain, side) for side in (False, True) for domain in self.domains]
        groups = [key for key in strictest if key[0] is not None]
        return [strictest[key] for key in (*single, *groups) if key in strictest]

    @cached_property
    def groups(self) -> dict[str, tuple[tuple[str, ...], float, float]]:
        """The domains of each group, and the least and the most that they may have together."""
        groups: dict[str, tuple[tuple[str, ...], float, float]] = {}
        for limit in self.strictest:
            if limit.group is not None:
                _, least, most = groups.get(limit.group, ((), 0.0, 1.0))
                ends = (limit.value, most) if limit.is_floor else (least, limit.value)
                groups[limit.group] = (limit.domains, *ends)
        return groups

    @property
    def in_force(self) -> tuple[str, ...]:
        """The fields that limits come from, each once: `constraints.max_epochs: 4`."""
        linear = [limit.origin for limit in self.strictest if not limit.is_open]
        others = [one.source for one in self.proportions]
        others += [one.source for one in self.convex]
        rails = [] if self.guardrails is None else self.guardrails.sources
        return tuple(dict.fromkeys([*linear, *others, *rails]))

    def violations(self, mixture: Mixture) -> list[str]:
        """Return one line for each limit that a mixture violates by more than 1e-6."""
        weights = mixture.over(self.domains)
        lines = [limit.violation(weights) for limit in self.strictest]
        lines += [one.violation(weights) for one in self.proportions]
        lines += [one.violation(weights.array) for one in self.convex]
        return [line for line in lines if line]

    def binding(self, mixture: Mixture) -> list[str]:
        """Name the active constraints: `europarl <= 0.157 (constraints.max_epochs: 4)`."""
        weights = mixture.over(self.domains)
        held = [
            f"{limit.text} ({limit.origin})"
            for limit in self.strictest
            if not (limit.is_open or limit.source == PHASES or limit.source.startswith(FREE))
            and abs(limit.share(weights) - limit.value) <= BINDING
        ]
        frozen = [one.source for one in self.linear if one.is_floor and one.source.startswith(FREE)]
        held += [f"{frozen.count(one)} domains are fixed ({one})" for one in dict.fromkeys(frozen)]
        convex = [one for one in self.convex if one.binds(weights.array)]
        return held + [f"{one.text} ({one.source})" for one in convex]

    def _repr_html_(self) -> str:
        """Return a table of the limits, for notebooks."""
        rows = [(one.text, one.origin) for one in self.strictest if not one.is_open]
        for fixed in self.proportions:
            ratios = " : ".join(f"{name} {share_text(one)}" for name, one in fixed.ratios.items())
            rows.append((ratios, fixed.source))
        rows += [(one.text, one.source) for one in self.convex]
        rails = self.guardrails
        if rails is not None:
            others = {} if rails.margin is None else {"every other loss": rails.margin}
            margins = {**rails.targets, **others}
            worse = [
                f"{name} at most {m} worse than {rails.reference}" for name, m in margins.items()
            ]
            worse += ["experts do not collapse"] * rails.experts
            rows += [(one, GUARDRAILS) for one in worse]
            rows += [(f"{name}: floor {bound:g}", FLOORS) for name, bound in rails.floors.items()]
        return html_table(("limit", "field"), rows)

    def _bounds(self, *, is_floor: bool) -> Array:
        single = [one for one in self.strictest if one.group is None and one.is_floor is is_floor]
        values = {one.domains[0]: one.value for one in single}
        bounds_D = np.array([values.get(name, 0.0 if is_floor else 1.0) for name in self.domains])
        bounds_D.flags.writeable = False
        return bounds_D

    def _within(self, convex: tuple[ConvexLimit, ...]) -> ConvexSet:
        """Return the mixtures within bounds, groups, proportions and radii."""
        rows: list[Array] = []
        least: list[float] = []
        most: list[float] = []
        for members, low, high in self.groups.values():
            rows.append(np.array([1.0 if name in members else 0.0 for name in self.domains]))
            least, most = [*least, low], [*most, high]
        for one in self.proportions:
            own_RD = one.rows(self.domains)
            rows += [*own_RD]
            least, most = [*least, *[0.0] * len(own_RD)], [*most, *[0.0] * len(own_RD)]
        rows_GD = np.array(rows).reshape(-1, len(self.domains))
        base = CappedSimplex(self.lower_D, self.upper_D)
        most_R = np.array([*most, *(-one for one in least)])
        return ConvexSet(base, np.vstack([rows_GD, -rows_GD]), most_R, convex)

    def _check_feasible(self) -> None:
        """Check that some mixture meets all limits, by an error that names a smallest conflict."""
        system = LimitSystem(
            self.domains, [one for one in self.linear if not one.is_open], self.convex
        )
        system.limits.sort(key=lambda one: (one.group is not None, one.is_floor))
        crossed = (self.lower_D > self.upper_D + SLACK).any()
        is_simple = not (self.groups or self.convex or crossed)
        leaves_room = self.lower_D.sum() <= 1 + SLACK and self.upper_D.sum() >= 1 - SLACK
        if not (is_simple and leaves_room) and not system.is_possible:
            raise InfeasibleError(system.smallest().explain(system))
        if not self.proportions:
            return
        try:
            self._within(self.convex)
        except InfeasibleError as error:
            fields = ", ".join(one.source for one in self.proportions)
            raise InfeasibleError(
                f"no mixture keeps the ratios of {fields} and meets the other limits; widen these,"
                " or leave the ratios out"
            ) from error


def _guardrails(config: ConstraintsConfig, base: Mapping[str, float] | None) -> Guardrails | None:
    """Return what holds predictions: guardrails, floors, or both."""
    rails, floors = config.guardrails, config.floors
    if rails is None:
        return Guardrails("natural", floors=floors) if floors else None
    has_experts, reference, margin = rails.experts is not None, rails.reference, rails.margin
    if isinstance(reference, str):
        return Guardrails(reference, margin, rails.targets, has_experts, base, floors)
    for name in rails.targets:
        if name not in reference:
            near = did_you_mean(name, tuple(reference))
            raise ConfigError(f"{GUARDRAILS}.targets: reference has no {name!r}{near}")
    targets = {name: rails.targets.get(name, margin or 0.0) for name in reference}
    return Guardrails(BASE, None, targets, has_experts, reference, floors)


def _linear(
    config: ConstraintsConfig, inventory: Mapping[str, int], target_tokens: int | None
) -> Iterator[LinearLimit]:
    """Yield the bounds of domains, caps by epochs, and the bounds of branches and groups."""
    known = tuple(inventory)
    for name, (least, most) in config.bounds_of(known).items():
        source = "constraints.bounds"
        _check_order(f"{source}.{name}", least, most)
        yield from (cap(name, most, source),) if most < 1 else ()
        yield from (floor(name, least, source),) if least > 0 else ()
    epochs = config.epochs_of(known)
    if epochs and target_tokens is None:
        raise ConfigError(
            "constraints.max_epochs: needs the length of the full run; set propose.target_tokens"
            " (or --tokens 25e9)"
        )
    for domain, most in epochs.items():
        is_own = domain in (config.max_epochs or {})
        rate = inventory[domain] / (target_tokens or 1)
        yield LinearLimit(
            (domain,),
            min(most * rate, 1.0),
            f"constraints.max_epochs{f'.{domain}' if is_own else ''}",
            setting=most,
            rate=rate,
            inventory=inventory[domain],
            target_tokens=target_tokens or 0,
        )
    groups = [
        (f"constraints.bounds.{branch}", f"{branch}/*", below_branch(branch, known), ends)
        for branch, ends in config.branch_bounds(known).items()
    ]
    for name, group in (config.groups or {}).items():
        members = [one for pattern in group.domains for one in chosen(pattern, known) or (pattern,)]
        groups.append((f"constraints.groups.{name}", name, tuple(members), group.bounds))
    for source, name, domains, (least, most) in groups:
        for domain in domains:
            if domains.count(domain) > 1:
                raise ConfigError(f"{source}: domain {domain!r} is given twice")
        _check_order(source, least, most)
        yield LinearLimit(domains, most, source, name)
        yield LinearLimit(domains, least, source, name, is_floor=True)


def _check_order(source: str, least: float, most: float) -> None:
    if least > most:
        raise ConfigError(f"{source}: the minimum, {least:g}, is above the maximum, {most:g}")


def _convex(config: ConstraintsConfig, inventory: Mapping[str, int]) -> Iterator[ConvexLimit]:
    if config.min_entropy is not None:
        yield ConvexLimit.of_entropy(tuple(inventory), config.min_entropy)
    radius = config.radius
    if radius is None:
        return
    known = tuple(inventory)
    if radius.reference == "natural":
        reference = Mixture.natural(inventory)
    elif radius.reference == "uniform":
        reference = Mixture.uniform(known)
    else:
        try:
            reference = Mixture.from_file(Path(radius.reference)).over(known)
        except MixtureError as error:
            raise ConfigError(
                f"constraints.radius.reference: {error}; it is natural, uniform, or a file of"
                " weights"
            ) from error
    if radius.kl is not None:
        yield ConvexLimit(reference, radius.reference, "kl", radius.kl)
    if radius.tv is not None:
        yield ConvexLimit(reference, radius.reference, "tv", radius.tv)
