"""What is asked of a run's experts, and by its own configuration: thresholds, ranks, steps, ..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixopt.errors import RoutingError
from mixopt.system import checked_as, read_yaml


@dataclass(frozen=True)
class ExpertOptions:
    """What is asked.

    Attributes:
        thresholds: Others than the run's own, by name (`mixopt.routing.Thresholds`).
        ranks: Of expert parallelism; None for the run's own, or up to 8 that divide the experts.
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


@dataclass(frozen=True)
class OwnExperts:
    """What a run's own configuration says of how its experts are looked at.

    Attributes:
        thresholds: Others than the defaults, by name.
        ranks: Of expert parallelism.
    """

    thresholds: Mapping[str, float]
    ranks: int | None

    @classmethod
    def read(cls, path: Path) -> OwnExperts:
        """Read the configuration of a run directory, if it has one.

        Raises:
            RoutingError: It cannot be read.
        """
        file = path / "config.yaml"
        if not file.exists():
            return cls({}, None)
        where = f"{file}: experts"
        content = checked_as(
            dict[str, Any], read_yaml(file, error=RoutingError), str(file), RoutingError
        )
        section = checked_as(dict[str, Any], content.get("experts") or {}, where, RoutingError)
        given = section.get("thresholds") or {}
        thresholds = checked_as(dict[str, float], given, f"{where}.thresholds", RoutingError)
        ranks = checked_as(int | None, section.get("ranks"), f"{where}.ranks", RoutingError)
        return cls(thresholds, ranks)


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
