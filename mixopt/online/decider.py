"""The estimator as it runs on rank 0; whatever it raises becomes a reason to freeze."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from mixopt.errors import EstimatorError
from mixopt.online.contract import Estimator, Observation, Plan, Setting
from mixopt.online.reduce import from_first, is_first
from mixopt.online.rounding import rounded_shares
from mixopt.online.standing_plan import StandingPlan

Check = Callable[[Plan, int], str | None]


class Decider:
    """Ask the estimator on rank 0, and say the same on every rank."""

    def __init__(self, estimator: Estimator, setting: Setting) -> None:
        """Begin a run.

        Raises:
            EstimatorError: The estimator cannot work in this setting.
        """
        self._estimator = estimator
        self.setting = setting
        self.trouble: str | None = None
        self.seen = 0
        self.begin(setting)

    def begin(self, setting: Setting) -> None:
        """Begin the run anew, in another setting."""
        self.setting = setting
        _on_first(lambda: self._estimator.start(setting))

    def observe(self, observation: Observation) -> None:
        """Tell the estimator; on rank 0 alone.

        What it raises is kept until all ranks hear of it, with the next plan.
        """
        self.seen = observation.step
        if is_first() and self.trouble is None:
            try:
                self._estimator.observe(observation)
            except Exception as error:
                self.trouble = f"{type(error).__name__} in observe: {error}"

    def next_plan(self, now: int, first: int, check: Check) -> StandingPlan | str:
        """Return the next plan on every rank, or why there is none.

        Args:
            now: The step with which it can end at the earliest.
            first: The step from which it is to hold.
            check: Says why a plan cannot hold from a step on, or None.
        """
        said = from_first(self._ask(now, first, check) if is_first() else None)
        return said["trouble"] if "trouble" in said else StandingPlan.from_json(said)

    def _ask(self, now: int, first: int, check: Check) -> dict[str, Any]:
        if self.trouble is None:
            try:
                plan = self._estimator.plan()
            except Exception as error:
                self.trouble = f"{type(error).__name__} in plan: {error}"
            else:
                reason = check(plan, first)
                if reason is None:
                    rounded_D = self._rounded(plan)
                    standing = StandingPlan.of(
                        plan, rounded_D, seen=self.seen, now=now, first=first
                    )
                    return asdict(standing)
                self.trouble = f"plan {plan.tag!r}: {reason}"
        return {"trouble": self.trouble}

    def _rounded(self, plan: Plan) -> Any:
        s = self.setting
        return rounded_shares(plan.weights_D, s.reference_D, s.lower_D, s.upper_D)

    def state_dict(self) -> dict[str, Any]:
        """Return the state; None of other ranks than 0.

        Raises:
            EstimatorError: The estimator has none; on every rank.
        """
        estimator = _on_first(self._estimator.state_dict)
        return {"estimator": estimator, "trouble": self.trouble, "seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            EstimatorError: It is not a state of this estimator.
        """
        self.trouble, self.seen = state["trouble"], state["seen"]
        _on_first(lambda: self._estimator.load_state_dict(state["estimator"]))


def _on_first(call: Callable[[], Any]) -> Any:
    """Return what a call gives on rank 0, else None; what it raises there is raised everywhere.

    Otherwise the other ranks would wait for one that is gone.
    """
    result, error = None, None
    if is_first():
        try:
            result = call()
        except Exception as caught:
            error = caught
    said = from_first(None if error is None else f"{type(error).__name__} on rank 0: {error}")
    if error is not None:
        raise error
    if said is not None:
        raise EstimatorError(said)
    return result
