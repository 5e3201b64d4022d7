"""Hold to a plan: tell the sampler, write the mixture log, freeze.

Every rank does the same, from what rank 0 decided; rank 0 writes the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from mixopt.errors import EstimatorError, MixtureError, SamplerError
from mixopt.online.contract import Setting
from mixopt.online.mixture_log import MixtureLog
from mixopt.online.reduce import is_first
from mixopt.online.standing_plan import StandingPlan
from mixopt.online.stream_steps import StreamSteps


class Steering:
    """The plan that holds, the one before it, and the last that was no perturbation."""

    def __init__(
        self, stream: StreamSteps, setting: Setting, log: MixtureLog, *, shadow: bool
    ) -> None:
        """Begin on the reference mixture.

        Args:
            stream: Where weights are set.
            setting: Domains, steps and the reference.
            log: Where changes are written.
            shadow: Write what would be done, and set nothing.
        """
        self.log = log
        self.frozen: str | None = None
        self._stream, self._setting, self._shadow = stream, setting, shadow
        self._use(_reference(setting))

    def _use(self, plan: StandingPlan) -> None:
        self.plan = self._before = self._steady = plan

    def begin(self, first: int) -> None:
        """Write the reference mixture, which holds from a step on."""
        if first == 1:
            self.log.cut(0)
        self._write(replace(self.plan, first=first))

    def apply(self, plan: StandingPlan) -> None:
        """Let a plan hold; weights that are what they were are neither set nor written.

        Raises:
            EstimatorError: The batch was handed out.
        """
        if plan.weights != self.plan.weights:
            try:
                self._set(plan)
            except MixtureError as error:
                self.freeze(f"plan {plan.why!r}: {error}", plan.first)
                return
            self._write(plan)
        self._before, self.plan = self.plan, plan
        if not plan.perturbs:
            self._steady = plan

    def freeze(self, reason: str, first: int) -> None:
        """Stay with the weights for the rest of the run, or the last that did not perturb.

        Args:
            reason: For the log.
            first: The next step that can change.
        """
        self.frozen = reason
        if is_first():
            logging.getLogger("mixopt.online").warning("the mixture is frozen: %s", reason)
        plan = replace(self._steady, first=first, last=0, held_out=False, why=f"frozen: {reason}")
        if plan.weights != self.plan.weights:
            self._set(plan)
        self._write(plan)
        self._before, self.plan = self.plan, plan

    def thaw(self) -> None:
        """Take plans again."""
        self.frozen = None

    def perturbs(self, step: int) -> bool:
        """Whether a step, up to the last that was planned, is on weights that perturb."""
        plan = self.plan if step >= self.plan.first else self._before
        return plan.perturbs and not self._shadow

    def _set(self, plan: StandingPlan) -> None:
        if self._shadow or plan.first > self._setting.steps:
            return
        batch = self._stream.batch(plan.first)
        try:
            self._stream.mixture.set_weights(self._named(plan), batch)
        except SamplerError as error:
            raise EstimatorError(
                f"{error}; call start() before the first batch is asked for"
            ) from error

    def _write(self, plan: StandingPlan) -> None:
        batch = self._stream.batch(plan.first)
        self.log.write(batch, plan.first, self._named(plan), plan.why, shadow=self._shadow)

    def _named(self, plan: StandingPlan) -> dict[str, float]:
        return dict(zip(self._setting.domains, plan.weights, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return plans, log and why it froze."""
        plans = {"plan": self.plan, "before": self._before, "steady": self._steady}
        return {
            "plans": {name: asdict(plan) for name, plan in plans.items()},
            "frozen": self.frozen,
            "log_size": self.log.size,
        }

    def load_state_dict(self, state: Mapping[str, Any], setting: Setting, *, same: bool) -> None:
        """Go on from a state.

        Args:
            state: What `state_dict` returned.
            setting: That of the run, from here on.
            same: Whether its domains are these; else the reference mixture holds.

        Raises:
            RunError: The log is shorter than it was.
        """
        self._setting = setting
        self.frozen = state["frozen"]
        self.log.cut(state["log_size"])
        if not same:
            self._use(_reference(setting))
            return
        plans = {name: StandingPlan.from_json(plan) for name, plan in state["plans"].items()}
        self.plan, self._before, self._steady = (
            plans[name] for name in ("plan", "before", "steady")
        )


def _reference(setting: Setting) -> StandingPlan:
    """Return the plan that the run starts from; it never ends by itself."""
    weights = tuple(setting.reference_D.tolist())
    return StandingPlan(weights, 1, last=0, until=0, why="start", held_out=False, perturbs=False)
