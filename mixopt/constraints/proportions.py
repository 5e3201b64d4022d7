"""Domains that keep the same ratios to each other, such as those of a base mixture.

A search over candidate sources moves what a base has altogether, and not its parts, of which
trials at one base mixture can tell nothing apart. With r the ratios, adding up to 1, each domain j
of the set gives a row w_j - r_j (sum of the set) = 0; the last one follows from the others.

Shapes: D domains, R rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixopt.constraints.domain_limits import down
from mixopt.errors import ConfigError, did_you_mean
from mixopt.system import Array

NEAR = 1e-6  # by which a share may be off its ratio


@dataclass(frozen=True)
class Proportions:
    """Fixed ratios of some domains.

    Attributes:
        name: What the set is called.
        ratios: Share of each of its domains in the set, >= 0, adding up to 1.
        source: The field that it comes from, such as `constraints.proportions.base`.
    """

    name: str
    ratios: Mapping[str, float]
    source: str

    @classmethod
    def of(
        cls, name: str, weights: Mapping[str, float], known: Sequence[str], source: str
    ) -> Proportions:
        """Return the ratios of weights.

        Raises:
            ConfigError: A domain that is not there, or weights that are all 0.
        """
        for domain in weights:
            if domain not in known:
                near = did_you_mean(domain, known)
                raise ConfigError(f"{source}: unknown domain {domain!r}{near}")
        total = float(sum(weights.values()))
        if not total > 0:
            raise ConfigError(f"{source}: the domains have no tokens: give their weights")
        return cls(name, {domain: weights[domain] / total for domain in weights}, source)

    def rows(self, domains: Sequence[str]) -> Array:
        """Return the rows that are 0 for every mixture in these ratios, shape (R, D)."""
        members_D = np.array([1.0 if name in self.ratios else 0.0 for name in domains])
        places = [domains.index(name) for name in self.ratios][:-1]
        rows_RD = np.zeros((len(places), len(domains)))
        for row, place in enumerate(places):
            rows_RD[row] = -self.ratios[domains[place]] * members_D
            rows_RD[row, place] += 1.0
        return rows_RD

    def refusal(self, weights: Mapping[str, float], tolerance: float = NEAR) -> str | None:
        """Say why a mixture is not allowed; None where it is in these ratios."""
        total = sum(weights[name] for name in self.ratios)
        for name, ratio in self.ratios.items():
            if abs(weights[name] - ratio * total) > tolerance:
                return (
                    f"domain {name!r}: a weight of {weights[name]:.4g} is not in the ratios of"
                    f" {self.source}: {down(ratio * total)} of the {total:.4g} of its set."
                )
        return None
