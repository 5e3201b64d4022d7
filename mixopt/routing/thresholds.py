"""From where on something is said to be wrong with a layer's experts.

The defaults mean the same at 8 experts and at 512, and at 3 domains and at 20: shares of experts,
of assignments, and multiples of what would be even. docs/experts/diagnoses.md has their sources.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from mixopt.errors import RoutingError, did_you_mean
from mixopt.system import shown_value


@dataclass(frozen=True)
class Thresholds:
    """From where on something is diagnosed.

    Attributes:
        effective: Collapse below: effective number of experts, of all; 1 is even.
        dead: Collapse above: share of a layer's experts that are dead.
        busiest: Collapse above: the busiest expert's load over the even one. None: where it is
            2.5 times the even one or more, and the spread of the others does not explain it.
        overflow: Collapse above: share of the assignments beyond 1.25 times the even load.
        serves: Share of an expert's tokens of one domain from which on it serves that domain.
        occupied: Degradation above: share of the experts that serve one domain, less its share
            of the tokens; of more than three domains, in proportion less.
        shared: Degradation above: share of the shared experts in the output for one domain, less
            the mean of the others.
        rare: A domain has few tokens below this part of an even share.
        apart: Underfitting below: how far a rare domain's experts are from those of the others,
            of how far the middle one of the other domains is...
        others: ...where that is at least so far; 0 is alike, 1 is apart.
        assignments: To an expert, on the mean, that a layer needs to be diagnosed.
    """

    effective: float = 0.66
    dead: float = 0.05
    busiest: float | None = None
    overflow: float = 0.25
    serves: float = 0.8
    occupied: float = 0.25
    shared: float = 0.2
    rare: float = 0.5
    apart: float = 0.33
    others: float = 0.25
    assignments: int = 1000

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            RoutingError: One cannot be, with what it can be.
        """
        for name, value in asdict(self).items():
            low, high = _RANGES.get(name, (0.0, 1.0))
            if value is None and name == "busiest":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise RoutingError(f"{name}: {shown_value(value)} is not a number")
            if not (low <= value <= high and math.isfinite(value)):
                upper = f" to {high:g}" if math.isfinite(high) else " or more"
                raise RoutingError(f"{name}: {value:g} is not possible; it must be {low:g}{upper}")

    def with_values(self, values: Mapping[str, float], source: str) -> Thresholds:
        """Return thresholds of which some are others.

        Args:
            values: By name.
            source: Where they were given, for a message.

        Raises:
            RoutingError: There is no such threshold, or a value cannot be.
        """
        known = [field.name for field in fields(self)]
        for name in values:
            if name not in known:
                raise RoutingError(
                    f"{source}: {name}: unknown threshold{did_you_mean(name, known)}"
                )
        try:
            return replace(self, **values)  # type: ignore[arg-type]
        except RoutingError as error:
            raise RoutingError(f"{source}: {error}") from error

    def check_reachable(self, highest: float, source: str) -> None:
        """Check that loads can be as high as the threshold of the busiest expert.

        Args:
            highest: The highest load of any router, as `Assignments.highest_load`.
            source: Where thresholds were given, for a message.

        Raises:
            RoutingError: No layer's busiest expert can ever be beyond it.
        """
        if self.busiest is not None and self.busiest >= highest:
            raise RoutingError(
                f"{source}: busiest: {self.busiest:g} cannot be exceeded: an expert that all tokens"
                f" choose has {highest:g} times the even load; give less"
            )


_RANGES = {
    "busiest": (1.0, math.inf),
    "assignments": (0.0, math.inf),
}
