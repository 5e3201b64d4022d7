"""The state of a driver, every field checked before anything is changed.

Shapes: D domains.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from mixopt.errors import EstimatorError, MixoptError, MixtureError
from mixopt.online.contract import Estimator, HeldOut, Setting
from mixopt.online.loss_sums import from_first, held_out_losses, is_first, on_first
from mixopt.online.mixture_log import MixtureLog
from mixopt.online.run_setting import DriverOptions
from mixopt.online.standing_plan import Cost, CostMeter, StandingPlan, impossible
from mixopt.online.stream_steps import StreamState, StreamSteps
from mixopt.online.windows import LossWindow, LossWindows, WatchState
from mixopt.system import Array, StateFields, shown_value

_WHERE = "the driver's state"


@dataclass(frozen=True, eq=False)
class DriverState:
    """The fields of a state.

    Attributes:
        is_same: Whether its domains are those that are here.
        reference_D: The mixture that the run started from.
        step: Optimiser steps done.
        learning_rate: At the last of them.
        started: Whether the first plan was asked for.
        cost: What the estimator cost.
        watch: What was seen and not told yet.
        stream: Where the steps are in the stream.
        plans: The plans `plan`, `before` and `steady`.
        frozen: Why the mixture is frozen; None where it is not.
        log_size: Bytes of the mixture log.
        estimator: The estimator's own state, which it checks.
        trouble: What the estimator raised and not all ranks have heard of.
        told: The last step that the estimator was told of.
    """

    is_same: bool
    reference_D: Array
    step: int
    learning_rate: float
    started: bool
    cost: Cost
    watch: WatchState
    stream: StreamState
    plans: Mapping[str, StandingPlan]
    frozen: str | None
    log_size: int
    estimator: Any
    trouble: str | None
    told: int

    @classmethod
    def read(cls, state: Mapping[str, Any], setting: Setting) -> DriverState:
        """Check a state."""
        fields = StateFields(state, _WHERE, EstimatorError)
        domains, step = fields.texts("domains"), fields.whole("step")
        count, is_same = len(domains), tuple(domains) == setting.domains
        steering, decider = fields.part("steering"), fields.part("decider")
        plans = steering.part("plans")
        evaluations = len(setting.evaluations) if is_same else -1
        return cls(
            is_same=is_same,
            reference_D=fields.array("reference", (count,), least=0),
            step=step,
            learning_rate=fields.number("learning_rate"),
            started=fields.flag("started"),
            cost=_cost(fields.part("cost")),
            watch=WatchState.read(fields.part("watch"), count, evaluations),
            stream=StreamState.read(fields.part("stream"), domains if is_same else None, step),
            plans={
                name: StandingPlan.from_fields(plans.part(name), count)
                for name in ("plan", "before", "steady")
            },
            frozen=steering.maybe("frozen", steering.text),
            log_size=steering.whole("log_size"),
            estimator=decider.get("estimator"),
            trouble=decider.maybe("trouble", decider.text),
            told=decider.whole("seen", 0, step),
        )


def _cost(fields: StateFields) -> Cost:
    return Cost(
        evaluations=fields.whole("evaluations"),
        evaluation_tokens=fields.whole("evaluation_tokens"),
        evaluation_seconds=fields.number("evaluation_seconds", least=0),
        perturbed_steps=fields.whole("perturbed_steps"),
        perturbed_tokens=fields.whole("perturbed_tokens"),
        perturbed_seconds=fields.number("perturbed_seconds", least=0),
    )


class Decisions:
    """The state of a run that an estimator steers; the same on every rank.

    Attributes:
        setting: What the estimator knows of the run.
        seen: What was recorded and not told yet.
        meter: What the estimator costs.
        plan: What was decided last; it may hold from a later step on.
        frozen: Why the mixture is frozen; None where it is not.
        step: Optimiser steps done.
    """

    def __init__(
        self, estimator: Estimator, setting: Setting, stream: StreamSteps, options: DriverOptions
    ) -> None:
        """Begin on the reference mixture."""
        self._estimator, self._stream, self._options = estimator, stream, options
        self._trouble: str | None = None  # on rank 0, until all ranks hear of it with the next plan
        self._told = 0  # the last step that the estimator was told of
        self._started, self._learning_rate = False, 0.0
        self._log = MixtureLog(options.log)
        self.seen = LossWindows(
            stream,
            setting.domains,
            spike=options.spike,
            needs_losses="training_loss" in estimator.needs,
        )
        self.meter = CostMeter()
        self.frozen: str | None = None
        self.step = 0
        self._begin(setting)
        self._hold_reference()

    def _begin(self, setting: Setting) -> None:
        self.setting = setting
        on_first(lambda: self._estimator.start(setting))

    def _hold_reference(self) -> None:
        self.plan = self._before = self._steady = StandingPlan.reference(self.setting)

    # The loop -------------------------------------------------------------------------------

    def start(self) -> None:
        """Ask for the first plan, before the batches of the next step are handed out."""
        if not self._started:
            if self.step == 0:
                self._stream.begin()
            first = self.step + 1
            self._start_from(first, first=first, now=first)
        self.meter.lap()

    def after_step(self, learning_rate: float) -> None:
        """Note an optimiser step: tell and ask the estimator what is due."""
        self.step += 1
        self._learning_rate = learning_rate
        self._stream.check(self.step)
        seconds = self.meter.lap()
        if self._perturbs():
            before = self.setting.tokens_before(self.step - 1)
            self.meter.add_perturbed(self.setting.tokens_before(self.step) - before, seconds)
        if not self._started:
            self._start_from(self.step, first=self._next_free(), now=self.step)
        self._tell_due()
        if self.frozen is None:
            self._open_if_time()

    def thaw(self) -> None:
        """Ask for plans again, between two steps."""
        if self.frozen is not None:
            self.frozen = self._trouble = None
            self._decide(self._next_free(), self.step + 1)

    def _start_from(self, here: int, *, first: int, now: int) -> None:
        """Write the reference, which holds from a step on, and ask for a plan after it."""
        self._started = True
        if here == 1:
            self._log.cut(0)
        self._write(replace(self.plan, first=here))
        if self.frozen is None:
            self._decide(first, now)

    def _next_free(self) -> int:
        """Return the first step whose batches can still change."""
        return self.step + 1 + self._stream.lag(self.step)

    # What is told ---------------------------------------------------------------------------

    def _open_if_time(self) -> None:
        """Open a window where a plan ends, and every few steps in the middle of one."""
        plan, ends = self.plan, self.step == self.plan.last
        evaluates = ends and plan.held_out
        waits = self.seen.has_ended_plan or (plan.held_out and self.step >= plan.until)
        if ends or (self.step % self._options.observe_every == 0 and not waits):
            due = self.step if evaluates else self.step + self._options.lead
            self._open(due, ends=ends, evaluates=evaluates)
            self._tell_due()

    def _open(self, due: int, *, ends: bool, evaluates: bool) -> None:
        window = self.seen.open(self.step, due, ends_plan=ends, learning_rate=self._learning_rate)
        held_out = self._evaluated() if evaluates else None
        if isinstance(held_out, str):
            self._freeze(held_out)
        else:
            self.seen.wait_for(replace(window, held_out=held_out))

    def _evaluated(self) -> HeldOut | str:
        evaluate = self._options.evaluate
        assert evaluate is not None  # a plan that asks for what there is not is refused
        self.meter.lap()
        held_out = held_out_losses(evaluate, self.setting.evaluations)
        tokens = 0 if isinstance(held_out, str) else held_out.tokens
        self.meter.add_evaluation(tokens, self.meter.lap())
        return held_out

    def _tell_due(self) -> None:
        while self.frozen is None and (window := self.seen.next_due(self.step)):
            trouble = self.seen.trouble(window)
            if trouble is not None:
                self._freeze(trouble)
                return
            self._tell(window)
            if window.ends_plan:
                self._decide(self._next_free(), self.step)

    def _tell(self, window: LossWindow) -> None:
        self._told = window.step
        observation = window.observation()
        if is_first() and self._trouble is None:
            try:
                self._estimator.observe(observation)
            except Exception as error:
                self._trouble = f"{type(error).__name__} in observe: {error}"

    # What is decided ------------------------------------------------------------------------

    def _decide(self, first: int, now: int, *, again: bool = False) -> None:
        """Ask for a plan, and evaluate first if it asks to."""
        if first > self.setting.steps:
            return
        said = from_first(self._ask(first, now) if is_first() else None)
        if "trouble" in said:
            self._freeze(said["trouble"])
            return
        plan = StandingPlan.from_json(said)
        if not plan.is_question:
            self._apply(plan)
        elif again:
            self._freeze(f"plan {plan.why!r}: held-out losses are requested twice in a row")
        else:
            self._open(self.step, ends=False, evaluates=True)
            self._tell_due()
            if self.frozen is None:
                self._decide(first, now, again=True)

    def _ask(self, first: int, now: int) -> dict[str, Any]:
        """Return the estimator's plan as JSON has it, or `trouble`: why there is none."""
        if self._trouble is None:
            try:
                plan = self._estimator.plan()
            except Exception as error:
                self._trouble = f"{type(error).__name__} in plan: {error}"
            else:
                evaluates = self._options.evaluate is not None
                reason = impossible(plan, self.setting, self._stream, first, evaluates=evaluates)
                if reason is None:
                    standing = StandingPlan.of(
                        plan, self.setting, seen=self._told, now=now, first=first
                    )
                    return asdict(standing)
                self._trouble = f"plan {plan.tag!r}: {reason}"
        return {"trouble": self._trouble}

    # What holds -----------------------------------------------------------------------------

    def _apply(self, plan: StandingPlan) -> None:
        """Let a plan hold; weights that are what they were are neither set nor written."""
        if plan.weights != self.plan.weights:
            try:
                self._set(plan)
            except MixtureError as error:
                self._stay(f"plan {plan.why!r}: {error}", plan.first)
                return
            self._write(plan)
        self._before, self.plan = self.plan, plan
        if not plan.perturbs:
            self._steady = plan

    def _freeze(self, reason: str) -> None:
        self.seen.clear()
        self._stay(reason, self._next_free())

    def _stay(self, reason: str, first: int) -> None:
        """Stay with the weights for the rest of the run, or the last that did not perturb."""
        self.frozen = reason
        if is_first():
            logging.getLogger("mixopt.online").warning("the mixture is frozen: %s", reason)
        plan = replace(self._steady, first=first, last=0, held_out=False, why=f"frozen: {reason}")
        if plan.weights != self.plan.weights:
            self._set(plan)
        self._write(plan)
        self._before, self.plan = self.plan, plan

    def _perturbs(self) -> bool:
        """Whether the last step was on weights that perturb."""
        plan = self.plan if self.step >= self.plan.first else self._before
        return plan.perturbs and not self._options.shadow

    def _set(self, plan: StandingPlan) -> None:
        if not self._options.shadow and plan.first <= self.setting.steps:
            self._stream.set_weights(plan.first, plan.named(self.setting))

    def _write(self, plan: StandingPlan) -> None:
        batch, weights = self._stream.batch(plan.first), plan.named(self.setting)
        self._log.write(batch, plan.first, weights, plan.why, shadow=self._options.shadow)

    # State ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state; every rank has to call it, and that of rank 0 counts."""
        plans = {"plan": self.plan, "before": self._before, "steady": self._steady}
        return {
            "domains": list(self.setting.domains),
            "reference": self.setting.reference_D.tolist(),
            "step": self.step,
            "learning_rate": self._learning_rate,
            "started": self._started,
            "cost": asdict(self.meter.cost),
            "watch": self.seen.state_dict(),
            "stream": self._stream.state_dict(),
            "steering": {
                "plans": {name: asdict(plan) for name, plan in plans.items()},
                "frozen": self.frozen,
                "log_size": self._log.size,
            },
            "decider": {
                "estimator": on_first(self._estimator.state_dict),
                "trouble": self._trouble,
                "seen": self._told,
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state; where its domains are not these, on the reference mixture."""
        read = DriverState.read(state, self.setting)
        self._stream.check_samples(read.stream)
        before = self.setting
        with self._estimator_as_it_was():
            if read.is_same:
                self._begin(replace(before, reference_D=read.reference_D))
            on_first(lambda: self._load_estimator(read.estimator))
            on_first(lambda: self._log.cut(read.log_size))
        self._log.size = read.log_size
        self._trouble, self._told = read.trouble, read.told
        self.step, self._learning_rate = read.step, read.learning_rate
        self._stream.use(read.stream, self.step, same=read.is_same)
        self.frozen = read.frozen
        self.meter.cost = read.cost
        self._started = read.started and read.is_same
        if read.is_same:
            self.plan, self._before = read.plans["plan"], read.plans["before"]
            self._steady = read.plans["steady"]
            self.seen.use(read.watch)
        else:
            self._hold_reference()
            self.seen.clear()

    def _load_estimator(self, state: Any) -> None:
        """Run the estimator; an error that is not ours becomes one line."""
        name = type(self._estimator).__name__
        if not isinstance(state, Mapping):
            raise EstimatorError(
                f"the driver's state: decider: estimator: {shown_value(state)} is not a mapping"
            )
        try:
            self._estimator.load_state_dict(state)
        except MixoptError:
            raise
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise EstimatorError(f"{name} cannot resume from the driver's state: {what}") from error

    @contextmanager
    def _estimator_as_it_was(self) -> Iterator[None]:
        """Leave estimator and setting as they were where the block raises."""
        setting, inside = self.setting, getattr(self._estimator, "__dict__", None)
        kept = None if inside is None else dict(inside)
        try:
            yield
        except BaseException:
            self.setting = setting
            if inside is not None and kept is not None:
                inside.clear()
                inside.update(kept)
            raise
