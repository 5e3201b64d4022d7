"""The learning rate over a run of known length: warm-up, then a shape by name.

`cosine` and `linear` go from the peak to the floor; `constant` stays; `wsd` is warm-up, stable,
decay; `inverse_sqrt` falls with the square root of the step, as after a warm-up of T5. Where
`lr_decay` is given, the fall to the floor takes that last part of the run alone, whatever comes
before it. The phases are those of a schedule file (mixopt.sampling.rate_phases).

A run may be a piece of a longer one: `start` is how many steps of it were taken before. Steps count
from 0; the first has a part of the peak, the one after the last would have the floor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from mixopt.errors import SamplerError, did_you_mean
from mixopt.sampling.rate_phases import DECAY_END, RatePhase, RateShape, RateStage, rate_level

RateCurveName = Literal["cosine", "constant", "linear", "wsd", "inverse_sqrt"]
RATE_CURVES: tuple[RateCurveName, ...] = ("cosine", "constant", "linear", "wsd", "inverse_sqrt")
WSD_DECAY = 0.2

_MAIN: Mapping[RateCurveName, RatePhase] = {"inverse_sqrt": "inverse_sqrt"}
# What falls to the floor at the end, where `lr_decay` does not say it: 1 is all after the warm-up.
_DECAY: Mapping[RateCurveName, float | None] = {"cosine": None, "linear": None, "wsd": WSD_DECAY}


@dataclass(frozen=True)
class RateCurve:
    """A learning rate by step; the names of its fields are those of `training` in a pretraining.

    Attributes:
        schedule: What comes after the warm-up.
        steps: Of the whole run, of which this one may be a part.
        warmup: Steps of linear warm-up; below 1, a fraction of all steps.
        lr_decay: Steps of the last part, in which the rate goes to the floor; below 1, a fraction
            of all steps. If omitted, a fifth of a `wsd`, all after the warm-up of a cosine and a
            linear schedule, and nothing of others.
        lr_decay_shape: How it goes there: `linear`, `cosine`, `sqrt` (1 - sqrt of what is done).
            If omitted, the cosine of a cosine, and linear.
        start: Steps of the run that were taken before.
        peak: The learning rate after the warm-up.
        floor: Where a decay ends, and below which nothing falls; in the unit of the peak.
    """

    schedule: RateCurveName
    steps: int
    warmup: float
    lr_decay: float | None = None
    lr_decay_shape: RateShape | None = None
    start: int = 0
    peak: float = 1.0
    floor: float = DECAY_END

    def __post_init__(self) -> None:
        """Check what does not depend on the number of steps.

        Raises:
            SamplerError: A schedule that there is not, or fields that do not go together; the
                message begins with the field.
        """
        if self.schedule not in RATE_CURVES:
            near = did_you_mean(str(self.schedule), RATE_CURVES) or "; " + ", ".join(RATE_CURVES)
            raise SamplerError(f"schedule: {self.schedule!r} is not one{near}")
        if self.schedule == "constant" and self.lr_decay is not None:
            raise SamplerError("lr_decay: a constant rate has no decay; give schedule: wsd")
        if self.schedule == "inverse_sqrt" and self.warmup == 0:
            raise SamplerError(
                "warmup: 0, and an inverse_sqrt falls by the length of its warm-up; give one"
            )
        if self.lr_decay_shape is not None and not self._falls:
            raise SamplerError(
                f"lr_decay_shape: {self.lr_decay_shape!r} has no effect without lr_decay"
            )
        if self.schedule == "cosine" and self.lr_decay_shape not in {None, "cosine"}:
            raise SamplerError(
                f"lr_decay_shape: {self.lr_decay_shape!r} is not that of a cosine; give schedule:"
                " linear or wsd"
            )
        if self.schedule == "linear" and self.lr_decay_shape not in {None, "linear"}:
            raise SamplerError(
                f"lr_decay_shape: {self.lr_decay_shape!r} is not linear; give schedule: wsd"
            )

    def check_lengths(self) -> None:
        """Check that warm-up and decay fit into the run.

        Raises:
            SamplerError: They overlap, or a warm-up is shorter than a step where it counts.
        """
        warmup = _length(self.warmup, self.steps)
        decay = 0.0 if self.lr_decay is None else _length(self.lr_decay, self.steps)
        if self.lr_decay is None and self.schedule == "wsd":
            decay = WSD_DECAY * self.steps
        if decay and warmup + decay > self.steps:
            raise SamplerError(
                f"lr_decay: {decay:,g} steps of decay after {warmup:,g} of warm-up are more than"
                f" the {self.steps:,} of the schedule; shorten one of them"
            )
        if self.schedule == "inverse_sqrt" and warmup < 1:
            raise SamplerError(
                f"warmup: {warmup:g} steps, and an inverse_sqrt falls by the length of its"
                " warm-up; give at least 1"
            )

    def rate(self, step: int) -> float:
        """Return the learning rate of a step of this run, from 0, in the unit of the peak."""
        return rate_level(self.start + step, self._phases, self.floor, self.peak)

    @property
    def _falls(self) -> bool:
        return self.schedule in _DECAY or self.lr_decay is not None

    @cached_property
    def _phases(self) -> list[RateStage]:
        """Return the phases, whose borders may lie inside a step."""
        warm = _length(self.warmup, self.steps)
        last = self.lr_decay if self.lr_decay is not None else _DECAY.get(self.schedule)
        length = (
            0.0 if not self._falls else self.steps if last is None else _length(last, self.steps)
        )
        turn = max(warm, self.steps - length)
        main = _MAIN.get(self.schedule, "stable")
        shape = self.lr_decay_shape or ("cosine" if self.schedule == "cosine" else "linear")
        least = self.floor if main == "inverse_sqrt" else None
        found = [
            RateStage(0, warm, "warmup", "linear", None),
            RateStage(warm, turn, main, "linear", least),
            RateStage(turn, self.steps, "decay", shape, None),
        ]
        return [phase for phase in found if phase.start < phase.stop]


def _length(given: float, steps: int) -> float:
    """Return a length in steps of one that may be a fraction of all."""
    return given if given >= 1 else given * steps
