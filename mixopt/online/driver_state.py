"""The state of a driver, every field checked before anything is changed.

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixopt.errors import EstimatorError
from mixopt.online.contract import Setting
from mixopt.online.cost import Cost
from mixopt.online.standing_plan import StandingPlan
from mixopt.online.stream_steps import StreamState
from mixopt.online.windows import WatchState
from mixopt.system import Array, StateFields

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
        """Check a state.

        Args:
            state: What `Driver.state_dict` returned.
            setting: The run that resumes from it.

        Raises:
            EstimatorError: A field is missing or cannot be right.
        """
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
