"""Do bounds of single domains leave room for a mixture? If not: which, by how much, what mends it.

Bounds alone need no solver: a least above its own most, leasts that add up to more than 1, mosts
that add up to less. What groups and a radius add is in mixopt.constraints.feasibility.

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Sequence

from mixopt.constraints.capped_simplex import SLACK
from mixopt.constraints.domain_limits import (
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
from mixopt.errors import InfeasibleError


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


def _check_each_domain(floors: Sequence[Limit], caps: Sequence[Limit]) -> None:
    caps_of = {cap.domain: cap for cap in caps}
    for floor in floors:
        cap = caps_of.get(floor.domain)
        if cap is not None and floor.value > cap.value + SLACK:
            raise InfeasibleError(
                f"domain {floor.domain!r}: {described(floor)} asks for at least"
                f" {floor.value:.4g}, but {cap.refuse(floor.value)}"
            )


def _check_floors(floors: Sequence[Limit]) -> None:
    total = sum(floor.value for floor in floors)
    if total > 1 + SLACK:
        raise InfeasibleError(
            f"no mixture meets the least weights: they add up to {total:.4g}, {total - 1:.4g}"
            f" more than 1 ({_listed(floors)}); lower them by {up(total - 1)} in all"
        )


def _check_caps(domains: Sequence[str], caps: Sequence[Limit], lowest: Sequence[Limit]) -> None:
    values = {cap.domain: cap.value for cap in lowest}
    total = sum(values.get(name, 1.0) for name in domains)
    if total >= 1 - SLACK:
        return
    sources = dict.fromkeys(cap.source for cap in lowest)
    mends = [mend for source in sources if (mend := _mend(source, domains, caps, 1 - total))]
    raise InfeasibleError(
        f"no mixture meets the caps: they add up to {total:.4g}, {1 - total:.4g} short of 1"
        f" ({_listed(lowest)}); {', or '.join(mends) or 'raise several of them'}"
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
    return None if setting is None else allow(own, setting)


def allow(limits: Sequence[Limit], setting: float) -> str:
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
