"""The base of our estimators: one plan at a time, checked observations, state by name.

A leaf says its first plan (`_first`) and, from all that was seen under a plan, the next one
(`_next`); its options are the fields of a dataclass, and `saved` names the attributes that are its
state. `plan` changes nothing: in the middle of a plan it says what is left of it, so that a run
that resumes from a checkpoint makes the same plans.

Bounds on shares hold for the plan alone: a method that accumulates log weights keeps them as they
are, and the mixture is the nearest one that is allowed (lazy mirror descent).

Shapes: D domains, M evaluation domains.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np

from mixopt.constraints import CappedSimplex
from mixopt.errors import EstimatorError, InfeasibleError
from mixopt.online import HeldOut, Need, Observation, Plan, Setting
from mixopt.system import Array, StateFields, shown_value

Names = Mapping[str, Sequence[str]]  # of the domains, under D, and of the evaluation domains, M
_SUFFIX = re.compile(r"_([A-Z]+)$")


def pack(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON has them: arrays as lists, NaN as null."""
    return {name: _listed(value) if _axes(name) else value for name, value in values.items()}


def unpack(
    packed: Mapping[str, Any], before: Names, here: Names, at_start: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values of a state, their named axes in the order that is here."""
    values = {name: _unpacked(name, packed, before, here, at_start[name]) for name in at_start}
    _check_lengths(values, at_start)
    return values


def _axes(name: str) -> str:
    found = _SUFFIX.search(name)
    return found[1] if found else ""


def _listed(value: Array | None) -> Any:
    if value is None:
        return None
    return np.where(np.isnan(value), None, value.astype(object)).tolist()  # type: ignore[call-overload]


def _unpacked(
    name: str, packed: Mapping[str, Any], before: Names, here: Names, at_start: Any
) -> Any:
    if name not in packed:
        raise EstimatorError(f"state: it has no {name!r}")
    value, axes = packed[name], _axes(name)
    if not axes:
        return _plain(name, value, at_start)
    if isinstance(value, (list, tuple)) and not value:  # an empty list has lost its other axes
        if np.size(at_start):
            raise EstimatorError(
                f"state: {name!r} has no values, but it has some at the start of a run"
            )
        return np.array(at_start, np.float64)
    return _mapped(_array(name, value, before, np.shape(at_start)), axes, before, here, at_start)


def _plain(name: str, value: Any, at_start: Any) -> Any:
    """Return what is not an array, of the kind that it is of at the start of a run."""
    fields = StateFields({name: value}, "state", EstimatorError)
    if isinstance(at_start, (bool, np.bool_)):
        return fields.flag(name)
    if isinstance(at_start, (int, np.integer)):
        return fields.whole(name)
    if isinstance(at_start, (float, np.floating)):
        return fields.number(name)
    return fields.text(name) if isinstance(at_start, str) else fields.texts(name)


def _array(name: str, value: Any, before: Names, start: tuple[int, ...]) -> Array:
    """Return an array whose axes are as long as their names are many, or as at the start."""
    try:
        array = np.array(value, np.float64)  # null becomes NaN
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EstimatorError(f"state: {name!r} is not an array of numbers") from error
    wanted = tuple(
        len(before[letter]) if letter in before else length or -1
        for letter, length in zip(_axes(name), start, strict=True)
    )
    fits = array.ndim == len(wanted) and all(
        size in {-1, length} for size, length in zip(wanted, array.shape, strict=True)
    )
    if not fits:
        raise EstimatorError(f"state: {name!r} has shape {array.shape}, not that of its domains")
    if np.isinf(array).any():
        raise EstimatorError(f"state: {name!r} has a number that is not finite")
    return array


def _check_lengths(values: Mapping[str, Any], at_start: Mapping[str, Any]) -> None:
    """Check that axes of one letter that grow have grown alike, as mixtures and their losses do."""
    lengths: dict[str, tuple[str, int]] = {}
    for name, value in values.items():
        axes = zip(_axes(name), np.shape(at_start[name]), np.shape(value), strict=False)
        for letter, length in ((one, now) for one, begun, now in axes if begun == 0):
            first, known = lengths.setdefault(letter, (name, length))
            if known != length:
                raise EstimatorError(
                    f"state: {name!r} has {length} along {letter}, and {first!r} has {known}"
                )


def _mapped(array: Array, axes: str, before: Names, here: Names, at_start: Any) -> Array:
    new = np.zeros((1,) * array.ndim, bool)
    for axis, letter in enumerate(axes):
        if letter in here:
            places = {name: place for place, name in enumerate(before[letter])}
            found = np.array([places.get(name, -1) for name in here[letter]])
            array = np.take(array, found, axis=axis)
            new = new | np.expand_dims(found < 0, tuple(set(range(array.ndim)) - {axis}))
    start = at_start if np.shape(at_start) == array.shape else np.nan
    mapped: Array = np.where(new, start, array)
    return mapped


def check_number(
    option: str, value: object, *, least: float = -math.inf, most: float = math.inf
) -> None:
    """Check that an option is a finite number in a range."""
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not (number and least <= value <= most):  # type: ignore[operator]
        raise EstimatorError(f"{option}: {value!r}; it takes a number{_range(least, most)}")


def check_whole(option: str, value: object, *, least: int) -> None:
    """Check that an option is a whole number, `least` or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise EstimatorError(f"{option}: {value!r}; it takes a whole number >= {least}")


def check_flag(option: str, value: object) -> None:
    """Check that an option is true or false."""
    if not isinstance(value, bool):
        raise EstimatorError(f"{option}: {value!r}; it takes true or false")


def _range(least: float, most: float) -> str:
    if math.isinf(least):
        return ""
    return f" >= {least:g}" if math.isinf(most) else f" from {least:g} to {most:g}"


def check(
    observation: Observation, name: str, setting: Setting, needs: frozenset[Need], step: int
) -> None:
    """Check an observation against the run and against what an estimator needs."""
    where = f"{name}: step {observation.step}"
    if observation.step < step:
        raise EstimatorError(f"{where}: it comes after step {step}")
    count_D = observation.loss_count_D
    for what, array in (("tokens", observation.tokens_D), ("loss counts", count_D)):
        _check(f"{where}: {what}", array, setting.domains, least=0.0)
    _check_counted(f"{where}: loss sums", observation.loss_sum_D, count_D, setting.domains)
    for what, need, given_D in (
        ("excess loss sums", "excess_loss", observation.excess_sum_D),
        ("alignment", "alignment", observation.alignment_D),
    ):
        if given_D is not None:
            _check_counted(f"{where}: {what}", given_D, count_D, setting.domains)
        elif need in needs:
            raise EstimatorError(f"{where}: {what}: needed and missing")
    if observation.held_out is not None:
        _check_held_out(where, observation.held_out, setting.evaluations)


def _check_held_out(where: str, held_out: HeldOut, evaluations: Sequence[str]) -> None:
    _check(f"{where}: held-out losses", held_out.losses_M, evaluations)
    _check(f"{where}: errors of held-out losses", held_out.errors_M, evaluations, least=0.0)


def _check_counted(what: str, array_D: Array, count_D: Array, names: Sequence[str]) -> None:
    """Check what says nothing of a domain that was not counted."""
    _check_shape(what, array_D, names)
    _check(what, np.where(np.asarray(count_D) > 0, array_D, 0.0), names)


def _check(what: str, array: Array, names: Sequence[str], least: float = -np.inf) -> None:
    _check_shape(what, array, names)
    good = np.isfinite(array) & (array >= least)
    if not good.all():
        place = int(np.argmin(good))
        raise EstimatorError(f"{what}: {array[place]} for {names[place]!r}")


def _check_shape(what: str, array: Array, names: Sequence[str]) -> None:
    if np.shape(array) != (len(names),):
        raise EstimatorError(
            f"{what}: shape {np.shape(array)}; one value each of {', '.join(names)}"
        )


@dataclass(frozen=True)
class Seen:
    """All that was told under a plan; a domain that was not counted adds nothing to a sum."""

    step: int
    tokens_D: Array
    loss_sum_D: Array
    loss_count_D: Array
    excess_sum_D: Array
    alignment_D: Array
    learning_rate: float = 0.0
    held_out: HeldOut | None = None

    @classmethod
    def nothing(cls, domains: int, step: int) -> Self:
        """Return what was seen at the beginning of a plan."""
        none_D = np.zeros(domains)
        return cls(step, none_D, none_D, none_D, none_D, alignment_D=np.full(domains, np.nan))

    @property
    def mean_loss_D(self) -> Array:
        """Mean training loss of each domain; NaN where none was seen."""
        return _means(self.loss_sum_D, self.loss_count_D)

    @property
    def mean_excess_D(self) -> Array:
        """Mean excess loss of each domain; NaN where none was seen."""
        return _means(self.excess_sum_D, self.loss_count_D)

    def add(self, observation: Observation) -> Self:
        """Return both in one."""
        counted_D = np.asarray(observation.loss_count_D) > 0
        excess_D, alignment_D = observation.excess_sum_D, observation.alignment_D
        return replace(
            self,
            step=int(observation.step),
            tokens_D=self.tokens_D + observation.tokens_D,
            loss_sum_D=self.loss_sum_D + np.where(counted_D, observation.loss_sum_D, 0.0),
            loss_count_D=self.loss_count_D + observation.loss_count_D,
            excess_sum_D=self.excess_sum_D
            + (0.0 if excess_D is None else np.where(counted_D, excess_D, 0.0)),
            alignment_D=self.alignment_D
            if alignment_D is None
            else np.where(counted_D, alignment_D, self.alignment_D),
            learning_rate=float(observation.learning_rate),
            held_out=observation.held_out,
        )


def _means(sum_D: Array, count_D: Array) -> Array:
    means_D = np.full(count_D.shape, np.nan)
    np.divide(sum_D, count_D, out=means_D, where=count_D > 0)
    return means_D


FORMAT = "mixopt-estimator/1"
ROUNDING = 1e-12  # how far from 1 a mixture may add up to
MIN_SHARE = 1e-300  # stands for a share of 0, which no multiplicative update moves
_RUN = ("step", "until", "tag", "held_out", "perturbs", "weights_D")
_SEEN = ("tokens_D", "loss_sum_D", "loss_count_D", "excess_sum_D", "alignment_D", "learning_rate")


class OnlineEstimator(ABC):
    """An estimator that makes each plan from what was seen under the one before.

    Attributes:
        name: Of its entry point.
        needs: What the loop must tell it.
        saved: Attributes that are its state; a suffix of axes says that they are arrays.
        step: Optimiser steps that it was told of.
        weights_D: The mixture of the plan in force.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    saved: ClassVar[tuple[str, ...]] = ()
    step: int
    until: int  # the step at which the plan in force ends
    tag: str
    held_out: bool
    perturbs: bool
    weights_D: Array
    _seen: Seen
    _setting: Setting | None = None

    @abstractmethod
    def _first(self) -> Plan:
        """Set what `saved` names to how a run begins, and return the first plan."""

    @abstractmethod
    def _next(self, seen: Seen) -> Plan:
        """Return the plan after the one that ends now; `seen` sums what was seen under it."""

    def _check(self, observation: Observation) -> None:
        """Raise an EstimatorError where an observation cannot be right or lacks what is needed."""
        check(observation, self.name, self.setting, self.needs, self.step)

    def _remapped(self) -> None:
        """Adjust a state that was loaded into a run with other domains or evaluations."""
        self.weights_D = self.bounded(self.weights_D)

    @property
    def setting(self) -> Setting:
        """The run."""
        if self._setting is None:
            raise EstimatorError(f"{self.name}: no run is started; call start(setting) first")
        return self._setting

    @property
    def options(self) -> dict[str, Any]:
        """What it was built with, as JSON has it."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        options: dict[str, Any] = json.loads(json.dumps(given))
        return options

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
        """Return what is left of the plan in force; after the last step, one step of it more."""
        steps = self.setting.steps
        if self.step >= steps:
            return Plan(self.weights_D.copy(), 1, "after the last step")
        left = max(min(self.until, steps) - self.step, 0)
        return Plan(self.weights_D.copy(), left, self.tag, self.held_out, self.perturbs)

    def observe(self, observation: Observation) -> None:
        """Take in what happened since the last observation."""
        self._check(observation)
        due = self.held_out and self.until <= self.step < self.setting.steps
        if due and observation.held_out is None:
            raise EstimatorError(
                f"{self.name}: step {observation.step}: held-out losses were asked for after step "
                f"{self.until} ({self.tag}) and were not provided"
            )
        self._seen = self._seen.add(observation)
        self.step = self._seen.step
        waits = self.held_out and observation.held_out is None
        if self.until <= self.step < self.setting.steps and not waits:
            self._adopt(self._next(self._seen))

    def state_dict(self) -> dict[str, Any]:
        """Return the state, made of what JSON has."""
        return {
            "format": FORMAT,
            "estimator": self.name,
            "options": self.options,
            "domains": list(self.setting.domains),
            "evaluations": list(self.setting.evaluations),
            **{part: pack(values) for part, values in self._parts().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state, after `start`; domains go by name, new ones begin as at start."""
        self._check_state(state)
        loaded = copy(self)
        loaded.start(self.setting)
        loaded._take_state(state)
        vars(self).update(vars(loaded))

    def _take_state(self, state: Mapping[str, Any]) -> None:
        before = {"D": list(state["domains"]), "M": list(state["evaluations"])}
        here = {"D": self.setting.domains, "M": self.setting.evaluations}
        fields = StateFields(state, f"{self.name}: state", EstimatorError)
        run, seen, own = (
            unpack(fields.part(part).content, before, here, values)
            for part, values in self._parts().items()
        )
        for name, value in (run | own).items():
            setattr(self, name, value)
        self._check_loaded(same=set(before["D"]) == set(here["D"]))
        self._seen = Seen(step=self.step, **seen)
        if any(set(before[axis]) != set(here[axis]) for axis in here):
            self._remapped()

    def bounded(self, weights_D: Array) -> Array:
        """Return the allowed mixture nearest to weights >= 0, which are scaled to add up to 1."""
        if abs(weights_D.sum() - 1.0) > ROUNDING:
            weights_D = weights_D / weights_D.sum()
        if (weights_D >= self._allowed.lower_D).all() and (
            weights_D <= self._allowed.upper_D
        ).all():
            return weights_D
        return self._allowed.project(weights_D)

    def objective(self, held_out: HeldOut) -> float:
        """Return what is minimised: the weighted mean of held-out losses, nats per token."""
        return float(self.setting.objective_M @ held_out.losses_M)

    def _adopt(self, plan: Plan) -> None:
        self.weights_D = plan.weights_D
        self.until = self.step + plan.steps
        self.tag, self.held_out, self.perturbs = plan.tag, plan.held_out, plan.perturbs
        self._seen = Seen.nothing(len(self.setting.domains), self.step)

    def _parts(self) -> dict[str, dict[str, Any]]:
        return {
            "run": {name: getattr(self, name) for name in _RUN},
            "seen": {name: getattr(self._seen, name) for name in _SEEN},
            "own": {name: getattr(self, name) for name in self.saved},
        }

    def _check_state(self, state: Mapping[str, Any]) -> None:
        fields = StateFields(state, f"{self.name}: state", EstimatorError)
        parts = ("estimator", "options", "domains", "evaluations", "run", "seen", "own")
        if fields.content.get("format") != FORMAT or any(part not in state for part in parts):
            raise EstimatorError(f"{self.name}: this is not the state of an estimator ({FORMAT})")
        if state["estimator"] != self.name:
            raise EstimatorError(
                f"{self.name}: the state is that of {shown_value(state['estimator'])}"
            )
        saved = fields.part("options").content
        for option, value in self.options.items():
            if saved.get(option) != value:
                raise EstimatorError(
                    f"{self.name}: the state was made with {option}:"
                    f" {shown_value(saved.get(option))}, not {value!r}"
                )
        for names in ("domains", "evaluations"):
            if len(set(fields.texts(names))) != len(fields.texts(names)):
                fields.refuse(names, "not a list of names, each once")
        if not set(state["domains"]) & set(self.setting.domains):
            raise EstimatorError(
                f"{self.name}: the state has none of the domains {list(self.setting.domains)}"
            )

    def _check_loaded(self, *, same: bool) -> None:
        """Check that the weights are a mixture; where domains differ they are made one again."""
        total, least = float(np.nansum(self.weights_D)), float(np.nanmin(self.weights_D))
        is_short = np.isnan(self.weights_D).any() or abs(total - 1.0) > 1e-6
        if (same and is_short) or not total > 0 or least < 0:
            raise EstimatorError(f"{self.name}: state: run: 'weights_D' is not a mixture")


def log_shares(weights_D: Array) -> Array:
    """Return the logarithms, finite for a share of 0 too: JSON has no infinity."""
    logs_D: Array = np.log(np.maximum(weights_D, MIN_SHARE))
    return logs_D


def softmax(log_weights_D: Array) -> Array:
    """Return weights in proportion to the exponentials, adding up to 1."""
    weights_D = np.exp(log_weights_D - log_weights_D.max())
    total: Array = weights_D / weights_D.sum()
    return total
