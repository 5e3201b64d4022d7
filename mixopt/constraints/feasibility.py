"""Decide whether any mixture is allowed; if not, name the conflict and how to resolve it.

Bounds of single domains need no solver: a least above its own most, leasts that add up to more than
1, mosts that add up to less.

Bounds of domains and groups together are rows of a linear program, and so is a radius in total
variation; the least KL divergence from a reference is one convex program more. Where they have no
mixture in common, limits are left out one by one as long as there is still none (the deletion
filter of Chinneck and Dravnieks, 1991). What remains is in conflict, and without any one of it
would not be. Then each setting in the conflict is asked for the least change of it alone that lets
a mixture in.

Shapes: D domains, R limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixopt.constraints.capped_simplex import SLACK
from mixopt.constraints.limits import (
    GroupLimit,
    Limit,
    described,
    down,
    inside_section,
    longest_run,
    smallest_setting,
    strictest,
    tokens,
    up,
)
from mixopt.constraints.radius import SOURCE, Radius
from mixopt.constraints.solvers import Rows
from mixopt.errors import InfeasibleError
from mixopt.system import Array


def check_bounds(domains: Sequence[str], floors: Sequence[Limit], caps: Sequence[Limit]) -> None:
    """Check that some weights between the floors and the caps add up to 1.

    Args:
        domains: Names, in order.
        floors: Least weights.
        caps: Most weights.

    Raises:
        InfeasibleError: None do.
    """
    lowest = strictest(caps, domains, min)
    highest = strictest(floors, domains, max)
    _check_each_domain(highest, lowest)
    _check_floors(highest)
    _check_caps(domains, caps, lowest)


def check_feasible(
    domains: Sequence[str],
    floors: Sequence[Limit],
    caps: Sequence[Limit],
    groups: Sequence[GroupLimit],
    radius: Radius | None,
) -> None:
    """Check that some mixture meets all limits.

    Args:
        domains: Names, in order.
        floors: Least weights.
        caps: Most weights.
        groups: Bounds of groups.
        radius: Most distance from a reference.

    Raises:
        InfeasibleError: None does; the message names a smallest set of limits in conflict, by how
            much, and the least change of each setting in it that resolves it.
    """
    limits = [
        *(_cap(cap, caps, domains) for cap in caps if cap.value < 1),
        *(_floor(floor, domains) for floor in floors if floor.value > 0),
        *(_most(group, domains) for group in groups if group.most < 1),
        *(_least(group, domains) for group in groups if group.least > 0),
    ]
    system = _System(limits, len(domains), radius)
    if not system.possible():
        raise InfeasibleError(_explain(system.smallest(), system))


def _check_each_domain(floors: Sequence[Limit], caps: Sequence[Limit]) -> None:
    caps_of = {cap.domain: cap for cap in caps}
    for floor in floors:
        cap = caps_of.get(floor.domain)
        if cap is not None and floor.value > cap.value + SLACK:
            raise InfeasibleError(
                f"domain {floor.domain!r}: {described(floor)} requires at least "
                f"{floor.value:.4g}, but {cap.refuse(floor.value)}"
            )


def _check_floors(floors: Sequence[Limit]) -> None:
    total = sum(floor.value for floor in floors)
    if total > 1 + SLACK:
        raise InfeasibleError(
            f"no mixture satisfies the minimum weights: they add up to {total:.4g}, "
            f"{total - 1:.4g} more than 1 ({_listed(floors)}); lower them by {up(total - 1)} in "
            "all"
        )


def _check_caps(domains: Sequence[str], caps: Sequence[Limit], lowest: Sequence[Limit]) -> None:
    values = {cap.domain: cap.value for cap in lowest}
    total = sum(values.get(name, 1.0) for name in domains)
    if total >= 1 - SLACK:
        return
    sources = dict.fromkeys(cap.source for cap in lowest)
    mends = [mend for source in sources if (mend := _mend(source, domains, caps, 1 - total))]
    raise InfeasibleError(
        f"no mixture satisfies the caps: they add up to {total:.4g}, {1 - total:.4g} short of 1 "
        f"({_listed(lowest)}); {', or '.join(mends) or 'raise several of them'}"
    )


def _mend(source: str, domains: Sequence[str], caps: Sequence[Limit], missing: float) -> str | None:
    """Say the smallest change of one field that lets the caps add up to 1."""
    own = [cap for cap in caps if cap.source == source]
    rest = strictest([cap for cap in caps if cap.source != source], domains, min)
    others = {**dict.fromkeys(domains, 1.0), **{cap.domain: cap.value for cap in rest}}
    if not any(cap.rate for cap in own):
        reach = sum(others.values())
        return f"raise {source} by {up(missing)} in all" if reach >= 1 - SLACK else None
    setting = smallest_setting(own, others)
    return None if setting is None else _allow(own, setting)


def _allow(limits: Sequence[Limit], setting: float) -> str:
    """Say that a field may be raised to `setting`, or the run shortened where that is the same."""
    mend = f"allow {inside_section(limits[0].source)}: {up(setting)}"
    run = longest_run(limits, setting)
    return f"{mend} (or a run of {tokens(float(down(run, 3)))} tokens)" if run else mend


def _listed(limits: Sequence[Limit]) -> str:
    """Write limits by source: `design.max_usage: 2: a 0.1, b 0.2; constraints.bounds: c 0.3`."""
    sources = dict.fromkeys(described(limit) for limit in limits)
    groups = {
        s: [f"{x.domain} {x.value:.3g}" for x in limits if described(x) == s] for s in sources
    }
    return "; ".join(f"{source}: {', '.join(names)}" for source, names in groups.items())


@dataclass(frozen=True, eq=False)
class _Row:
    """A limit as `row . w <= most`, and how a change of its setting moves it.

    Attributes:
        row_D: Coefficients.
        most: Upper bound.
        text: The limit in short.
        source: The field that it comes from, with its setting.
        setting: Limits of one setting are changed together.
        mend: Says what to set, given the change.
        rate: Bound for each unit of the setting; None where the change is added to the bound.
    """

    row_D: Array
    most: float
    text: str
    source: str
    setting: str
    mend: Callable[[float], str]
    rate: float | None = None


@dataclass(frozen=True, eq=False)
class _System:
    """Limits that are to be met together."""

    limits: Sequence[_Row]
    domains: int
    radius: Radius | None

    def possible(self) -> bool:
        """Tell whether a mixture meets all of them."""
        if self.radius is None:
            return self.rows().least_change() is not None
        found = self.rows().closest(self.radius)
        return found is not None and self.radius.allows(found[0])

    def smallest(self) -> _System:
        """Leave out what can be left out for the rest to be still in conflict."""
        system = replace(self, radius=None)
        if system.possible():
            system = self
        for limit in self.limits:
            fewer = replace(system, limits=[one for one in system.limits if one is not limit])
            system = system if fewer.possible() else fewer
        return system

    def mend(self, setting: str) -> str | None:
        """Say the least change of one setting that is enough; None where none is."""
        change = self.rows(setting).least_change(self.radius)
        own = [limit for limit in self.limits if limit.setting == setting]
        return None if change is None else own[0].mend(change)

    def gap(self) -> str:
        """Say how far one bound would have to move at least, in shares of the tokens."""
        if self.radius is not None and self.radius.kind == "kl":
            return ""
        gaps = [gap for limit in self.limits if (gap := self._alone(limit)) is not None]
        return f", short by {min(gaps):.3g}" if gaps else ""

    def rows(self, setting: str | None = None) -> Rows:
        """Return the limits as rows; those of one setting give way, from 0 where they scale."""
        moves_R = np.array([limit.setting == setting for limit in self.limits], dtype=bool)
        rates_R = np.array([limit.rate or 1.0 for limit in self.limits])
        scaled_R = np.array([limit.rate is not None for limit in self.limits], dtype=bool)
        most_R = np.array([limit.most for limit in self.limits])
        return Rows(
            np.array([limit.row_D for limit in self.limits]).reshape(-1, self.domains),
            np.where(moves_R & scaled_R, 0.0, most_R),
            np.zeros(self.domains),
            np.ones(self.domains),
            np.where(moves_R, rates_R, 0.0),
        )

    def _alone(self, limit: _Row) -> float | None:
        """Return how far the bound of one limit alone would have to move."""
        moved = replace(limit, setting="alone", rate=None)
        limits = [moved if one is limit else one for one in self.limits]
        return replace(self, limits=limits).rows("alone").least_change(self.radius)


def _explain(conflict: _System, whole: _System) -> str:
    sources = dict.fromkeys(limit.source for limit in conflict.limits)
    texts = {s: [limit.text for limit in conflict.limits if limit.source == s] for s in sources}
    named = [f"{source}: {', '.join(own)}" for source, own in texts.items()]
    settings = dict.fromkeys(limit.setting for limit in conflict.limits)
    mends = [mend for setting in settings if (mend := whole.mend(setting))]
    if conflict.radius is not None:
        named.append(f"{SOURCE}: {conflict.radius.text}")
        found = whole.rows().closest(conflict.radius)
        mends += [] if found is None else [f"allow radius.{conflict.radius.kind}: {up(found[0])}"]
    return (
        f"no mixture satisfies all of these limits{conflict.gap()} ({'; '.join(named)}); "
        f"{', or '.join(mends) or 'change several of them'}"
    )


def _cap(cap: Limit, caps: Sequence[Limit], domains: Sequence[str]) -> _Row:
    row = _Row(
        _members([cap.domain], domains),
        cap.value,
        f"{cap.domain} <= {cap.value:.3g}",
        described(cap),
        f"{cap.source} {cap.domain} most",
        lambda change: (
            f"raise the maximum of {cap.domain} to {up(cap.value + change)} in {cap.source}"
        ),
    )
    if not cap.rate:
        return row
    own = [other for other in caps if other.source == cap.source]
    return replace(row, setting=cap.source, mend=lambda change: _allow(own, change), rate=cap.rate)


def _floor(floor: Limit, domains: Sequence[str]) -> _Row:
    return _Row(
        -_members([floor.domain], domains),
        -floor.value,
        f"{floor.domain} >= {floor.value:.3g}",
        described(floor),
        f"{floor.source} {floor.domain} least",
        lambda change: (
            f"lower the minimum of {floor.domain} to {down(max(floor.value - change, 0.0))} in "
            f"{floor.source}"
        ),
    )


def _most(group: GroupLimit, domains: Sequence[str]) -> _Row:
    return _Row(
        _members(group.domains, domains),
        group.most,
        group.above,
        group.source,
        f"{group.source} most",
        lambda change: f"raise the maximum of {group.source} to {up(group.most + change)}",
    )


def _least(group: GroupLimit, domains: Sequence[str]) -> _Row:
    return _Row(
        -_members(group.domains, domains),
        -group.least,
        group.below,
        group.source,
        f"{group.source} least",
        lambda change: (
            f"lower the minimum of {group.source} to {down(max(group.least - change, 0.0))}"
        ),
    )


def _members(names: Sequence[str], domains: Sequence[str]) -> Array:
    return np.array([1.0 if name in names else 0.0 for name in domains])
