"""Estimators that reweigh domains by a score of each, and the fixed mixtures beside them.

Skill-It: p_d is in proportion to p0_d exp(eta sum_m G_dm L_m), where L is the sum of the last
held-out losses and G_dm the share of m's loss that training on d alone takes away in a short run.
It is taken from the first mixture p0 each time; the first plan takes every loss as 1
(github.com/HazyResearch/skill-it). Evaluation domains count by their weight in the objective; equal
weights are the published sum.

ODM is a bandit (EXP3) that is rewarded with training loss. After step t, with eps_t = min(1/k,
sqrt(ln k / (k t))):

    R_i += reward_i / p_i,   w_i = (1 - k eps_t) softmax(eps_{t-1} R)_i + eps_t

(github.com/alon-albalak/online-data-mixing). There a step draws one domain, whose reward is its
loss / 10. Here a batch mixes domains, and the reward of each is its share of the batch's tokens
times its loss / 10: the published update where a batch has one domain. A high loss earns a high
weight, so that a domain of noise wins.

Shapes: D domains, M evaluation domains, W evaluations in the window.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mixopt.errors import EstimatorError
from mixopt.online import Need, Plan
from mixopt.system import Array, read_json
from mixopt_regressors.online.online_estimator import (
    OnlineEstimator,
    Seen,
    check_option,
    log_shares,
    option,
    softmax,
)

UPDATES = 10  # of the published runs with two and three domains


@dataclass(eq=False)
class SkillItEstimator(OnlineEstimator):
    """Weighs domains by a graph of what teaches what and by the losses.

    Attributes:
        eta: Step size.
        update_steps: Optimiser steps of a plan; None makes 10 plans.
        window: How many of the last evaluations are summed.
        graph: `{domain: {evaluation domain: value}}`, or a JSON file of it; None is the graph
            in which each domain teaches itself.
    """

    name: ClassVar[str] = "skill_it"
    needs: ClassVar[frozenset[Need]] = frozenset({"held_out"})
    saved: ClassVar[tuple[str, ...]] = ("losses_WM",)

    eta: float = option(0.2, least=0.0)
    update_steps: int | None = option(None, least=1)
    window: int = option(3, least=1)
    graph: Mapping[str, Mapping[str, float]] | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.graph is not None and not isinstance(self.graph, str):
            _check_graph(self.graph, "graph")

    def _first(self) -> Plan:
        self.graph_DM = self._read()
        self.losses_WM = np.empty((0, len(self.setting.evaluations)))
        return self._mix(np.ones(len(self.setting.evaluations)), "every loss taken as 1")

    def _next(self, seen: Seen) -> Plan:
        assert seen.held_out is not None  # every plan asks for them
        window_WM = np.vstack([self.losses_WM, seen.held_out.losses_M])
        self.losses_WM = window_WM[-self.window :]
        return self._mix(self.losses_WM.sum(axis=0), f"losses at step {seen.step}")

    def _mix(self, losses_M: Array, tag: str) -> Plan:
        objective_M = self.setting.objective_M
        counts_M = objective_M * (objective_M > 0).sum()
        push_D = self.eta * self.graph_DM @ (counts_M * losses_M)
        weights_D = softmax(log_shares(self.setting.reference_D) + push_D)
        steps = self.update_steps or math.ceil(self.setting.steps / UPDATES)
        return Plan(self.bounded(weights_D), steps, tag, held_out=True)

    def _read(self) -> Array:
        """Return the graph of this run, shape (D, M); 0 where the objective does not look."""
        domains, evaluations = self.setting.domains, self.setting.evaluations
        if self.graph is None:
            return np.array([[float(d == m) for m in evaluations] for d in domains])
        graph: Any = self.graph
        if isinstance(self.graph, str):
            graph = read_json(Path(self.graph))
            _check_graph(graph, self.graph)
        graph_DM = np.zeros((len(domains), len(evaluations)))
        for d, domain in enumerate(domains):
            for m in np.flatnonzero(self.setting.objective_M > 0):
                graph_DM[d, m] = _value(graph, domain, evaluations[m])
        return graph_DM


def _value(graph: Mapping[str, Mapping[str, float]], domain: str, evaluation: str) -> float:
    if evaluation not in graph.get(domain, {}):
        raise EstimatorError(f"skill_it: graph: no value for {domain!r} on {evaluation!r}")
    return float(graph[domain][evaluation])


def _check_graph(graph: object, where: str) -> None:
    if not isinstance(graph, Mapping) or not all(isinstance(r, Mapping) for r in graph.values()):
        raise EstimatorError(
            f"skill_it: {where}: it takes {{domain: {{evaluation domain: value}}}}"
        )
    for domain, row in graph.items():
        for evaluation, value in row.items():
            check_option(f"skill_it: {where}: {domain} on {evaluation}", value, "float")


class _Static(OnlineEstimator):
    def _first(self) -> Plan:
        return Plan(self.bounded(self._mixture()), self.setting.steps, self.name)

    def _next(self, seen: Seen) -> Plan:
        raise AssertionError("its plan lasts as long as the run")

    @abstractmethod
    def _mixture(self) -> Array:
        """Return the mixture of the whole run."""


@dataclass(eq=False)
class StratifiedEstimator(_Static):
    """The same share of each domain."""

    name: ClassVar[str] = "stratified"

    def _mixture(self) -> Array:
        return np.ones(len(self.setting.domains))


@dataclass(eq=False)
class NaturalEstimator(_Static):
    """Each domain's share of the corpus."""

    name: ClassVar[str] = "natural"

    def _mixture(self) -> Array:
        return self.setting.natural_D


