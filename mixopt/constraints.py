"""What mixtures are allowed: a least and a most weight for every domain, each with its reason.

Limits come from bounds that the user sets, from how often a domain may be repeated in the full
run, and, for a design, from its caps. Whether any mixture meets all of them is decided here,
before anything is trained; where none does, the error names the limits that are in conflict, by
how much, and the smallest change that mends it.

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mixopt.config import ConstraintsConfig
from mixopt.errors import ConfigError, InfeasibleError, did_you_mean
from mixopt.limits import (
    Limit,
    described,
    down,
    epoch_limit,
    last_part,
    smallest_setting,
    tokens,
    up,
)
from mixopt.mixture import Mixture
from mixopt.simplex import SLACK, CappedSimplex

Array = NDArray[np.float64]
BINDING = 1e-4  # a weight this near its limit counts as held by it


@dataclass(frozen=True)
class Constraints:
    """Limits on the weights of named domains that at least one mixture meets.

    Attributes:
        domains: Names, in order.
        floors: Least weights; a domain without one may have 0.
        caps: Most weights; a domain may have several, the lowest counts.
        lower_D: Least weight of each domain, shape (D,).
        upper_D: Most weight of each domain, shape (D,).

    Raises:
        ConfigError: A limit of a domain that is not there.
        InfeasibleError: No mixture meets the limits.
    """

    domains: tuple[str, ...]
    floors: tuple[Limit, ...] = ()
    caps: tuple[Limit, ...] = ()
    lower_D: Array = field(init=False, repr=False, compare=False)
    upper_D: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for limit in (*self.floors, *self.caps):
            if limit.domain not in self.domains:
                near = did_you_mean(limit.domain, self.domains)
                raise ConfigError(f"{limit.source}: unknown domain {limit.domain!r}{near}")
        self._keep("lower_D", [max(self._values(self.floors, n), default=0) for n in self.domains])
        self._keep("upper_D", [min(self._values(self.caps, n), default=1) for n in self.domains])
        self._check_each_domain()
        self._check_floors()
        self._check_caps()

    @classmethod
    def from_config(
        cls,
        config: ConstraintsConfig,
        inventory: Mapping[str, int],
        target_tokens: int | None = None,
    ) -> Constraints:
        """Build the limits that a configuration states.

        Args:
            config: Bounds by domain, and how often a domain may be repeated.
            inventory: Distinct training tokens of every domain, in order.
            target_tokens: Length of the full run; `max_epochs` needs it.

        Raises:
            ConfigError: An unknown domain, a least above its most, or `max_epochs` without
                `target_tokens`.
            InfeasibleError: No mixture meets the limits.
        """
        source = "constraints.bounds"
        for name, (least, most) in config.bounds.items():
            if least > most:
                raise ConfigError(
                    f"{source}.{name}: the least, {least:g}, is above the most, {most:g}"
                )
        floors = [Limit(n, least, source) for n, (least, _) in config.bounds.items() if least > 0]
        caps = [Limit(n, most, source) for n, (_, most) in config.bounds.items() if most < 1]
        if config.max_epochs is not None:
            if target_tokens is None:
                raise ConfigError(
                    "constraints.max_epochs: needs the length of the full run; set"
                    " propose.target_tokens (or --tokens 25e9)"
                )
            caps += [
                epoch_limit(n, t, config.max_epochs, target_tokens) for n, t in inventory.items()
            ]
        return cls(tuple(inventory), tuple(floors), tuple(caps))

    def with_caps(self, caps: Iterable[Limit]) -> Constraints:
        """Return the same limits and further caps.

        Raises:
            InfeasibleError: No mixture meets them together.
        """
        return Constraints(self.domains, self.floors, (*self.caps, *caps))

    @property
    def simplex(self) -> CappedSimplex:
        """The set of weights that are allowed."""
        return CappedSimplex(self.lower_D, self.upper_D)

    def violations(self, mixture: Mixture, *, tolerance: float = 1e-6) -> list[str]:
        """Say, in a line each, which limits a mixture breaks by more than `tolerance`."""
        weights = mixture.over(self.domains)
        broken = [
            f"domain {c.domain!r}: {c.refuse(weights[c.domain])}"
            for c in self._strictest(self.caps)
            if weights[c.domain] > c.value + tolerance
        ]
        return broken + [
            f"domain {f.domain!r}: a weight of {weights[f.domain]:.4g} is below {f.value:.4g},"
            f" the least by {described(f)}."
            for f in self._strictest(self.floors)
            if weights[f.domain] < f.value - tolerance
        ]

    def binding(self, mixture: Mixture, *, tolerance: float = BINDING) -> list[str]:
        """Name the limits that hold a mixture: `europarl <= 0.157 (constraints.max_epochs: 4)`.

        Args:
            mixture: A mixture of the same domains.
            tolerance: How near its limit a weight counts as held.
        """
        weights = mixture.over(self.domains)
        limits = [(c, "<=") for c in self._strictest(self.caps) if c.value < 1]
        limits += [(f, ">=") for f in self._strictest(self.floors)]
        return [
            f"{limit.domain} {sign} {limit.value:.3g} ({described(limit)})"
            for limit, sign in limits
            if abs(weights[limit.domain] - limit.value) <= tolerance
        ]

    def _keep(self, name: str, bounds: list[float]) -> None:
        bounds_D = np.array(bounds, dtype=np.float64)
        bounds_D.flags.writeable = False
        object.__setattr__(self, name, bounds_D)

    @staticmethod
    def _values(limits: Sequence[Limit], domain: str) -> list[float]:
        return [limit.value for limit in limits if limit.domain == domain]

    @staticmethod
    def _of(limits: Sequence[Limit], domain: str) -> list[Limit]:
        return [limit for limit in limits if limit.domain == domain]

    def _strictest(self, limits: Sequence[Limit]) -> list[Limit]:
        """Return the limit that counts for each domain that has one, in the domains' order."""
        strictest = max if limits is self.floors else min
        groups = [self._of(limits, name) for name in self.domains]
        return [strictest(group, key=lambda limit: limit.value) for group in groups if group]

    def _check_each_domain(self) -> None:
        caps = {cap.domain: cap for cap in self._strictest(self.caps)}
        for floor in self._strictest(self.floors):
            cap = caps.get(floor.domain)
            if cap is not None and floor.value > cap.value + SLACK:
                raise InfeasibleError(
                    f"domain {floor.domain!r}: {described(floor)} asks for at least"
                    f" {floor.value:.4g}, but {cap.refuse(floor.value)}"
                )

    def _check_floors(self) -> None:
        floors = self._strictest(self.floors)
        total = sum(floor.value for floor in floors)
        if total > 1 + SLACK:
            raise InfeasibleError(
                f"no mixture meets the least weights: they add up to {total:.4g}, {total - 1:.4g}"
                f" more than 1 ({_listed(floors)}); lower them by {up(total - 1)} in all"
            )

    def _check_caps(self) -> None:
        total = float(self.upper_D.sum())
        if total >= 1 - SLACK:
            return
        caps = self._strictest(self.caps)
        mends = [
            mend for source in dict.fromkeys(c.source for c in caps) if (mend := self._mend(source))
        ]
        raise InfeasibleError(
            f"no mixture meets the caps: they add up to {total:.4g}, {1 - total:.4g} short of 1"
            f" ({_listed(caps)}); {', or '.join(mends) or 'raise several of them'}"
        )

    def _mend(self, source: str) -> str | None:
        """Say the smallest change of one field that lets the caps add up to 1."""
        own = [cap for cap in self.caps if cap.source == source]
        rest = [cap for cap in self.caps if cap.source != source]
        others = {n: min(self._values(rest, n), default=1.0) for n in self.domains}
        if not any(cap.rate for cap in own):
            reach = sum(others.values())
            missing = 1 - float(self.upper_D.sum())
            return f"raise {source} by {up(missing)} in all" if reach >= 1 - SLACK else None
        setting = smallest_setting(own, others)
        if setting is None:
            return None
        mend = f"allow {last_part(source)}: {up(setting)}"
        run = getattr(own[0], "target_tokens", 0) * (own[0].setting or 0.0) / setting
        return f"{mend} (or a run of {tokens(float(down(run, 3)))} tokens)" if run else mend


def _listed(limits: Sequence[Limit]) -> str:
    """Write limits by source: `design.max_usage: 2: a 0.1, b 0.2; constraints.bounds: c 0.3`."""
    sources = dict.fromkeys(described(limit) for limit in limits)
    groups = {
        s: [f"{x.domain} {x.value:.3g}" for x in limits if described(x) == s] for s in sources
    }
    return "; ".join(f"{source}: {', '.join(names)}" for source, names in groups.items())
