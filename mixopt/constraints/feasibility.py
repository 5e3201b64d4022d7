"""Decide whether any mixture is allowed; if not, name the conflict and how to resolve it.

Bounds of single domains need no solver. Bounds of domains and groups together are rows of a linear
program, and so is a radius in total variation; the least KL divergence from a reference is one
convex program more. Where limits have no mixture in common, they are left out one by one as long as
there is still none (the deletion filter of Chinneck and Dravnieks, 1991). What remains is in
conflict, and without any one of it would not be. Then each setting in the conflict is asked for the
least change of it alone that lets a mixture in.

Shapes: D domains, R limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixopt.constraints.capped_simplex import SLACK
from mixopt.constraints.limits import (
    RADIUS_SOURCE,
    EpochLimit,
    GroupLimit,
    Limit,
    Radius,
    described,
    down,
    inside_section,
    strictest,
    tokens,
    up,
)
from mixopt.constraints.solvers import LinearConstraints
from mixopt.errors import InfeasibleError
from mixopt.system import Array

MAX_HINTS = 5


def check_feasible(
    domains: Sequence[str],
    floors: Sequence[Limit],
    caps: Sequence[Limit],
    groups: Sequence[GroupLimit],
    radius: Radius | None,
) -> None:
    """Check that some mixture meets all limits, by an error that names a smallest conflict."""
    if not groups and radius is None and _bounds_leave_room(domains, floors, caps):
        return
    limits = [
        *(_cap(cap, caps, domains) for cap in caps if cap.value < 1),
        *(_floor(floor, domains) for floor in floors if floor.value > 0),
        *(_most(group, domains) for group in groups if group.most < 1),
        *(_least(group, domains) for group in groups if group.least > 0),
    ]
    system = _System(limits, len(domains), radius)
    if not system.possible():
        raise InfeasibleError(_explain(system.smallest(), system))


def _bounds_leave_room(
    domains: Sequence[str], floors: Sequence[Limit], caps: Sequence[Limit]
) -> bool:
    least = {floor.domain: floor.value for floor in strictest(floors, domains, max)}
    most = {cap.domain: cap.value for cap in strictest(caps, domains, min)}
    crossed = any(value > most.get(name, 1.0) + SLACK for name, value in least.items())
    total = sum(most.get(name, 1.0) for name in domains)
    return not crossed and sum(least.values()) <= 1 + SLACK and total >= 1 - SLACK


def _allow(limits: Sequence[Limit], setting: float) -> str:
    """Say that a field may be raised to `setting`, or the run shortened where that is the same."""
    hint = f"allow {inside_section(limits[0].source)}: {up(setting)}"
    epochs = next((limit for limit in limits if isinstance(limit, EpochLimit)), None)
    if epochs is None or not setting:
        return hint
    run = epochs.target_tokens * (epochs.setting or 0.0) / setting
    return f"{hint} (or a run of {tokens(float(down(run, 3)))} tokens)"


@dataclass(frozen=True, eq=False)
class _Row:
    """A limit as `row . w <= most`, and how a change of its setting moves it."""

    row_D: Array
    most: float
    text: str
    source: str
    setting: str
    hint: Callable[[float], str]
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

    def hint(self, setting: str) -> str | None:
        """Say the least change of one setting that is enough; None where none is."""
        change = self.rows(setting).least_change(self.radius)
        own = [limit for limit in self.limits if limit.setting == setting]
        return None if change is None else own[0].hint(change)

    def gap(self) -> str:
        """Say how far one bound would have to move at least, in shares of the tokens."""
        if self.radius is not None and self.radius.kind == "kl":
            return ""
        gaps = [gap for limit in self.limits if (gap := self._alone(limit)) is not None]
        return f", short by {min(gaps):.3g}" if gaps else ""

    def rows(self, setting: str | None = None) -> LinearConstraints:
        """Return the limits as rows; those of one setting give way, from 0 where they scale."""
        moves_R = np.array([limit.setting == setting for limit in self.limits], dtype=bool)
        rates_R = np.array([limit.rate or 1.0 for limit in self.limits])
        scaled_R = np.array([limit.rate is not None for limit in self.limits], dtype=bool)
        most_R = np.array([limit.most for limit in self.limits])
        return LinearConstraints(
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
    hints = [hint for setting in settings if (hint := whole.hint(setting))]
    if conflict.radius is not None:
        named.append(f"{RADIUS_SOURCE}: {conflict.radius.text}")
        found = whole.rows().closest(conflict.radius)
        hints += [] if found is None else [f"allow radius.{conflict.radius.kind}: {up(found[0])}"]
    return (
        f"no mixture satisfies all of these limits{conflict.gap()} ({'; '.join(named)}); "
        f"{', or '.join(hints[:MAX_HINTS]) or 'change several of them'}"
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
    if isinstance(cap, EpochLimit) and not cap.inventory:
        return replace(row, hint=lambda _: f"give {cap.domain} training tokens: it has none")
    if not cap.rate:
        return row
    own, setting = [other for other in caps if other.source == cap.source], cap.setting or 1.0
    # In multiples of the present setting, which may be of any size.
    return replace(
        row,
        setting=cap.source,
        hint=lambda times: _allow(own, times * setting),
        rate=cap.rate * setting,
    )


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
