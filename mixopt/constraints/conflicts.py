"""Limits that no mixture meets together: the fewest in conflict, and what would resolve it.

Limits are deleted one by one as long as the rest stays infeasible (the deletion filter of Chinneck
and Dravnieks, 1991). The remaining limits are a minimal conflict: without any one of them it would
be feasible. For each of their settings, the message then gives the least change of this setting
alone that makes all limits feasible.

Shapes: D domains, R rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixopt.constraints.convex_limits import ConvexLimit
from mixopt.constraints.limits import LinearLimit
from mixopt.constraints.solvers import Polytope, are_linear
from mixopt.system import Array

MAX_HINTS = 5  # changes of a setting in one message


def conflict_message(
    domains: tuple[str, ...], linear: Sequence[LinearLimit], convex: tuple[ConvexLimit, ...]
) -> str | None:
    """Return the limits in conflict, its size, and changes that resolve it; None: no conflict."""
    by_kind = sorted(linear, key=lambda limit: (limit.group is not None, limit.is_floor))
    limits = _Limits(domains, by_kind, convex)
    return None if limits.are_possible else limits.fewest_in_conflict().explain(limits)


@dataclass(frozen=True, eq=False)
class _Limits:
    """Limits that a mixture should meet together; there may be no such mixture."""

    domains: tuple[str, ...]
    linear: list[LinearLimit]
    convex: tuple[ConvexLimit, ...]

    @property
    def are_possible(self) -> bool:
        """Whether some mixture meets all limits."""
        polytope = self.polytope()
        if not self.convex:
            return polytope.least_change() is not None
        deepest_D = polytope.deepest(self.convex)
        return deepest_D is not None and all(limit.is_met(deepest_D) for limit in self.convex)

    def fewest_in_conflict(self) -> _Limits:
        """Return a minimal conflict: remove all limits without which it stays infeasible."""
        limits = self
        for removed in self.convex:
            convex = tuple(limit for limit in limits.convex if limit is not removed)
            fewer = replace(limits, convex=convex)
            if not fewer.are_possible:
                limits = fewer
        for removed_limit in self.linear:
            linear = [limit for limit in limits.linear if limit is not removed_limit]
            fewer = replace(limits, linear=linear)
            if not fewer.are_possible:
                limits = fewer
        return limits

    def explain(self, everything: _Limits) -> str:
        """Return the message of this minimal conflict among `everything`."""
        texts: dict[str, list[str]] = {}
        hints: dict[str, str | None] = {}
        for limit in self.linear:
            texts.setdefault(limit.origin, []).append(limit.text)
            hints.setdefault(limit.moves_with, everything.hint(limit.moves_with))
        for convex_limit in self.convex:
            texts.setdefault(convex_limit.source, []).append(convex_limit.describe())
            hints.setdefault(convex_limit.source, everything.convex_hint(convex_limit))
        listed = [f"{source}: {', '.join(limits)}" for source, limits in texts.items()]
        conflict = f"no mixture satisfies all of these limits{self._gap()} ({'; '.join(listed)})"
        changes = [hint for hint in hints.values() if hint]
        if not changes:
            return f"{conflict}; change several of them"
        return f"{conflict}; {', or '.join(changes[:MAX_HINTS])}"

    def hint(self, setting: str) -> str | None:
        """Return the least sufficient change of one setting; None: no change suffices."""
        moving = [limit for limit in self.linear if limit.moves_with == setting]
        change = self.polytope(moving).least_change(self.convex)
        return None if change is None else moving[0].hint(change)

    def convex_hint(self, limit: ConvexLimit) -> str | None:
        """Return the least sufficient change of a convex limit; None: unknown, or none suffices."""
        others = [other for other in self.convex if other is not limit]
        nearest_D = self.polytope().lowest_value(limit, others)
        if nearest_D is None or not all(other.is_met(nearest_D) for other in others):
            return None
        return limit.hint(limit.value_at(nearest_D))

    def _gap(self) -> str:
        """Return the least change of a single bound that resolves it, as a share of tokens."""
        if not are_linear(self.convex):
            return ""
        gaps: list[float] = []
        for limit in self.linear:
            gap = self.polytope([limit], scaled=False).least_change(self.convex)
            if gap is not None:
                gaps.append(gap)
        return f", short by {min(gaps):.3g}" if gaps else ""

    def polytope(self, moving: Collection[LinearLimit] = (), *, scaled: bool = True) -> Polytope:
        """Return the linear limits as rows; a change relaxes `moving` ones, scaled ones from 0."""
        rows: list[Array] = []
        upper: list[float] = []
        relief: list[float] = []
        for limit in self.linear:
            rows.append(limit.row(self.domains))
            if limit not in moving:
                upper.append(limit.sign * limit.value)
                relief.append(0.0)
            elif scaled and limit.rate > 0:
                upper.append(0.0)
                relief.append(limit.rate * (limit.setting or 1.0))
            else:
                upper.append(limit.sign * limit.value)
                relief.append(1.0)
        domains = len(self.domains)
        return Polytope(
            lower_D=np.zeros(domains),
            upper_D=np.ones(domains),
            rows_RD=np.array(rows).reshape(-1, domains),
            upper_R=np.array(upper),
            relief_R=np.array(relief),
        )
