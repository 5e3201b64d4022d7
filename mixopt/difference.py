"""The difference of two mixtures: how much better the first is than the second.

Above 0 the first is better, for losses and metrics, measured or predicted, in code and in files. A
cost is a difference below 0. A measured difference is the mean over pairs of runs with the same
seed, with Student's interval; a predicted one has the interval of the fit.

Shares of right answers are stored as shares, as in the tables of trials, and shown in points.

Shapes: S pairs.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

from mixopt.system import Array, StateFields, difference_text, loss_text

LEVEL = 0.95  # of intervals of measured differences
PREDICTED_LEVEL = 0.9  # of intervals of predicted ones
DECIMALS = 6  # in files
POINTS = 100.0  # in a whole

# Text of the unit of losses, and of an objective (`Objective.value_unit`).
UNITS = {
    "bits_per_byte": "bits per byte",
    "nats_per_token": "nats per token",
    "standard_deviations": "standard deviations",
    "metric_deviations": "standard deviations",
    "metric_units": "units of the metric",
    "right_answers": "shares of right answers",
    "mixed_units": "losses - metrics",
    "noise": "deviations of noise",
}
HIGHER_UNITS = ("metric_units", "metric_deviations", "right_answers")  # higher is better


def unit_text(unit: str) -> str:
    """Return the unit of values and differences as text."""
    return "points" if unit == "right_answers" else UNITS[unit]


def value_text(value: float, unit: str) -> str:
    """Format a value of an objective in its unit (`value_unit`)."""
    return loss_text(shown_factor(unit) * value + 0.0, _digits(unit))  # never -0


def size_text(size: float, unit: str) -> str:
    """Format an error or the noise of an objective."""
    return loss_text(shown_factor(unit) * size, _digits(unit))


def ends_text(low: float, high: float, unit: str) -> str:
    """Format the ends of an interval of an objective."""
    return f"{value_text(low, unit)} to {value_text(high, unit)}"


def signed_text(difference: float, unit: str) -> str:
    """Format a difference with its sign."""
    return difference_text(shown_factor(unit) * difference, _digits(unit))


def shown_factor(unit: str) -> float:
    """Return the factor from stored to shown values and differences."""
    return POINTS if unit == "right_answers" else 1.0


def _digits(unit: str) -> int:
    return 2 if unit == "right_answers" else 4


Verdict = Literal["better", "not significant", "worse", "same mixture"]
# In a sentence, before the name of the second mixture.
VERDICT_TEXTS: dict[Verdict, str] = {
    "better": "better than",
    "not significant": "not significantly different from",
    "worse": "worse than",
    "same mixture": "the same as",
}


def paired_interval(differences_S: Array, level: float = LEVEL) -> tuple[float, float]:
    """Return the mean of paired differences and the half width of its interval."""
    from scipy.special import stdtrit

    count = len(differences_S)
    error = float(differences_S.std(ddof=1)) / math.sqrt(count)
    quantile = float(stdtrit(count - 1, 0.5 + level / 2))
    return float(differences_S.mean()), quantile * error


def shared_count(counts: Iterable[int | None]) -> int | None:
    """Return the number that all runs share; None without one."""
    values = set(counts)
    return values.pop() if len(values) == 1 else None


@dataclass(frozen=True)
class Difference:
    """How much better a first mixture is than a second one; above 0 the first is better.

    Attributes:
        mean: Mean over pairs, or the prediction.
        low: Lower end of the interval.
        high: Upper end of the interval.
        level: Level of the interval.
        unit: Unit of all three, a key of `UNITS`.
        pairs: Number of pairs of runs; None if it is predicted.
        tokens: Tokens of the compared runs, if all have the same number.
        parameters: Parameters of the compared models, if all have the same number.
        is_same: Whether both are the same mixture, so that there is nothing to compare.

    Examples:
        >>> gain = Difference(0.21, 0.15, 0.27, 0.95, "bits_per_byte", pairs=3)
        >>> gain.verdict, gain.text
        ('better', '+0.2100 bits per byte (95% +0.1500 to +0.2700)')
    """

    mean: float
    low: float
    high: float
    level: float
    unit: str
    pairs: int | None = None
    tokens: int | None = None
    parameters: int | None = None
    is_same: bool = False

    @classmethod
    def from_pairs(
        cls,
        differences_S: Array,
        unit: str,
        *,
        nominal: float = LEVEL,
        tokens: int | None = None,
        parameters: int | None = None,
        is_same: bool = False,
    ) -> Self:
        """Return the mean of paired differences with Student's interval of S - 1 degrees.

        Args:
            differences_S: How much better the first is, of each pair, S >= 2.
            unit: Their unit, a key of `UNITS`.
            nominal: Level of this interval; above 95% if several looks have 95% together.
            tokens: Tokens of the runs.
            parameters: Parameters of the models.
            is_same: Whether both are the same mixture.
        """
        mean, half = paired_interval(differences_S, nominal)
        return cls(
            mean,
            mean - half,
            mean + half,
            LEVEL,
            unit,
            pairs=len(differences_S),
            tokens=tokens,
            parameters=parameters,
            is_same=is_same,
        )

    @classmethod
    def around(
        cls,
        mean: float,
        half: float,
        unit: str,
        *,
        tokens: int | None = None,
        parameters: int | None = None,
        is_same: bool = False,
    ) -> Self:
        """Return a predicted difference from the half width of its 90% interval, rounded."""
        predicted = cls(
            float(mean),
            float(mean - half),
            float(mean + half),
            PREDICTED_LEVEL,
            unit,
            tokens=tokens,
            parameters=parameters,
            is_same=is_same,
        )
        return predicted.rounded()

    @classmethod
    def read(cls, fields: StateFields) -> Self:
        """Read a difference from fields of a file."""
        return cls(
            fields.number("mean"),
            fields.number("low"),
            fields.number("high"),
            fields.number("level"),
            fields.one_of("unit", UNITS),
            pairs=fields.maybe("pairs", fields.whole),
            tokens=fields.maybe("tokens", fields.whole),
            parameters=fields.maybe("parameters", fields.whole),
            is_same=fields.one_of("verdict", get_args(Verdict)) == "same mixture",
        )

    @classmethod
    def read_all(cls, fields: StateFields) -> dict[str, Self]:
        """Read differences by name."""
        return {name: cls.read(fields.part(name)) for name in fields.content}

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "level": self.level,
            "unit": self.unit,
            "pairs": self.pairs,
            "tokens": self.tokens,
            "parameters": self.parameters,
            "verdict": self.verdict,
        }

    def rounded(self) -> Self:
        """Return it with the decimals of files."""
        return replace(
            self,
            mean=round(self.mean, DECIMALS),
            low=round(self.low, DECIMALS),
            high=round(self.high, DECIMALS),
        )

    @property
    def verdict(self) -> Verdict:
        """What the interval says of the first mixture."""
        if self.is_same:
            return "same mixture"
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "not significant"

    @property
    def mean_text(self) -> str:
        """The mean as shown, with its sign."""
        return signed_text(self.mean, self.unit)

    @property
    def ends_text(self) -> str:
        """The ends of the interval as shown: `+0.1000 to +0.2000`."""
        return f"{signed_text(self.low, self.unit)} to {signed_text(self.high, self.unit)}"

    @property
    def half_text(self) -> str:
        """Half of the interval's width as shown."""
        return size_text((self.high - self.low) / 2, self.unit)

    @property
    def text(self) -> str:
        """Mean, unit, level and interval as shown."""
        return f"{self.mean_text} {unit_text(self.unit)} ({self.level:.0%} {self.ends_text})"
