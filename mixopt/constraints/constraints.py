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

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from mixopt.config import ConstraintsConfig
from mixopt.constraints.capped_simplex import SLACK, CappedSimplex
from mixopt.constraints.convex_set import Allowed, ConvexSet
from mixopt.constraints.guardrails import SOURCE as GUARDRAILS, Guardrails
from mixopt.constraints.limits import (
    ConvexLimit,
    LinearLimit,
    MinEntropy,
    Proportions,
    Radius,
    cap,
    epoch_cap,
    floor,
)
from mixopt.constraints.solvers import LinearConstraints
from mixopt.errors import ConfigError, InfeasibleError, MixtureError, did_you_mean
from mixopt.mixture import Mixture, Phases
from mixopt.system import (
    Array,
    below_branch,
    choice_fault,
    chosen,
    html_table,
    share_text,
)

FREE = "--free"  # begins the source of limits that hold all other domains
PHASES = "design.phases"
BINDING = 1e-4  # a weight this near its limit counts as held by it
MAX_HINTS = 5


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
        lower_D: Least weight of each domain, shape (D,).
        upper_D: Most weight of each domain, shape (D,).

    Raises:
        ConfigError: A limit of a domain that is not there.
        InfeasibleError: No mixture meets the limits.

    Example:
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
    lower_D: Array = field(init=False, repr=False, compare=False)
    upper_D: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for limit in self.linear:
            for domain in limit.domains:
                if domain not in self.domains:
                    near = did_you_mean(domain, self.domains)
                    raise ConfigError(f"{limit.source}: unknown domain {domain!r}{near}")
        single = [limit for limit in self.strictest if limit.group is None]
        for name, is_floor in (("lower_D", True), ("upper_D", False)):
            values = {one.domains[0]: one.value for one in single if one.is_floor is is_floor}
            bounds_D = np.array(
                [values.get(domain, 0.0 if is_floor else 1.0) for domain in self.domains]
            )
            bounds_D.flags.writeable = False
            object.__setattr__(self, name, bounds_D)
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
        found = cls(
            tuple(inventory),
            (
                *_bounds(config, tuple(inventory)),
                *_epoch_caps(config, inventory, target_tokens),
                *_groups(config, tuple(inventory)),
            ),
            tuple(_convex(config, inventory)),
            tuple(_proportions(config, inventory)),
            _guardrails(config, base),
        )
        return found if phases is None else found._by_phase(phases)

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
        radii = [one for one in self.convex if isinstance(one, Radius)]
        if len(radii) < len(self.convex):
            raise ConfigError("constraints.min_entropy: is not for phases; use a radius or bounds")
        fixed = [
            Proportions({f"{phase}/{name}": r for name, r in one.ratios.items()}, one.source)
            for one in self.proportions
            for phase in phases
        ]
        return Constraints(
            phases.cells(self.domains),
            tuple(linear),
            tuple(replace(one, reference=phases.tied(one.reference)) for one in radii),
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
    def simplex(self) -> Allowed:
        """The weights allowed by linear limits and proportions, from which designs draw."""
        bounds = CappedSimplex(self.lower_D, self.upper_D)
        return self._within(bounds, ()) if self.groups or self.proportions else bounds

    @cached_property
    def allowed(self) -> Allowed:
        """The weights allowed for a proposal, convex limits included."""
        if not self.convex:
            return self.simplex
        return self._within(CappedSimplex(self.lower_D, self.upper_D), self.convex)

    @cached_property
    def strictest(self) -> list[LinearLimit]:
        """The limits that count: caps and floors in the domains' order, then those of groups."""
        found: dict[tuple[str | None, str, bool], LinearLimit] = {}
        for limit in self.linear:
            key = (limit.group, limit.domains[0], limit.is_floor)
            other = found.get(key)
            if other is None or limit.sign * limit.value < limit.sign * other.value:
                found[key] = limit
        single = [(None, domain, side) for side in (False, True) for domain in self.domains]
        groups = [key for key in found if key[0] is not None]
        return [found[key] for key in (*single, *groups) if key in found]

    @cached_property
    def groups(self) -> dict[str, tuple[tuple[str, ...], float, float]]:
        """The domains of each group, and the least and the most that they may have together."""
        found: dict[str, tuple[tuple[str, ...], float, float]] = {}
        for limit in self.linear:
            if limit.group is not None:
                _, least, most = found.get(limit.group, ((), 0.0, 1.0))
                ends = (limit.value, most) if limit.is_floor else (least, limit.value)
                found[limit.group] = (limit.domains, *ends)
        return found

    @property
    def in_force(self) -> tuple[str, ...]:
        """The fields that limits come from, each once: `constraints.max_epochs: 4`."""
        linear = [limit.origin for limit in self.strictest if not limit.is_open]
        others = [one.source for one in self.proportions]
        others += [one.source for one in self.convex]
        rails = [] if self.guardrails is None else [GUARDRAILS]
        return tuple(dict.fromkeys([*linear, *others, *rails]))

    def violations(self, mixture: Mixture, *, tolerance: float = 1e-6) -> list[str]:
        """Return one line for each limit that a mixture violates by more than `tolerance`."""
        weights = mixture.over(self.domains)
        lines = [limit.violation(weights, tolerance) for limit in self.strictest]
        lines += [one.violation(weights) for one in self.proportions]
        lines += [one.violation(weights.array, tolerance) for one in self.convex]
        return [line for line in lines if line]

    def binding(self, mixture: Mixture, *, tolerance: float = BINDING) -> list[str]:
        """Name the active constraints: `europarl <= 0.157 (constraints.max_epochs: 4)`.

        Args:
            mixture: A mixture of the same domains.
            tolerance: How near its limit a weight counts as held.
        """
        weights = mixture.over(self.domains)
        held = [
            f"{limit.text} ({limit.origin})"
            for limit in self.strictest
            if not (limit.is_open or limit.source == PHASES or limit.source.startswith(FREE))
            and abs(limit.share(weights) - limit.value) <= tolerance
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
        if self.guardrails is not None:
            own = self.guardrails
            worse: list[tuple[str, float | str]] = list(own.targets.items())
            worse += [] if own.margin is None else [("every other loss", own.margin)]
            words = [f"{name}: floor {value:g}" for name, value in own.floors.items()]
            words += [
                f"{name} at most {margin} worse than {own.reference}" for name, margin in worse
            ]
            rows += [(one, GUARDRAILS) for one in words or ["experts do not collapse"]]
        return html_table(("limit", "field"), rows)

    def _within(self, bounds: CappedSimplex, convex: tuple[ConvexLimit, ...]) -> ConvexSet:
        rows = [
            np.array([1.0 if name in members else 0.0 for name in self.domains])
            for members, _, _ in self.groups.values()
        ]
        fixed = [row_D for one in self.proportions for row_D in one.rows(self.domains)]
        ends = [(least, most) for _, least, most in self.groups.values()]
        ends_G2 = np.array([*ends, *[(0.0, 0.0)] * len(fixed)]).reshape(-1, 2)
        rows_GD = np.array([*rows, *fixed]).reshape(-1, len(self.domains))
        return ConvexSet(bounds, rows_GD, ends_G2[:, 0], ends_G2[:, 1], convex)

    def _check_feasible(self) -> None:
        """Check that some mixture meets all limits, by an error that names a smallest conflict."""
        if self.groups or self.convex or not self._bounds_leave_room:
            closed = [limit for limit in self.linear if not limit.is_open]
            limits = sorted(closed, key=lambda one: (one.group is not None, one.is_floor))
            system = _System(self.domains, limits, self.convex)
            if not system.is_possible:
                raise InfeasibleError(system.smallest().explain(system))
        if self.proportions:
            self._check_proportions()

    @property
    def _bounds_leave_room(self) -> bool:
        crossed = (self.lower_D > self.upper_D + SLACK).any()
        return bool(
            not crossed and self.lower_D.sum() <= 1 + SLACK and self.upper_D.sum() >= 1 - SLACK
        )

    def _check_proportions(self) -> None:
        """Check that some mixture is in the fixed ratios and meets the other limits."""
        try:
            self._within(CappedSimplex(self.lower_D, self.upper_D), self.convex)
        except InfeasibleError as error:
            fields = ", ".join(one.source for one in self.proportions)
            raise InfeasibleError(
                f"no mixture keeps the ratios of {fields} and meets the other limits; widen these,"
                " or leave the ratios out"
            ) from error


@dataclass(frozen=True, eq=False)
class _System:
    """Limits that are to be met together."""

    domains: tuple[str, ...]
    limits: Sequence[LinearLimit]
    convex: tuple[ConvexLimit, ...]

    @property
    def is_possible(self) -> bool:
        """Whether a mixture meets all of them."""
        if not self.convex:
            return self.rows().least_change() is not None
        found = self.rows().deepest(self.convex)
        return found is not None and all(
            one.allows(float(one.value(found[None])[0])) for one in self.convex
        )

    def smallest(self) -> _System:
        """Leave out what can be left out for the rest to be still in conflict."""
        system = self
        for convex in (self.convex, *((one,) for one in self.convex)):
            fewer = replace(system, convex=tuple(one for one in system.convex if one not in convex))
            system = system if fewer.is_possible else fewer
        for limit in self.limits:
            fewer = replace(system, limits=[one for one in system.limits if one is not limit])
            system = system if fewer.is_possible else fewer
        return system

    def explain(self, whole: _System) -> str:
        """Say what is in conflict, by how much, and the changes that resolve it."""
        sources = dict.fromkeys(limit.origin for limit in self.limits)
        texts = {s: [one.text for one in self.limits if one.origin == s] for s in sources}
        named = [f"{source}: {', '.join(own)}" for source, own in texts.items()]
        named += [f"{one.source}: {one.text}" for one in self.convex]
        hints = [
            whole.hint(setting) for setting in dict.fromkeys(o.moves_with for o in self.limits)
        ]
        hints += [whole.convex_hint(one) for one in self.convex]
        known = [hint for hint in hints if hint]
        return (
            f"no mixture satisfies all of these limits{self._gap()} ({'; '.join(named)}); "
            f"{', or '.join(known[:MAX_HINTS]) or 'change several of them'}"
        )

    def hint(self, setting: str) -> str | None:
        """Say the least change of one setting that is enough; None where none is."""
        own = [limit for limit in self.limits if limit.moves_with == setting]
        change = self.rows(own).least_change(self.convex)
        return None if change is None else own[0].hint(change)

    def convex_hint(self, limit: ConvexLimit) -> str | None:
        """Say the least size of a convex limit that is enough; None where none is."""
        others = [one for one in self.convex if one is not limit]
        found = self.rows().deepest([limit])
        if found is None or not all(one.allows(float(one.value(found[None])[0])) for one in others):
            return None
        return f"allow {limit.allow(float(limit.value(found[None])[0]))}"

    def _gap(self) -> str:
        """Say how far one bound would have to move at least, in shares of the tokens."""
        if not all(one.is_variation for one in self.convex):
            return ""
        rows = [self.rows([limit], scaled=False) for limit in self.limits]
        gaps = [gap for one in rows if (gap := one.least_change(self.convex)) is not None]
        return f", short by {min(gaps):.3g}" if gaps else ""

    def rows(
        self, moving: Collection[LinearLimit] = (), *, scaled: bool = True
    ) -> LinearConstraints:
        """Return the limits as rows; those that move give way, from 0 where they scale."""
        scales = [scaled and one.rate > 0 and one in moving for one in self.limits]
        most, gives = [], []
        for one, scales_with in zip(self.limits, scales, strict=True):
            most.append(0.0 if scales_with else one.sign * one.value)
            rate = one.rate * (one.setting or 1.0) if scales_with else 1.0
            gives.append(rate if one in moving else 0.0)
        domains = len(self.domains)
        return LinearConstraints(
            np.array([one.row(self.domains) for one in self.limits]).reshape(-1, domains),
            np.array(most),
            np.zeros(domains),
            np.ones(domains),
            np.array(gives),
        )


def _guardrails(config: ConstraintsConfig, base: Mapping[str, float] | None) -> Guardrails | None:
    """Return what holds predictions: guardrails, floors, or both."""
    rails, floors = config.guardrails, config.floors
    if rails is None:
        return Guardrails("natural", floors=floors) if floors else None
    has_experts = rails.experts is not None
    return Guardrails(rails.reference, rails.margin, rails.targets, has_experts, base, floors)


def _bounds(config: ConstraintsConfig, domains: tuple[str, ...]) -> Iterator[LinearLimit]:
    source = "constraints.bounds"
    for name, (least, most) in config.bounds_of(domains).items():
        if least > most:
            raise ConfigError(
                f"{source}.{name}: the minimum, {least:g}, is above the maximum, {most:g}"
            )
        if most < 1:
            yield cap(name, most, source)
        if least > 0:
            yield floor(name, least, source)


def _epoch_caps(
    config: ConstraintsConfig, inventory: Mapping[str, int], target_tokens: int | None
) -> Iterator[LinearLimit]:
    """Yield a cap for each domain with a number of epochs; its own number wins."""
    most = config.epochs_of(tuple(inventory))
    if most and target_tokens is None:
        raise ConfigError(
            "constraints.max_epochs: needs the length of the full run; set propose.target_tokens"
            " (or --tokens 25e9)"
        )
    for domain, epochs in most.items():
        is_own = domain in (config.max_epochs or {})
        source = f"constraints.max_epochs{f'.{domain}' if is_own else ''}"
        yield epoch_cap(domain, inventory[domain], epochs, target_tokens or 0, source)


def _groups(config: ConstraintsConfig, known: tuple[str, ...]) -> Iterator[LinearLimit]:
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
        if least > most:
            raise ConfigError(f"{source}: the minimum, {least:g}, is above the maximum, {most:g}")
        yield LinearLimit(domains, most, source, name)
        yield LinearLimit(domains, least, source, name, is_floor=True)


def _proportions(config: ConstraintsConfig, inventory: Mapping[str, int]) -> Iterator[Proportions]:
    for name, given in (config.proportions or {}).items():
        natural = {domain: inventory.get(domain, 0) for domain in given}
        source = f"constraints.proportions.{name}"
        yield Proportions.of(
            given if isinstance(given, dict) else natural, tuple(inventory), source
        )


def _convex(config: ConstraintsConfig, inventory: Mapping[str, int]) -> Iterator[ConvexLimit]:
    if config.min_entropy is not None:
        yield MinEntropy.of(tuple(inventory), config.min_entropy)
    radius = config.radius
    if radius is None:
        return
    reference = _reference(radius.reference, inventory)
    if radius.kl is not None:
        yield Radius(reference, radius.reference, "kl", radius.kl)
    if radius.tv is not None:
        yield Radius(reference, radius.reference, "tv", radius.tv)


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
            f"{Radius.source}.reference: {error}; it is natural, uniform, or a file of weights"
        ) from error
