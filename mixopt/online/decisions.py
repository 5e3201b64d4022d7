"""When a driver tells the estimator something and asks it for a plan, and what comes of it.

At the end of a window (mixopt.online.window) sums over ranks begin; when it is due, the estimator
is told, and asked for the next plan if one ended there. Every rank goes through the same, so that
what they do together they do at the same steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mixopt.online.contract import HeldOut, Plan
from mixopt.online.cost import Meter
from mixopt.online.decider import Decider
from mixopt.online.held_out import Evaluate, held_out_losses
from mixopt.online.standing_plan import StandingPlan, impossible
from mixopt.online.steering import Steering
from mixopt.online.stream_steps import StreamSteps
from mixopt.online.watch import Watch


@dataclass(eq=False)
class Decisions:
    """What is told and decided after each step.

    Attributes:
        stream: The samples that steps take.
        decider: The estimator.
        steering: What holds.
        watch: What was seen.
        meter: What it costs.
        evaluate: Evaluates held-out text on this rank; None where the loop cannot.
        observe_every: Steps between windows.
        lead: Steps that the sums of a window have.
        step: Optimiser steps done.
        learning_rate: That of the last.
    """

    stream: StreamSteps
    decider: Decider
    steering: Steering
    watch: Watch
    meter: Meter
    evaluate: Evaluate | None
    observe_every: int
    lead: int
    step: int = 0
    learning_rate: float = 0.0

    def begin(self, here: int, *, first: int, now: int) -> None:
        """Write the reference, and ask for a plan.

        Args:
            here: The step from which the reference holds.
            first: That from which the plan holds.
            now: The step with which the plan can end at the earliest.
        """
        self.steering.begin(here)
        if self.steering.frozen is None:
            self._decide(first, now)

    def thaw(self) -> None:
        """Ask for plans again, between two steps."""
        if self.steering.frozen is not None:
            self.steering.thaw()
            self.decider.trouble = None
            self._decide(self.next_free(), self.step + 1)

    def after_step(self) -> None:
        """Close the windows that are due, and open one if it is time."""
        self._close_due()
        if self.steering.frozen is not None:
            return
        plan = self.steering.plan
        ends = self.step == plan.last
        evaluates = ends and plan.held_out
        if ends or self._is_time(plan):
            due = self.step if evaluates else self.step + self.lead
            self._open(due, ends=ends, evaluates=evaluates)
            self._close_due()

    def next_free(self) -> int:
        """Return the first step whose batches can still change."""
        return self.step + 1 + self.stream.lag(self.step)

    def _is_time(self, plan: StandingPlan) -> bool:
        """Whether the estimator is told something in the middle of a plan.

        Not while the next plan is being decided, and not between the step at which it takes the
        plan to be over and the evaluation that it waits for.
        """
        waits = self.watch.has_ended_plan or (plan.held_out and self.step >= plan.until)
        return self.step % self.observe_every == 0 and not waits

    def _open(self, due: int, *, ends: bool, evaluates: bool) -> None:
        rate = self.learning_rate
        window = self.watch.open(self.step, due, ends_plan=ends, learning_rate=rate)
        held_out = self._held_out() if evaluates else None
        if isinstance(held_out, str):
            self._freeze(held_out)
        else:
            self.watch.wait_for(replace(window, held_out=held_out))

    def _held_out(self) -> HeldOut | str:
        assert self.evaluate is not None  # a plan that asks for what there is not is refused
        self.meter.lap()
        held_out = held_out_losses(self.evaluate, self.decider.setting.evaluations)
        tokens = 0 if isinstance(held_out, str) else held_out.tokens
        self.meter.add_evaluation(tokens, self.meter.lap())
        return held_out

    def _close_due(self) -> None:
        while self.steering.frozen is None and (window := self.watch.next_due(self.step)):
            trouble = self.watch.trouble(window)
            if trouble is not None:
                self._freeze(trouble)
                return
            self.decider.observe(window.observation())
            if window.ends_plan:
                self._decide(self.next_free(), self.step)

    def _decide(self, first: int, now: int, *, again: bool = False) -> None:
        """Ask for a plan, and evaluate before it if it says so.

        Args:
            first: The step from which it holds.
            now: The step with which it can end at the earliest.
            again: Whether held-out losses were asked for just before.
        """
        if first > self.decider.setting.steps:
            return
        plan = self.decider.next_plan(now, first, self._impossible)
        if isinstance(plan, str):
            self._freeze(plan)
        elif not plan.is_question:
            self.steering.apply(plan)
        elif again:
            self._freeze(f"plan {plan.why!r}: held-out losses are asked for twice in a row")
        else:
            self._open(self.step, ends=False, evaluates=True)
            self._close_due()
            if self.steering.frozen is None:
                self._decide(first, now, again=True)

    def _impossible(self, plan: Plan, first: int) -> str | None:
        if plan.held_out and self.evaluate is None:
            return "it asks for held-out losses, and there is no Driver(evaluate=)"
        return impossible(plan, self.decider.setting, self.stream, first)

    def _freeze(self, reason: str) -> None:
        self.watch.clear()
        self.steering.freeze(reason, self.next_free())
