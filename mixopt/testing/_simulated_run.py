"""A training run without a model: losses that fall with the tokens of each domain.

What an estimator is told depends on what it planned, on the step and on nothing else, so that runs
with the same plans are the same.

Shapes: D domains, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixopt.online import HeldOut, Observation, Plan, Setting
from mixopt.system import Array

DOMAINS = ("web", "code", "books")
TARGET = "exam"  # an evaluation domain that is not trained on
STEPS, TOKENS = 120, 600
FLOORS = {"web": 2.0, "code": 1.0, "books": 2.5, TARGET: 2.2}
RATES = {"web": 0.35, "code": 0.2, "books": 0.5, TARGET: 0.3}

Change = Callable[[Observation], Observation]


def simulated_setting(
    domains: tuple[str, ...] = DOMAINS, *, bounded: bool = False, mean: bool = False
) -> Setting:
    """Return the setting of a run of 120 steps.

    Args:
        domains: To train on.
        bounded: Whether shares have narrow bounds.
        mean: Whether the objective is the mean over the domains; else a target that is not
            trained on has 0.4 of it, and the domains the rest.
    """
    size = len(domains)
    target = 0.0 if mean else 0.4
    natural_D = np.array([0.5 if name == DOMAINS[0] else 0.25 for name in domains])
    return Setting(
        domains=domains,
        steps=STEPS,
        tokens_per_step=TOKENS,
        reference_D=np.full(size, 1.0 / size),
        natural_D=natural_D / natural_D.sum(),
        evaluations=(*domains, TARGET),
        objective_M=np.array([(1.0 - target) / size] * size + [target]),
        lower_D=np.full(size, 0.3 if bounded else 0.0),
        upper_D=np.full(size, 0.36 if bounded else 1.0),
    )


@dataclass
class SimulatedRun:
    """A run that an estimator steers.

    Attributes:
        estimator: Started on the setting.
        setting: The run.
        change: What happens to each observation before it is told.
        step: Steps done.
    """

    estimator: Any
    setting: Setting
    change: Change = lambda observation: observation
    step: int = 0

    def __post_init__(self) -> None:
        self.tokens = dict.fromkeys(self.setting.domains, 0.0)

    def follow(self, plan: Plan) -> list[Observation]:
        """Train on a plan and return what there is to tell: twice for a long plan, else once."""
        parts = [plan.steps // 2, plan.steps - plan.steps // 2] if plan.steps > 1 else [plan.steps]
        seen = [self._train(plan.weights_D, steps) for steps in parts]
        if plan.held_out:
            seen[-1] = replace(seen[-1], held_out=self._evaluate())
        return [self.change(observation) for observation in seen]

    def _train(self, weights_D: Array, steps: int) -> Observation:
        names = self.setting.domains
        tokens_D = np.round(weights_D * TOKENS * steps)
        for name, tokens in zip(names, tokens_D, strict=True):
            self.tokens[name] += tokens
        self.step += steps
        loss_D = self._losses(names)
        needs = self.estimator.needs
        count_D = tokens_D if "training_loss" in needs else np.zeros(len(names))
        return Observation(
            self.step,
            tokens_D,
            loss_sum_D=loss_D * count_D,
            loss_count_D=count_D.copy(),
            excess_sum_D=0.3 * (loss_D - 1.0) * count_D if "excess_loss" in needs else None,
            alignment_D=0.2 * loss_D if "alignment" in needs else None,
            learning_rate=1e-3,
        )

    def _evaluate(self) -> HeldOut:
        losses_M = self._losses(self.setting.evaluations)
        return HeldOut(losses_M, np.full(len(losses_M), 0.01), tokens=1000)

    def _losses(self, names: tuple[str, ...]) -> Array:
        """Return the losses; the target learns from all domains, a little of each."""
        tokens = self.tokens | {TARGET: 0.2 * sum(self.tokens.values())}
        noise = {name: 0.01 * np.sin(self.step * (7 + len(name))) for name in names}
        falls = [(1.0 + tokens[name] / TOKENS) ** -RATES.get(name, 0.3) for name in names]
        floors = [FLOORS.get(name, 2.0) + noise[name] for name in names]
        return np.array(floors) + 4.0 * np.array(falls)
