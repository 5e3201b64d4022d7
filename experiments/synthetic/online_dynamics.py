"""A synthetic run whose losses are known functions of what was trained on, to try estimators in.

Nothing here is a language model. The loss of evaluation domain m after n_D sequences is

    L_m = floor_m + height_m (1 + (T n)_m / scale_m)^-exponent_m     slow: what has been learned
          - sum_d K_md log r_d                                       fast: what is fresh
          + anneal_m lr                                              falls as the learning rate does

with T the known transfer matrix and r the shares of late, a running mean whose memory is
`memory / lr` steps. The slow term is the usual power law. The fast term is the shape that pulses
of one domain showed on a small language model, where three quarters of what a pulse of 20 steps
gained its own domain, and nearly all that it cost the others, was gone 100 steps later; it is
convex, so that starving a domain costs more than feeding it gains. Training losses have noise that
falls with the sequences seen; held-out losses wander by `jitter * lr` with a memory of ten steps,
which is what a fixed held-out set shows.

The final loss depends on totals and on late shares, both linear in the schedule, and is convex in
them where transfer is not negative. So the best static mixture and the best schedule are found by
descent (experiments/synthetic/online_worlds.py).

Shapes: D domains, M evaluation domains, S segments of a schedule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mixopt.online import Estimator, HeldOut, Observation, Plan, Setting
from mixopt.system import Array

SEQUENCE = 64  # tokens
WARM_UP = 0.05
LAST_RATE = 0.1
LEAST_SHARE = 1e-3  # of a running mean, so that its logarithm is finite
WANDER = 10.0  # steps
CHUNK = 50  # steps between observations, at most


@dataclass(frozen=True)
class World:
    """The parameters of the losses; the formula is the module's.

    Attributes:
        floor_M: Loss that no training takes away.
        height_M: Loss that training takes away.
        scale_M: Sequences at which the slow term bends.
        exponent_M: Of the slow term.
        transfer_MD: Worth of a sequence of domain d to evaluation domain m.
        recency_MD: K of the fast term, >= 0.
        anneal_M: Loss that goes with the learning rate.
        objective_M: Weight of each evaluation domain.
        noise: Standard deviation of the training loss of one sequence.
        jitter: Standard deviation of a held-out loss at the highest learning rate.
        memory: Steps, at the highest learning rate, over which late shares are averaged.
        held_out: Sequences of each evaluation domain in one held-out pass.
        steps: Optimiser steps of a run.
        batch: Sequences of a step.
    """

    floor_M: Array
    height_M: Array
    scale_M: Array
    exponent_M: Array
    transfer_MD: Array
    recency_MD: Array
    anneal_M: Array
    objective_M: Array
    noise: float = 0.35
    jitter: float = 0.01
    memory: float = 30.0
    held_out: int = 24
    steps: int = 1000
    batch: int = 16

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the training domains; the first D evaluation domains are theirs."""
        return tuple(f"d{d}" for d in range(self.transfer_MD.shape[1]))

    @property
    def rates(self) -> Array:
        """Learning rate of each step, shape (steps,), highest 1: warm-up and cosine."""
        at = np.arange(self.steps) / self.steps
        cosine = LAST_RATE + (1 - LAST_RATE) * (1 + np.cos(np.pi * at)) / 2
        return np.minimum(cosine, (at + 1 / self.steps) / WARM_UP)

    @property
    def watched(self) -> NDArray[np.intp]:
        """Evaluation domains that the objective has; a held-out pass is over these."""
        return np.flatnonzero(self.objective_M)

    def setting(self, seed: int = 0) -> Setting:
        """Return the setting of an estimator; the reference is stratified."""
        count = len(self.domains)
        names = (*self.domains, *(f"t{m}" for m in range(len(self.floor_M) - count)))
        uniform_D = np.full(count, 1 / count)
        return Setting(
            domains=self.domains,
            steps=self.steps,
            tokens_per_step=self.batch * SEQUENCE,
            reference_D=uniform_D,
            natural_D=uniform_D,
            evaluations=tuple(names[m] for m in self.watched),
            objective_M=self.objective_M[self.watched],
            lower_D=np.zeros(count),
            upper_D=np.ones(count),
            seed=seed,
        )

    def losses(self, seen_D: Array, late_D: Array, rate: float | Array = LAST_RATE) -> Array:
        """Return the losses without noise, shape (..., M), of sequences seen and late shares."""
        worth_M = 1 + np.maximum(seen_D @ self.transfer_MD.T, 0.0) / self.scale_M
        fresh_M = np.log(np.maximum(late_D, LEAST_SHARE)) @ self.recency_MD.T
        fall_M = np.multiply.outer(rate, self.anneal_M)
        losses: Array = self.floor_M + self.height_M * worth_M**-self.exponent_M - fresh_M + fall_M
        return losses

    def values(self, seen_D: Array) -> Array:
        """Return what one more sequence of each domain takes off the objective, slow term only.

        These are the weighted column sums of the interaction matrix: the truth that an estimator
        of the interaction is after.
        """
        total_M = seen_D @ self.transfer_MD.T
        bent_M = (1 + np.maximum(total_M, 0.0) / self.scale_M) ** (-self.exponent_M - 1)
        slope_M = self.height_M * self.exponent_M / self.scale_M * bent_M * (total_M > 0)
        values: Array = (self.objective_M * slope_M) @ self.transfer_MD
        return values


