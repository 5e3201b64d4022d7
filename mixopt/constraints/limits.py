"""Linear limits on mixtures: of domains, of groups, and fixed ratios.

A limit derived from a setting (max_epochs: 4) is `setting x rate`, so that a message can give the
setting that would allow a weight. Numbers in messages are rounded to the safe side.

Shapes: D domains, R rows.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Self

import numpy as np

from mixopt.errors import ConfigError, did_you_mean
from mixopt.system import Array, short_count

# A limit is broken if it is exceeded by more than this: a share of the tokens for limits on
# weights, nats for a divergence, the unit of the losses for guardrails.
BROKEN = 1e-6


@dataclass(frozen=True)
class LinearLimit:
    """The maximum or minimum share of a domain or of a group of domains.

    Attributes:
        domains: The domain, or the domains of the group.
        value: Maximum or minimum of their total share, in [0, 1].
        source: Field of the limit, such as `constraints.bounds`.
        group: Name of the group; None for a domain.
        is_floor: Whether `value` is the minimum.
        setting: Value of the field, if the limit scales with it.
        rate: Share per unit of the setting; 0: does not scale.
        inventory: Tokens of the domain, if the setting is epochs.
        target_tokens: Length of the run in tokens, if the setting is epochs.
    """

    domains: tuple[str, ...]
    value: float
    source: str
    group: str | None = None
    is_floor: bool = False
    setting: float | None = None
    rate: float = 0.0
    inventory: int = 0
    target_tokens: int = 0

    @property
    def text(self) -> str:
        """The limit in short: `europarl <= 0.157`."""
        name = self.domains[0]
        if self.group is not None:
            name = f"group {self.group}"
        sign = ">=" if self.is_floor else "<="
        return f"{name} {sign} {self.value:.3g}"

    @property
    def origin(self) -> str:
        """The source with its setting: `constraints.max_epochs: 4`."""
        if self.setting is None:
            return self.source
        return f"{self.source}: {self.setting:g}"

    @property
    def is_open(self) -> bool:
        """Whether every mixture meets the limit."""
        return self.value <= 0 if self.is_floor else self.value >= 1

    @property
    def moves_with(self) -> str:
        """The setting that moves the limit: a field, or one side of bounds."""
        if self.rate:
            return self.source
        side = "least" if self.is_floor else "most"
        if self.group is None:
            return f"{self.source} {self.domains[0]} {side}"
        return f"{self.source} {side}"

    @property
    def sign(self) -> float:
        """1 or -1: the limit is `sign * share <= sign * value`."""
        return -1.0 if self.is_floor else 1.0

    def row(self, domains: Sequence[str]) -> Array:
        """Return the row of the limit `row . w <= sign * value`, shape (D,)."""
        return self.sign * indicator(self.domains, domains)

    def share(self, weights: Mapping[str, float]) -> float:
        """Return the total share of the domains in a mixture."""
        return sum(weights[name] for name in self.domains)

    def violation(self, weights: Mapping[str, float]) -> str | None:
        """Return why a mixture is not allowed, with a fix; None: it is allowed."""
        share = self.share(weights)
        if self.sign * (share - self.value) <= BROKEN:
            return None
        if self.group is None:
            subject = f"domain {self.domains[0]!r}: a weight of {share:.4g}"
        else:
            subject = f"group {self.group!r}: a share of {share:.4g}"
        if self.target_tokens and not self.inventory:
            return f"{subject} needs training tokens, but the domain has none. Set it to 0."
        return f"{subject} {self._reason(share)}. {self._fix(share)}."

    def hint(self, change: float) -> str:
        """Return the sufficient change of its setting.

        Args:
            change: Required change of the value; in multiples of the setting if it scales.
        """
        name = self.source
        where = ""
        if self.group is None:
            name = self.domains[0]
            where = f" in {self.source}"
        if self.is_floor:
            return f"lower the minimum of {name} to {down(max(self.value - change, 0.0))}{where}"
        if self.target_tokens and not self.inventory:
            return f"add training tokens to {name}, which has none"
        if not self.rate:
            return f"raise the maximum of {name} to {up(self.value + change)}{where}"
        setting = change * (self.setting or 1.0)
        hint = f"allow {self._field}: {up(setting)}"
        if not self.target_tokens or not setting:
            return hint
        run = self.target_tokens * (self.setting or 0.0) / setting
        return f"{hint} (or a run of {short_count(float(down(run, 3)))} tokens)"

    def _reason(self, share: float) -> str:
        """Return how a share violates the limit, and where the limit comes from."""
        if self.target_tokens:
            epochs = share * self.target_tokens / self.inventory
            return (
                f"of {short_count(self.target_tokens)} tokens needs {epochs:.3g} epochs of its"
                f" {short_count(self.inventory)} tokens; {self.source} is {self.setting:g}"
            )
        if self.is_floor:
            return f"is below {self.value:.4g}, the minimum set by {self.origin}"
        return f"is above {self.value:.4g}, the maximum set by {self.origin}"

    def _fix(self, share: float) -> str:
        """Return how to change the mixture, or the setting."""
        if self.is_floor:
            return f"Raise it to >= {up(self.value, 4)}, or allow {down(share)} in {self.source}"
        allow = f"{up(share)} in {self.source}"
        if self.rate:
            allow = f"{self._field}: {up(share / self.rate)}"
        return f"Lower it to <= {down(self.value)}, or allow {allow}"

    @property
    def _field(self) -> str:
        """The source without its section: `max_epochs` of `constraints.max_epochs`."""
        return self.source.partition(".")[2]


def cap(
    domain: str, value: float, source: str, *, setting: float | None = None, rate: float = 0.0
) -> LinearLimit:
    """Return the maximum share of a domain, capped at 1; `setting x rate` if it has a rate."""
    return LinearLimit((domain,), min(value, 1.0), source, setting=setting, rate=rate)


def floor(domain: str, value: float, source: str, *, setting: float | None = None) -> LinearLimit:
    """Return the minimum share of a domain."""
    return LinearLimit((domain,), value, source, is_floor=True, setting=setting)


def up(value: float, digits: int = 3) -> str:
    """Format a number >= 0, rounded up to `digits` significant digits."""
    return _rounded(value, Context(prec=digits, rounding=ROUND_CEILING))


def down(value: float, digits: int = 4) -> str:
    """Format a number >= 0, rounded down to `digits` significant digits."""
    return _rounded(value, Context(prec=digits, rounding=ROUND_FLOOR))


def _rounded(value: float, context: Context) -> str:
    # Nine digits first: 8.000000000000002 is 8, not 8.01.
    return f"{float(context.create_decimal(Decimal(f'{value:.9g}'))):.{context.prec}g}"


@dataclass(frozen=True)
class Proportions:
    """Domains with fixed ratios to each other."""

    ratios: Mapping[str, float]
    source: str

    @classmethod
    def of(cls, weights: Mapping[str, float], domains: Sequence[str], source: str) -> Self:
        """Return the ratios of weights."""
        for domain in weights:
            if domain not in domains:
                near = did_you_mean(domain, domains)
                raise ConfigError(f"{source}: unknown domain {domain!r}{near}")
        total = float(sum(weights.values()))
        if not total > 0:
            raise ConfigError(f"{source}: the domains have no tokens; set their weights")
        return cls({domain: weights[domain] / total for domain in weights}, source)

    def rows(self, domains: Sequence[str]) -> Array:
        """Return rows whose product with every mixture in these ratios is 0, shape (R, D)."""
        members_D = indicator(self.ratios, domains)
        columns = [domains.index(name) for name in self.ratios][:-1]
        rows_RD = np.zeros((len(columns), len(domains)))
        for row, column in enumerate(columns):
            rows_RD[row] = -self.ratios[domains[column]] * members_D
            rows_RD[row, column] += 1.0
        return rows_RD

    def violation(self, weights: Mapping[str, float]) -> str | None:
        """Return why a mixture is not allowed; None: it has these ratios."""
        total = sum(weights[name] for name in self.ratios)
        for name, ratio in self.ratios.items():
            if abs(weights[name] - ratio * total) > BROKEN:
                return (
                    f"domain {name!r}: a weight of {weights[name]:.4g} violates the ratios of"
                    f" {self.source}: {down(ratio * total)} of its set's {total:.4g}."
                )
        return None


def indicator(members: Collection[str], domains: Sequence[str]) -> Array:
    """Return 1 for each domain among some, else 0, shape (D,)."""
    return np.array([name in members for name in domains], dtype=float)
