"""Skill-It: upweight domains that teach what is still lost, by a graph measured beforehand.

p_d is in proportion to p0_d exp(eta sum_m G_dm L_m), where L is the sum of the last held-out losses
and G_dm the share of m's loss that training on d alone takes away in a short run. It is taken from
the first mixture p0 each time; the first plan takes every loss as 1
(github.com/HazyResearch/skill-it).

Evaluation domains count by their weight in the objective; equal weights are the published sum.

Shapes: D domains, M evaluation domains, W evaluations in the window.
"""

from __future__ import annotations

import math
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
        """Check the options."""
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
        # An evaluation domain that is new has no losses of before.
        return self._mix(np.nansum(self.losses_WM, axis=0), f"losses at step {seen.step}")

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