@dataclass
class Outcome:
    """The result of a run.

    Attributes:
        loss: Objective at the end, without noise.
        evaluated: Tokens of held-out passes, as a share of the tokens trained on.
        perturbed: Share of the steps on perturbed mixtures.
        log: Step at which each plan began, its shares and its tag.
    """

    loss: float
    evaluated: float
    perturbed: float
    log: list[tuple[int, Array, str]] = field(repr=False)


class Simulation:
    """Runs one world: trains on shares, and evaluates."""

    def __init__(self, world: World, seed: int) -> None:
        """Begin at step 0.

        Args:
            world: What the losses do.
            seed: Of the noise.
        """
        self.world = world
        self.step = 0
        self.seen_D = np.zeros(len(world.domains))
        self.late_D = np.full(len(world.domains), 1 / len(world.domains))
        self.passes = 0
        self._owed_D = np.zeros(len(world.domains))
        self._rng = np.random.default_rng(seed)
        self._wander_M = self._rng.standard_normal(len(world.floor_M))
        self._wandered = 0
        self._rates = world.rates

    def train(self, weights_D: Array, steps: int) -> Observation:
        """Train some steps, with counts by error diffusion; return an observation."""
        world, count = self.world, len(self.world.domains)
        counts, seen, late = (np.empty((steps, count)) for _ in range(3))
        for s in range(steps):
            counts[s] = self._counts(weights_D)
            seen[s], late[s] = self.seen_D, self.late_D
            self.seen_D = self.seen_D + counts[s]
            pull = self._rates[self.step] / world.memory
            self.late_D = self.late_D + pull * (counts[s] / world.batch - self.late_D)
            self.step += 1
        true = world.losses(seen, late, self._rates[self.step - steps : self.step])[:, :count]
        noise = world.noise * self._rng.standard_normal(counts.shape) * np.sqrt(counts)
        tokens_D = counts.sum(axis=0) * SEQUENCE
        sums_D = (true * counts + noise).sum(axis=0) * SEQUENCE
        rate = float(self._rates[self.step - 1])
        return Observation(self.step, tokens_D, sums_D, tokens_D.copy(), learning_rate=rate)

    def evaluate(self) -> HeldOut:
        """Return held-out losses with their jitter."""
        world = self.world
        damping = np.exp(-(self.step - self._wandered) / WANDER)
        fresh_M = self._rng.standard_normal(len(self._wander_M))
        self._wander_M = damping * self._wander_M + np.sqrt(1 - damping**2) * fresh_M
        self._wandered = self.step
        self.passes += 1
        rate = float(self._rates[min(self.step, world.steps - 1)])
        losses_M = world.losses(self.seen_D, self.late_D, rate)
        losses_M = (losses_M + world.jitter * rate * self._wander_M)[world.watched]
        return HeldOut(losses_M, world.held_out * SEQUENCE * len(losses_M))

    def _counts(self, weights_D: Array) -> Array:
        """Split a batch by shares; rounding errors are carried over."""
        due_D = self._owed_D + weights_D * self.world.batch
        counts_D = np.maximum(np.floor(due_D), 0.0)
        short = self.world.batch - int(counts_D.sum())
        order_D = np.argsort(counts_D - due_D, kind="stable")
        if short >= 0:
            counts_D[order_D[:short]] += 1
        else:
            over_D = order_D[counts_D[order_D] > 0][short:]
            counts_D[over_D] -= 1
        self._owed_D = due_D - counts_D
        return counts_D


def run(world: World, estimator: Estimator, seed: int = 0) -> Outcome:
    """Let an estimator steer one run.

    Args:
        world: What the losses do.
        estimator: Not yet started.
        seed: Of the noise, and of what the estimator draws.

    Returns:
        What the run came to.
    """
    simulation = Simulation(world, seed)
    setting = world.setting(seed)
    estimator.start(setting)
    log, perturbed = [], 0
    while simulation.step < world.steps:
        plan = estimator.plan()
        log.append((simulation.step, plan.weights_D.copy(), plan.tag))
        begun = simulation.step
        for observation in follow(simulation, plan):
            estimator.observe(observation)
        perturbed += plan.perturbs * (simulation.step - begun)
    evaluated = simulation.passes * world.held_out * len(world.watched)
    losses_M = world.losses(simulation.seen_D, simulation.late_D)
    share = evaluated / (world.steps * world.batch)
    return Outcome(float(world.objective_M @ losses_M), share, perturbed / world.steps, log)


def follow(simulation: Simulation, plan: Plan) -> Iterator[Observation]:
    """Train on a plan to its end or the run's; return an observation."""
    left = min(plan.steps, simulation.world.steps - simulation.step)
    while left > CHUNK:
        yield simulation.train(plan.weights_D, CHUNK)
        left -= CHUNK
    last = simulation.train(plan.weights_D, left) if left else nothing(simulation)
    if plan.held_out:
        last = Observation(**{**vars(last), "held_out": simulation.evaluate()})
    yield last


def nothing(simulation: Simulation) -> Observation:
    """Return an observation of no steps, for a plan that only evaluates."""
    zero_D = np.zeros(len(simulation.world.domains))
    return Observation(simulation.step, zero_D, zero_D.copy(), zero_D.copy())
