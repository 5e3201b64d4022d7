"""What is asked of a run's experts: thresholds, ranks, steps, and a change of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mixopt.errors import RoutingError


@dataclass(frozen=True)
class ExpertOptions:
    """What is asked.

    Attributes:
        thresholds: Others than the run's own, by name (`mixopt.routing.Thresholds`).
        ranks: Of expert parallelism; None for up to 8 that divide the experts.
        steps: The first and the last step, counted from 1; None for no bound. None for the second
            half of the run.
        change: The first step on new weights; None for the largest changes of the log.
    """

    thresholds: Mapping[str, float] = field(default_factory=dict)
    ranks: int | None = None
    steps: tuple[int | None, int | None] | None = None
    change: int | None = None

    @classmethod
    def parsed(
        cls,
        thresholds: Sequence[str] = (),
        ranks: int | None = None,
        steps: str | None = None,
        change: int | None = None,
    ) -> ExpertOptions:
        """Read options as they are typed: `busiest=3`, `100:200`.

        Raises:
            RoutingError: One is of another form.
        """
        return cls(
            dict(_threshold(one) for one in thresholds),
            ranks,
            None if steps is None else _steps(steps),
            change,
        )


def _threshold(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise RoutingError(f"--threshold {text}: expected NAME=NUMBER, such as busiest=3") from None


def _steps(text: str) -> tuple[int | None, int | None]:
    first, colon, last = text.partition(":")
    if not colon or not all(one.isdecimal() or not one for one in (first, last)):
        raise RoutingError(
            f"--steps {text}: expected FIRST:LAST, such as 1000:2000, 1000: or :2000"
        )
    low, high = (int(one) if one else None for one in (first, last))
    if high == 0 or (low is not None and high is not None and low > high):
        raise RoutingError(
            f"--steps {text}: steps count from 1, and the first is not after the last"
        )
    return low, high