SCALE = 10.0  # brings a loss in nats near [0, 1], as the published code does
WARM_UP = 50  # one part of the run in so many; the published 1B run warms up 2,000 of 100,000 steps


@dataclass(eq=False)
class ODMEstimator(OnlineEstimator):
    """Draws domains as EXP3 does, rewarded with their training loss.

    Attributes:
        warmup_steps: Optimiser steps on the reference mixture before; None is 2% of the run.
        update_steps: Optimiser steps of a plan; the published is 1.
    """

    name: ClassVar[str] = "odm"
    needs: ClassVar[frozenset[Need]] = frozenset({"training_loss"})
    saved: ClassVar[tuple[str, ...]] = ("rewards_D", "epsilon")

    warmup_steps: int | None = option(None, least=0)
    update_steps: int = option(1, least=1)

    def _first(self) -> Plan:
        steps, domains = self.setting.steps, len(self.setting.domains)
        self.warmup = steps // WARM_UP if self.warmup_steps is None else self.warmup_steps
        self.rewards_D = np.zeros(domains)
        self.epsilon = 1.0 / domains
        return Plan(self.setting.reference_D, self.warmup or self.update_steps, "reference")

    def _next(self, seen: Seen) -> Plan:
        if seen.step <= self.warmup:
            return Plan(self.setting.reference_D, self.update_steps, "reference")
        self.rewards_D = self.rewards_D + self._earned(seen)
        previous, self.epsilon = self.epsilon, self._exploration(seen.step)
        exploit = 1.0 - len(self.rewards_D) * self.epsilon
        weights_D = exploit * softmax(previous * self.rewards_D) + self.epsilon
        return Plan(self.bounded(weights_D), self.update_steps, f"explores {self.epsilon:.3g}")

    def _earned(self, seen: Seen) -> Array:
        """Return the reward of each domain over its probability; 0 where none was seen."""
        earned_D = np.zeros(len(self.rewards_D))
        drawn_D = (seen.loss_count_D > 0) & (self.weights_D > 0)
        scale_D = SCALE * seen.loss_count_D.sum() * self.weights_D
        np.divide(seen.loss_sum_D, scale_D, out=earned_D, where=drawn_D)
        return earned_D

    def _exploration(self, step: int) -> float:
        domains = len(self.rewards_D)
        return min(1.0 / domains, math.sqrt(math.log(domains) / (domains * step)))
