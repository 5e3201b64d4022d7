"""Base class of the estimators: plans, checked observations, state by name.

A subclass returns its first plan (`_first`), and the next plan from all observations under the
present one (`_next`). Its options are the fields of a dataclass, and `saved` names the attributes
of its state. `plan` has no side effects: in the middle of a plan it returns the rest of it, so that
a run resumed from a checkpoint makes the same plans.

Bounds on shares apply to the plan only: accumulated log weights are not bounded, and the mixture is
the nearest allowed one (lazy mirror descent).

Shapes: D domains, M evaluation domains.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import field, fields, replace
from numbers import Real
from types import NoneType
from typing import Any, ClassVar, get_args, get_type_hints

import numpy as np

from mixopt.constraints import CappedSimplex
from mixopt.errors import EstimatorError, InfeasibleError
from mixopt.online import Need, Observation, Plan, Setting
from mixopt.system import Array, StateFields


def option(default: Any, *, least: float = -math.inf, most: float = math.inf) -> Any:
    """Return the dataclass field of an option; its annotation is the kind."""
    return field(default=default, metadata={"range": (least, most)})


def check_option(
    where: str, value: Any, kind: type, low: float = -math.inf, high: float = math.inf
) -> None:
    """Check that an option has its kind (`bool`, `int`, `float`), is finite and in range."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if kind is bool:
        is_right, text = isinstance(value, bool), "true or false"
    elif kind is int:
        is_right = is_number and isinstance(value, int) and value >= low
        text = f"a whole number >= {low:g}"
    else:
        is_right = is_number and math.isfinite(value) and low <= value <= high
        above = "" if math.isinf(low) else f" >= {low:g}"
        text = f"a number{above if math.isinf(high) else f' from {low:g} to {high:g}'}"
    if not is_right:
        raise EstimatorError(f"{where}: {value!r}; it takes {text}")


# State by name ------------------------------------------------------------------------------------


