"""The learning rate over a run of known length: warm-up, then a named shape.

`cosine` and `linear` decay from the peak to the floor; `constant` stays at the peak; `wsd` is
warm-up, stable, decay; `inverse_sqrt` falls with the square root of the step, as in T5 after its
warm-up. With `lr_decay`, the decay to the floor takes only that last part of the run, for every
shape.

Steps count from 0; step 0 has a fraction of the peak, the step after the last would have the floor.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from mixopt.errors import SamplerError, did_you_mean

RateCurveName = Literal["cosine", "constant", "linear", "wsd", "inverse_sqrt"]
RateShape = Literal["linear", "cosine", "sqrt"]
RATE_CURVES: tuple[RateCurveName, ...] = get_args(RateCurveName)
WSD_DECAY = 0.2  # fraction of the run
FLOOR = 0.1  # fraction of the peak

# Default length of the decay, as a fraction of the run; None: all steps after the warm-up.
_DECAY: Mapping[RateCurveName, float | None] = {"cosine": None, "linear": None, "wsd": WSD_DECAY}
# Height above the floor, from 1 to 0, by the finished fraction of a decay.
_SHAPES: Mapping[RateShape, Callable[[float], float]] = {
    "linear": lambda done: 1 - done,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "sqrt": lambda done: 1 - math.sqrt(done),
}


@dataclass(frozen=True)
class RateCurve:
    """A learning rate by step; field names are those of `training` in a pretraining file.

    Attributes:
        schedule: Shape after the warm-up.
        steps: Steps of the whole run.
        warmup: Steps of linear warm-up; below 1, a fraction of all steps.
        lr_decay: Steps of the final decay to the floor; below 1, a fraction of all steps. If
            omitted, a fifth of the run for `wsd`, all steps after the warm-up for `cosine` and
            `linear`, none for others.
        lr_decay_shape: Shape of the decay: `linear`, `cosine`, `sqrt` (1 - sqrt(finished
            fraction)). If omitted, `cosine` for a cosine schedule, else `linear`.
        peak: The learning rate after the warm-up.
        floor: End of a decay and lower bound of the rate, in the unit of the peak.
    """

    schedule: RateCurveName
    steps: int
    warmup: float
    lr_decay: float | None = None
    lr_decay_shape: RateShape | None = None
    peak: float = 1.0
    floor: float = FLOOR

    def __post_init__(self) -> None:
        shape = self.lr_decay_shape
        if self.schedule not in RATE_CURVES:
            near = did_you_mean(str(self.schedule), RATE_CURVES)
            raise SamplerError(f"schedule: {self.schedule!r} is not a known schedule{near}")
        if self.schedule == "constant" and self.lr_decay is not None:
            raise SamplerError("lr_decay: a constant rate has no decay; give schedule: wsd")
        if self.schedule == "inverse_sqrt" and self.warmup == 0:
            raise SamplerError(
                "warmup: 0, but the decay of inverse_sqrt is scaled by the warm-up; set a warm-up"
            )
        if shape is not None and not self._has_decay:
            raise SamplerError(f"lr_decay_shape: {shape!r} has no effect without lr_decay")
        if self.schedule in {"cosine", "linear"} and shape not in {None, self.schedule}:
            raise SamplerError(
                f"lr_decay_shape: {shape!r} differs from schedule: {self.schedule}; use schedule:"
                " linear or wsd"
            )

    def check_lengths(self) -> None:
        """Check that warm-up and decay fit into the run."""
        warmup = _length(self.warmup, self.steps)
        decay = _length(self._decay or 0, self.steps)
        if decay and warmup + decay > self.steps:
            raise SamplerError(
                f"lr_decay: {decay:,g} steps of decay after {warmup:,g} of warm-up are more than"
                f" the {self.steps:,} of the schedule; shorten one of them"
            )
        if self.schedule == "inverse_sqrt" and warmup < 1:
            raise SamplerError(
                f"warmup: {warmup:g} steps, but the decay of inverse_sqrt is scaled by the"
                " warm-up; set at least 1"
            )

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0, in the unit of the peak."""
        warm = _length(self.warmup, self.steps)
        turn = self._decay_start(warm)
        if step < warm:
            return self.peak * (step + 1) / (math.floor(warm) + 1)
        if step < turn:
            return self._stable_rate(step, warm)
        level = self._stable_rate(turn, warm)
        if turn >= self.steps:
            return level
        end = min(level, self.floor)
        if step >= self.steps:
            return end
        finished = (step - turn) / (self.steps - turn)
        return end + (level - end) * _SHAPES[self._shape](finished)

    @property
    def _shape(self) -> RateShape:
        if self.lr_decay_shape is not None:
            return self.lr_decay_shape
        return "cosine" if self.schedule == "cosine" else "linear"

    @property
    def _has_decay(self) -> bool:
        return self.schedule in _DECAY or self.lr_decay is not None

    @property
    def _decay(self) -> float | None:
        return _DECAY.get(self.schedule) if self.lr_decay is None else self.lr_decay

    def _decay_start(self, warm: float) -> float:
        """Return the step at which the decay to the floor begins; it may be a fraction."""
        if not self._has_decay:
            return max(warm, self.steps)
        last = self.steps if self._decay is None else _length(self._decay, self.steps)
        return max(warm, self.steps - last)

    def _stable_rate(self, at: float, warm: float) -> float:
        """Return the rate between warm-up and decay."""
        if self.schedule != "inverse_sqrt" or at <= warm:
            return self.peak
        return max(self.peak * math.sqrt(warm / at), self.floor)


def _length(value: float, steps: int) -> float:
    """Return a length in steps; `value` below 1 is a fraction of all steps."""
    return value if value >= 1 else value * steps
