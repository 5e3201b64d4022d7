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

FORMAT = "mixopt-estimator/1"
ROUNDING = 1e-12  # how far the sum of a mixture may be from 1
MIN_SHARE = 1e-300  # replaces a share of 0, which multiplicative updates cannot change
# Attributes in a state: of the estimator, and of its sum of observations.
_RUN = ("step", "until", "tag", "held_out", "perturbs", "weights_D")
_SEEN = ("tokens_D", "loss_sum_D", "loss_count_D", "learning_rate")


def option(default: Any, *, minimum: float = -math.inf, maximum: float = math.inf) -> Any:
    """Return the dataclass field of an option; its annotation is the kind."""
    return field(default=default, metadata={"minimum": minimum, "maximum": maximum})


def check_option(where: str, value: Any, kind: type, minimum: float, maximum: float) -> None:
    """Check that an option has its kind (`bool`, `int`, `float`), is finite and in range."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if kind is bool:
        is_valid = isinstance(value, bool)
        expected = "true or false"
    elif kind is int:
        is_valid = is_number and isinstance(value, int) and value >= minimum
        expected = f"a whole number >= {minimum:g}"
    else:
        is_valid = is_number and math.isfinite(value) and minimum <= value <= maximum
        expected = _range_text(minimum, maximum)
    if not is_valid:
        raise EstimatorError(f"{where}: {value!r}; it takes {expected}")


def _range_text(minimum: float, maximum: float) -> str:
    if math.isfinite(maximum):
        return f"a number from {minimum:g} to {maximum:g}"
    if math.isfinite(minimum):
        return f"a number >= {minimum:g}"
    return "a number"


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
    values: dict[str, Any] = {}
    for name, initial in at_start.items():
        if type(initial) in take:
            values[name] = take[type(initial)](name)
        else:
            values[name] = state.array(name, np.shape(initial))
    return values


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a state with arrays as lists."""
    content = dict(values)
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            content[name] = value.tolist()
    return content


# Observations -------------------------------------------------------------------------------------


def added(previous: Observation, new: Observation) -> Observation:
    """Return the sum of two observations; a domain without tokens adds nothing."""
    is_counted_D = np.asarray(new.loss_count_D) > 0
    return replace(
        new,
        step=int(new.step),
        tokens_D=previous.tokens_D + new.tokens_D,
        loss_sum_D=previous.loss_sum_D + np.where(is_counted_D, new.loss_sum_D, 0.0),
        loss_count_D=previous.loss_count_D + new.loss_count_D,
        learning_rate=float(new.learning_rate),
    )


def means(sum_D: Array, count_D: Array) -> Array:
    """Return sums over counts; NaN where the count is 0."""
    means_D = np.full(count_D.shape, np.nan)
    np.divide(sum_D, count_D, out=means_D, where=count_D > 0)
    return means_D


def _check_array(where: str, array: Array, names: Sequence[str], minimum: float = -np.inf) -> None:
    if np.shape(array) != (len(names),):
        raise EstimatorError(
            f"{where}: shape {np.shape(array)}; one value each of {', '.join(names)}"
        )
    is_valid = np.isfinite(array) & (array >= minimum)
    if not is_valid.all():
        k = int(np.argmin(is_valid))
        raise EstimatorError(f"{where}: {array[k]} for {names[k]!r}")


# The frame ----------------------------------------------------------------------------------------


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
            value = getattr(self, option_field.name)
            hint = hints[option_field.name]
            kinds = get_args(hint) or (hint,)
            limits = option_field.metadata
            if "minimum" in limits and not (value is None and NoneType in kinds):
                where = f"{self.name}: {option_field.name}"
                check_option(where, value, kinds[0], limits["minimum"], limits["maximum"])

    @abstractmethod
    def _first(self) -> Plan:
        """Set the attributes in `saved` to their initial values; return the first plan."""

    @abstractmethod
    def _next(self, observation: Observation) -> Plan:
        """Return the plan after the one that ends now, from the sum of its observations."""

    def _check(self, observation: Observation) -> None:
        """Raise EstimatorError if an observation is invalid or incomplete."""
        domains = self.setting.domains
        where = f"{self.name}: step {observation.step}"
        if observation.step < self.step:
            raise EstimatorError(f"{where}: it comes after step {self.step}")
        count_D = observation.loss_count_D
        _check_array(f"{where}: tokens", observation.tokens_D, domains, minimum=0.0)
        _check_array(f"{where}: loss counts", count_D, domains, minimum=0.0)
        sum_D = observation.loss_sum_D
        if np.shape(sum_D) == np.shape(count_D):  # sums of domains without tokens are ignored
            sum_D = np.where(count_D > 0, sum_D, 0.0)
        _check_array(f"{where}: loss sums", sum_D, domains)
        held_out = observation.held_out
        if held_out is not None:
            _check_array(f"{where}: held-out losses", held_out.losses_M, self.setting.evaluations)

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
        self._setting = setting
        self.step = 0
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
        is_due = self.held_out and self.until <= self.step < self.setting.steps
        if is_due and observation.held_out is None:
            raise EstimatorError(
                f"{self.name}: step {observation.step}: held-out losses were asked for after step "
                f"{self.until} ({self.tag}) and were not provided"
            )
        self._seen = added(self._seen, observation)
        self.step = self._seen.step
        waits = self.held_out and observation.held_out is None
        if self.until <= self.step < self.setting.steps and not waits:
            self._adopt(self._next(self._seen))

    def state_dict(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        parts = {part: _as_json(values) for part, values in self._parts().items()}
        return self._about | parts

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state, after `start`."""
        saved = StateFields(state, f"{self.name}: state", EstimatorError)
        for name, current in self._about.items():
            recorded = saved.get(name)
            if recorded != current:
                items = recorded if isinstance(recorded, list) else []
                differing = [item for item in items if item not in current] or recorded
                raise saved.error(f"{saved.where}: {name}: {differing!r:.200}, here {current}")
        loaded = copy(self)
        loaded.start(self.setting)
        loaded._take_state(saved)
        vars(self).update(vars(loaded))

    def _take_state(self, saved: StateFields) -> None:
        parts = self._parts()
        run = unpack(saved.part("run"), parts["run"])
        observation = unpack(saved.part("seen"), parts["seen"])
        own = unpack(saved.part("own"), parts["own"])
        vars(self).update(run | own)
        if not (self.weights_D >= 0).all() or abs(self.weights_D.sum() - 1.0) > 1e-6:
            raise EstimatorError(f"{self.name}: state: run: 'weights_D' is not a mixture")
        self._seen = Observation(step=self.step, **observation)

    def bounded(self, weights_D: Array) -> Array:
        """Return the allowed mixture nearest to normalised weights."""
        if abs(weights_D.sum() - 1.0) > ROUNDING:
            weights_D = weights_D / weights_D.sum()
        is_above = (weights_D >= self._allowed.lower_D).all()
        is_below = (weights_D <= self._allowed.upper_D).all()
        if is_above and is_below:
            return weights_D
        return self._allowed.project(weights_D)

    def _adopt(self, plan: Plan) -> None:
        self.weights_D = plan.weights_D
        self.until = self.step + plan.steps
        self.tag = plan.tag
        self.held_out = plan.held_out
        self.perturbs = plan.perturbs
        zeros_D = np.zeros(len(self.setting.domains))
        self._seen = Observation(self.step, zeros_D, zeros_D, zeros_D)

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