def unpack(state: StateFields, at_start: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a state, checked against the initial kinds and shapes."""
    take: dict[type, Callable[[str], Any]] = {
        bool: state.flag,
        int: state.whole,
        float: state.number,
        str: state.text,
        list: state.texts,
    }
    return {
        name: take[type(start)](name) if type(start) in take else state.array(name, np.shape(start))
        for name, start in at_start.items()
    }


# Observations -------------------------------------------------------------------------------------


def together(previous: Observation, new: Observation) -> Observation:
    """Return the sum of two observations; a domain without tokens adds nothing."""
    counted_D = np.asarray(new.loss_count_D) > 0
    return replace(
        new,
        step=int(new.step),
        tokens_D=previous.tokens_D + new.tokens_D,
        loss_sum_D=previous.loss_sum_D + np.where(counted_D, new.loss_sum_D, 0.0),
        loss_count_D=previous.loss_count_D + new.loss_count_D,
        learning_rate=float(new.learning_rate),
    )


def means(sum_D: Array, count_D: Array) -> Array:
    """Return sums over counts; NaN where the count is 0."""
    means_D = np.full(count_D.shape, np.nan)
    np.divide(sum_D, count_D, out=means_D, where=count_D > 0)
    return means_D


def _check(where: str, array: Array, names: Sequence[str], low: float = -np.inf) -> None:
    if np.shape(array) != (len(names),):
        raise EstimatorError(
            f"{where}: shape {np.shape(array)}; one value each of {', '.join(names)}"
        )
    is_right = np.isfinite(array) & (array >= low)
    if not is_right.all():
        place = int(np.argmin(is_right))
        raise EstimatorError(f"{where}: {array[place]} for {names[place]!r}")


# The frame ----------------------------------------------------------------------------------------

FORMAT = "mixopt-estimator/1"
ROUNDING = 1e-12  # how far the sum of a mixture may be from 1
MIN_SHARE = 1e-300  # replaces a share of 0, which multiplicative updates cannot change
_RUN = ("step", "until", "tag", "held_out", "perturbs", "weights_D")
_SEEN = ("tokens_D", "loss_sum_D", "loss_count_D", "learning_rate")


class OnlineEstimator(ABC):
    """An estimator that makes each plan from observations under the previous one.

    Attributes:
        name: Name of its entry point.
        needs: Observations that the loop must provide.
        saved: Attributes of its state.
        step: Optimiser steps observed so far.
        weights_D: The mixture of the present plan.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    saved: ClassVar[tuple[str, ...]] = ()
    step: int
    until: int  # the step at which the present plan ends
    tag: str
    held_out: bool
    perturbs: bool
    weights_D: Array
    _seen: Observation  # sum of observations under the present plan
    _setting: Setting | None = None

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for option_field in fields(self):  # type: ignore[arg-type]
            value, hint = getattr(self, option_field.name), hints[option_field.name]
            kinds = get_args(hint) or (hint,)
            if "range" in option_field.metadata and not (value is None and NoneType in kinds):
                where = f"{self.name}: {option_field.name}"
                check_option(where, value, kinds[0], *option_field.metadata["range"])

    @abstractmethod
    def _first(self) -> Plan:
        """Set the attributes in `saved` to their initial values; return the first plan."""

    @abstractmethod
    def _next(self, observation: Observation) -> Plan:
        """Return the plan after the one that ends now, from the sum of its observations."""

    def _check(self, observation: Observation) -> None:
        """Raise EstimatorError if an observation is invalid or incomplete."""
        setting, where = self.setting, f"{self.name}: step {observation.step}"
        if observation.step < self.step:
            raise EstimatorError(f"{where}: it comes after step {self.step}")
        count_D = observation.loss_count_D
        _check(f"{where}: tokens", observation.tokens_D, setting.domains, low=0.0)
        _check(f"{where}: loss counts", count_D, setting.domains, low=0.0)
        sum_D = observation.loss_sum_D
        if np.shape(sum_D) == np.shape(count_D):  # sums of domains without tokens are ignored
            sum_D = np.where(count_D > 0, sum_D, 0.0)
        _check(f"{where}: loss sums", sum_D, setting.domains)
        held_out, names = observation.held_out, setting.evaluations
        if held_out is not None:
            _check(f"{where}: held-out losses", held_out.losses_M, names)

    @property
    def setting(self) -> Setting:
        """The run."""
        if self._setting is None:
            raise EstimatorError(f"{self.name}: no run is started; call start(setting) first")
        return self._setting

    @property
    def _about(self) -> dict[str, Any]:
        """Setting that a state and the resuming run must share."""
        names = [option_field.name for option_field in fields(self)]  # type: ignore[arg-type]
        return {
            "format": FORMAT,
            "estimator": self.name,
            "options": [f"{name}={json.dumps(getattr(self, name))}" for name in names],
            "domains": list(self.setting.domains),
            "evaluations": list(self.setting.evaluations),
        }

    def start(self, setting: Setting) -> None:
        """Begin a run."""
        try:
            self._allowed = CappedSimplex(
                np.clip(setting.lower_D, 0.0, 1.0), np.clip(setting.upper_D, 0.0, 1.0)
            )
        except InfeasibleError as error:
            raise EstimatorError(f"{self.name}: {error}") from error
        self._setting, self.step = setting, 0
        self._adopt(self._first())

    def plan(self) -> Plan:
        """Return the rest of the present plan; after the last step, one more step of it."""
        steps = self.setting.steps
        if self.step >= steps:
            return Plan(self.weights_D.copy(), 1, "after the last step")
        remaining = max(min(self.until, steps) - self.step, 0)
        return Plan(self.weights_D.copy(), remaining, self.tag, self.held_out, self.perturbs)

    def observe(self, observation: Observation) -> None:
        """Add an observation since the last one."""
        self._check(observation)
        due = self.held_out and self.until <= self.step < self.setting.steps
        if due and observation.held_out is None:
            raise EstimatorError(
                f"{self.name}: step {observation.step}: held-out losses were asked for after step "
                f"{self.until} ({self.tag}) and were not provided"
            )
        self._seen = together(self._seen, observation)
        self.step = self._seen.step
        waits = self.held_out and observation.held_out is None
        if self.until <= self.step < self.setting.steps and not waits:
            self._adopt(self._next(self._seen))

    def state_dict(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return {
            **self._about,
            **{
                part: {n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in values.items()}
                for part, values in self._parts().items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state, after `start`."""
        saved = StateFields(state, f"{self.name}: state", EstimatorError)
        for name, current in self._about.items():
            recorded = saved.get(name)
            if recorded != current:
                items = recorded if isinstance(recorded, list) else []
                odd = [item for item in items if item not in current]
                raise saved.error(
                    f"{saved.where}: {name}: {odd or recorded!r:.200}, here {current}"
                )
        loaded = copy(self)
        loaded.start(self.setting)
        loaded._take_state(saved)
        vars(self).update(vars(loaded))

    def _take_state(self, saved: StateFields) -> None:
        run, observation, extra = (
            unpack(saved.part(part), values) for part, values in self._parts().items()
        )
        vars(self).update(run | extra)
        if not (self.weights_D >= 0).all() or abs(self.weights_D.sum() - 1.0) > 1e-6:
            raise EstimatorError(f"{self.name}: state: run: 'weights_D' is not a mixture")
        self._seen = Observation(step=self.step, **observation)

    def bounded(self, weights_D: Array) -> Array:
        """Return the allowed mixture nearest to normalised weights."""
        if abs(weights_D.sum() - 1.0) > ROUNDING:
            weights_D = weights_D / weights_D.sum()
        if (weights_D >= self._allowed.lower_D).all() and (
            weights_D <= self._allowed.upper_D
        ).all():
            return weights_D
        return self._allowed.project(weights_D)

    def _adopt(self, plan: Plan) -> None:
        self.weights_D = plan.weights_D
        self.until = self.step + plan.steps
        self.tag, self.held_out, self.perturbs = plan.tag, plan.held_out, plan.perturbs
        none_D = np.zeros(len(self.setting.domains))
        self._seen = Observation(self.step, none_D, none_D, none_D)

    def _parts(self) -> dict[str, dict[str, Any]]:
        return {
            "run": {name: getattr(self, name) for name in _RUN},
            "seen": {name: getattr(self._seen, name) for name in _SEEN},
            "own": {name: getattr(self, name) for name in self.saved},
        }


def log_shares(weights_D: Array) -> Array:
    """Return logarithms, finite also for a share of 0, because JSON has no infinity."""
    return np.log(np.maximum(weights_D, MIN_SHARE))


def softmax(log_weights_D: Array) -> Array:
    """Return normalised exponentials."""
    weights_D = np.exp(log_weights_D - log_weights_D.max())
    total: Array = weights_D / weights_D.sum()
    return total
