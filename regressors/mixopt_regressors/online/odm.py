"""ODM: a bandit (EXP3) with training loss as reward.

After step t of a run with k domains, with eps_t = min(1/k, sqrt(ln k / (k t))):

    R_i += reward_i / p_i,   w_i = (1 - k eps_t) softmax(eps_{t-1} R)_i + eps_t

(github.com/alon-albalak/online-data-mixing). There a step draws one domain, whose reward is its
loss / 10. Here a batch mixes domains, and the reward of each is its share of the batch's tokens
times its loss / 10, which equals the published update for batches of one domain. A high loss
increases the weight, so that a domain of noise wins.

Shapes: D domains.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mixopt.online import Need, Observation, Plan
from mixopt.system import Array
from mixopt_regressors.online.online_estimator import OnlineEstimator, option, softmax

SCALE = 10.0  # scales a loss in nats to about [0, 1], as in the published code
WARM_UP = 50  # 1/50 of the run, as in the published 1B run: 2,000 of 100,000 steps


@dataclass(eq=False)
class ODMEstimator(OnlineEstimator):
    """Weights domains by EXP3 with training loss as reward.

    Attributes:
        warmup_steps: Optimiser steps on the reference mixture first; None: 2% of the run.
        update_steps: Optimiser steps of a plan; 1 in the published code.
    """

    name: ClassVar[str] = "odm"
    needs: ClassVar[frozenset[Need]] = frozenset({"training_loss"})
    saved: ClassVar[tuple[str, ...]] = ("rewards_D", "epsilon")

    warmup_steps: int | None = option(None, minimum=0)
    update_steps: int = option(1, minimum=1)

    def _first(self) -> Plan:
        domains = len(self.setting.domains)
        if self.warmup_steps is None:
            self.warmup = self.setting.steps // WARM_UP
        else:
            self.warmup = self.warmup_steps
        self.rewards_D = np.zeros(domains)
        self.epsilon = 1.0 / domains
        return Plan(self.setting.reference_D, self.warmup or self.update_steps, "reference")

    def _next(self, observation: Observation) -> Plan:
        if observation.step <= self.warmup:
            return Plan(self.setting.reference_D, self.update_steps, "reference")
        self.rewards_D = self.rewards_D + self._rewards(observation)
        exploited_D = softmax(self.epsilon * self.rewards_D)
        self.epsilon = self._exploration(observation.step)
        exploit = 1.0 - len(self.rewards_D) * self.epsilon
        weights_D = exploit * exploited_D + self.epsilon
        return Plan(self.bounded(weights_D), self.update_steps, f"explores {self.epsilon:.3g}")

    def _rewards(self, observation: Observation) -> Array:
        """Return the reward of each domain divided by its probability; 0 without tokens."""
        rewards_D = np.zeros(len(self.rewards_D))
        is_drawn_D = (observation.loss_count_D > 0) & (self.weights_D > 0)
        scale_D = SCALE * observation.loss_count_D.sum() * self.weights_D
        np.divide(observation.loss_sum_D, scale_D, out=rewards_D, where=is_drawn_D)
        return rewards_D

    def _exploration(self, step: int) -> float:
        domains = len(self.rewards_D)
        return min(1.0 / domains, math.sqrt(math.log(domains) / (domains * step)))
