"""Aioli as published: learn the mixing law in sweeps within the run, then step along it.

A round begins with sweeps: some steps on each smoothed one-hot mixture, with held-out losses after
each, from which the matrix of the mixing law is solved. Its column sums update the mixture by
exponentiated gradient, and the rest of the round trains on it (github.com/HazyResearch/aioli;
arXiv 2411.05735).

Differences: the restricted setting, which starts from a mixture of another method, keeps that
mixture, where the published code trains on it and then restarts from uniform. Mixtures of sweeps
are planned exactly, and `realised` solves with the consumed tokens; published batches of seven
domains never draw the last one. The objective is any weighting of evaluation domains. A last round
too short for its sweeps is not started; the round before is extended.

Under a mixture p the loss of evaluation domain m falls by sum_d A_md p_d; with at least one sweep
of each domain, A solves P A' = drops, in the least-squares sense for repeated sweeps.

Shapes: K sweeps done, D domains, M evaluation domains.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mixopt.errors import EstimatorError
from mixopt.online import Need, Observation, Plan, Setting
from mixopt.system import Array
from mixopt_regressors.online.online_estimator import OnlineEstimator, log_shares, option, softmax

ROUNDS = 20  # as in the published runs with two and three domains
SWEEP_SHARE = 0.15  # of a round, by default


def column_sums(matrix_MD: Array, objective_M: Array) -> Array:
    """Return the value of each domain for the objective, shape (D,), adding up to 1."""
    is_target_M = objective_M > 0
    worth_MD = objective_M[is_target_M, None] * matrix_MD[is_target_M]
    worth_MD = worth_MD - min(worth_MD.min(), 0.0)
    total = worth_MD.sum()
    domains = matrix_MD.shape[1]
    if total <= 0.0:  # no loss changed
        return np.full(domains, 1.0 / domains)
    sums_D: Array = worth_MD.sum(axis=0) / total
    return sums_D


@dataclass(eq=False)
class AioliEstimator(OnlineEstimator):
    """Learns the mixing law in sweeps and updates by exponentiated gradient.

    Attributes:
        eta: Step size; 0 sweeps but never updates, as a control.
        update_steps: Optimiser steps of a round; None: 20 rounds, or fewer if sweeps would take
            more than 15% of them. The length of the run gives one round, the static variant.
        sweeps: Number of sweeps over all domains in a round.
        sweep_steps: Optimiser steps of one domain's sweep; None fills 15% of the round.
        one_hot: Share of the swept domain; the others share the rest evenly.
        ema: None multiplies weights round after round, as in the paper. A number in [0, 1] is the
            weight of the previous average in the column sums, which are applied to the first
            mixture, as in the published code; this bounds the change of weights.
        realised: Whether the law is solved with consumed shares instead of planned ones.
        prior_steps: Optimiser steps on the reference mixture before the first round.
    """

    name: ClassVar[str] = "aioli"
    needs: ClassVar[frozenset[Need]] = frozenset({"held_out"})
    saved: ClassVar[tuple[str, ...]] = (
        "round", "to_sweep", "mixtures_KD", "drops_KM", "losses_M",
        "matrix_MD", "columns_D", "log_weights_D",
    )  # fmt: skip

    eta: float = option(0.2, minimum=0.0)
    update_steps: int | None = option(None, minimum=1)
    sweeps: int = option(2, minimum=1)
    sweep_steps: int | None = option(None, minimum=1)
    one_hot: float = option(0.75, minimum=0.0, maximum=1.0)
    ema: float | None = option(None, minimum=0.0, maximum=1.0)
    realised: bool = option(False)
    prior_steps: int = option(0, minimum=0)

    def start(self, setting: Setting) -> None:
        """Begin a run."""
        domains = len(setting.domains)
        if domains < 2:
            raise EstimatorError("aioli: there is one domain; a mixture needs at least 2")
        if self.one_hot * domains <= 1.0 + 1e-9:
            raise EstimatorError(
                f"aioli: one_hot: {self.one_hot:g} is not above an even share of {domains}"
                f" domains; give more than {1 / domains:.4g}"
            )
        self.round_steps, self.each_sweep = self._lengths(setting)
        super().start(setting)

    def _lengths(self, setting: Setting) -> tuple[int, int]:
        """Return the steps of a round and of one domain's sweep."""
        sweeps = self.sweeps * len(setting.domains)
        remaining = setting.steps - self.prior_steps
        if remaining < 1:
            raise EstimatorError(
                f"aioli: prior_steps: {self.prior_steps} of {setting.steps} steps leave none for"
                " rounds"
            )
        min_steps = math.ceil(sweeps * (self.sweep_steps or 1) / SWEEP_SHARE)
        default_steps = max(math.ceil(remaining / ROUNDS), min_steps)
        steps = min(self.update_steps or default_steps, remaining)
        each = self.sweep_steps or max(int(SWEEP_SHARE * steps / sweeps), 1)
        if sweeps * each >= steps:
            raise EstimatorError(
                f"aioli: sweeps of {self.sweeps} x {len(setting.domains)} domains x {each} steps"
                f" fill a round of {steps}; fewer sweeps or sweep_steps, or longer update_steps"
            )
        return steps, each

    def _first(self) -> Plan:
        domains = len(self.setting.domains)
        evaluations = len(self.setting.evaluations)
        self.round = 0
        self.to_sweep: list[str] = []
        self.mixtures_KD = np.zeros((self.sweeps * domains, domains))
        self.drops_KM = np.zeros((self.sweeps * domains, evaluations))
        self.losses_M = np.zeros(evaluations)
        self.matrix_MD = np.zeros((evaluations, domains))
        self.columns_D = np.full(domains, 1.0 / domains)
        self.log_weights_D = log_shares(self.setting.reference_D)
        if self.prior_steps:
            return Plan(self.setting.reference_D, self.prior_steps, "prior", held_out=True)
        weights_D = self.bounded(softmax(self.log_weights_D))
        return Plan(weights_D, 0, "before the sweeps", held_out=True)

    def _next(self, observation: Observation) -> Plan:
        assert observation.held_out is not None  # requested by each plan but the last
        losses_M = np.array(observation.held_out.losses_M, float)
        if self.to_sweep:
            self._record(self._consumed(observation), self.losses_M - losses_M)
        else:
            self._begin_round()
        self.losses_M = losses_M
        if self.to_sweep:
            return self._sweep(self.to_sweep[0])
        self._update()
        return self._train()

    def _begin_round(self) -> None:
        """Draw the order of sweeps, which depends only on the seed and the round."""
        self.round += 1
        rng = np.random.default_rng([self.setting.seed, self.round])
        names = sorted(self.setting.domains)
        self.to_sweep = []
        for _ in range(self.sweeps):
            self.to_sweep += [names[d] for d in rng.permutation(len(names))]

    def _sweep(self, domain: str) -> Plan:
        domains = self.setting.domains
        weights_D = np.full(len(domains), (1.0 - self.one_hot) / (len(domains) - 1))
        weights_D[domains.index(domain)] = self.one_hot
        count = len(self.mixtures_KD)
        number = count - len(self.to_sweep) + 1
        tag = f"round {self.round}, sweep {number} of {count}: {domain}"
        return Plan(self.bounded(weights_D), self.each_sweep, tag, held_out=True, perturbs=True)

    def _consumed(self, observation: Observation) -> Array:
        total = observation.tokens_D.sum()
        if self.realised and total > 0:
            return np.asarray(observation.tokens_D / total)
        return self.weights_D

    def _record(self, mixture_D: Array, drop_M: Array) -> None:
        k = -len(self.to_sweep)
        self.mixtures_KD = self.mixtures_KD.copy()
        self.mixtures_KD[k] = mixture_D
        self.drops_KM = self.drops_KM.copy()
        self.drops_KM[k] = drop_M
        self.to_sweep = self.to_sweep[1:]

    def _update(self) -> None:
        """Solve the law and update the mixture by its column sums."""
        matrix_DM = np.linalg.lstsq(self.mixtures_KD, self.drops_KM, rcond=None)[0]
        self.matrix_MD = np.asarray(matrix_DM.T)
        columns_D = column_sums(self.matrix_MD, self.setting.objective_M)
        if self.ema is None:
            self.columns_D = columns_D
            self.log_weights_D = self.log_weights_D + self.eta * columns_D
            return
        memory = self.ema if self.round > 1 else 0.0
        self.columns_D = (1.0 - memory) * columns_D + memory * self.columns_D
        self.log_weights_D = log_shares(self.setting.reference_D) + self.eta * self.columns_D

    def _train(self) -> Plan:
        """Train on the mixture until the next round, or to the end if no further round fits."""
        sweeps = self.sweeps * len(self.setting.domains) * self.each_sweep
        rest = self.round_steps - sweeps
        remaining = self.setting.steps - self.step
        weights_D = self.bounded(softmax(self.log_weights_D))
        tag = f"round {self.round}"
        if remaining - rest > sweeps:
            return Plan(weights_D, rest, tag, held_out=True)
        return Plan(weights_D, remaining, tag)
