"""Bounds on the total weight of a group of domains.

Shapes: N mixtures, D domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixopt.constraints.domain_limits import down, up
from mixopt.errors import ConfigError, did_you_mean
from mixopt.system import Array


@dataclass(frozen=True)
class GroupLimit:
    """Bounds on the total weight of a group of domains.

    Attributes:
        name: The group.
        domains: Its domains; groups may overlap.
        least: Least sum, in [0, 1].
        most: Most sum, in [0, 1].
        source: The field that it comes from, such as `constraints.groups.code`.

    Raises:
        ConfigError: No domain, one given twice, or a least above the most.
    """

    name: str
    domains: tuple[str, ...]
    least: float
    most: float
    source: str

    def __post_init__(self) -> None:
        if not self.domains:
            raise ConfigError(f"{self.source}: needs at least one domain")
        for domain in self.domains:
            if self.domains.count(domain) > 1:
                raise ConfigError(f"{self.source}: domain {domain!r} is given twice")
        if self.least > self.most:
            raise ConfigError(
                f"{self.source}: the minimum, {self.least:g}, is above the maximum, {self.most:g}"
            )

    def check_domains(self, known: Sequence[str]) -> None:
        """Check that its domains exist.

        Raises:
            ConfigError: One is not.
        """
        for domain in self.domains:
            if domain not in known:
                near = did_you_mean(domain, known)
                raise ConfigError(f"{self.source}: unknown domain {domain!r}{near}")

    def members(self, domains: Sequence[str]) -> Array:
        """Return 1 for each domain of the group and 0 for others, shape (D,)."""
        return np.array([1.0 if name in self.domains else 0.0 for name in domains])

    def share(self, weights: Mapping[str, float]) -> float:
        """Return the total weight of the group in a mixture."""
        return sum(weights[name] for name in self.domains)

    def refusal(self, weights: Mapping[str, float], tolerance: float) -> str | None:
        """Say why a mixture is not allowed, and how to fix it; None where it is."""
        share = self.share(weights)
        if share > self.most + tolerance:
            return (
                f"group {self.name!r}: a share of {share:.4g} is above {self.most:.4g}, the "
                f"maximum set by {self.source}. Lower it to <= {down(self.most)}, or allow "
                f"{up(share)}."
            )
        if share < self.least - tolerance:
            return (
                f"group {self.name!r}: a share of {share:.4g} is below {self.least:.4g}, the "
                f"minimum set by {self.source}. Raise it to >= {up(self.least, 4)}, or allow "
                f"{down(share)}."
            )
        return None

    def binding(self, weights: Mapping[str, float], tolerance: float) -> list[str]:
        """Name the active bounds of a mixture: `group code <= 0.4 (constraints.groups.code)`."""
        share, sides = self.share(weights), []
        if self.most < 1 and abs(share - self.most) <= tolerance:
            sides.append(self.above)
        if self.least > 0 and abs(share - self.least) <= tolerance:
            sides.append(self.below)
        return [f"{side} ({self.source})" for side in sides]

    @property
    def above(self) -> str:
        """The upper bound in short."""
        return f"group {self.name} <= {self.most:.3g}"

    @property
    def below(self) -> str:
        """The lower bound in short."""
        return f"group {self.name} >= {self.least:.3g}"
