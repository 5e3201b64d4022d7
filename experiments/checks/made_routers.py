"""Routers of made models, healthy ones and such as have one anomaly: for `expert_alarms.py`.

A healthy layer's load spreads as those of OLMoE and Mixtral do, whose counts were published: a
gamma distribution of a coefficient of variation between .04 and .55. Domains prefer experts, by
nothing up to so much that a domain's busiest expert has seven times its even load, each domain
more or less than the others; and still the load of all domains is what it was drawn to be, as a
router is balanced on the mixture and not on a domain. Shares are uneven. Tokens are drawn by
sequences, of which each has experts of its own, half at even and half at odd places.

An anomaly is put into one layer of a model that is otherwise as a healthy one, so that a detector
that looks at another number than that of the anomaly finds what it finds in healthy ones.

Shapes: D domains, E experts, H = 2 halves, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixopt.routing import Assignments, LayerProbe, ProbeResult, no_layer

Array = NDArray[np.float64]
EXPERTS = (8, 16, 32, 64, 128, 256, 512)
LAYERS = 4
WIDEST = 0.55  # coefficient of variation of a healthy load
AT = 2  # the layer that has the anomaly


@dataclass(frozen=True, eq=False)
class Made:
    """A made model.

    Attributes:
        assignments: Of training.
        probe: With the share of the shared experts.
        domain: That has the anomaly; None for none.
        experts: That have it.
    """

    assignments: Assignments
    probe: ProbeResult
    domain: str | None = None
    experts: tuple[int, ...] = ()


class Maker:
    """A random model's sizes and what its layers have in common."""

    def __init__(
        self, seed: int, *, experts: int | None = None, domains: int | None = None
    ) -> None:
        """Draw them.

        Args:
            seed: Of all that is drawn.
            experts: Routed experts; drawn from `EXPERTS` by default.
            domains: Drawn from 2 to 20 by default.
        """
        self.rng = rng = np.random.default_rng(seed)
        self.experts = experts or int(rng.choice(EXPERTS))
        self.top_k = min(int(rng.integers(1, 9)), self.experts // 4)
        self.domains = domains or int(rng.integers(2, 21))
        self.shares_D = rng.dirichlet(np.full(self.domains, rng.choice([1.0, 3.0, 30.0])))
        self.shares_D = np.maximum(self.shares_D, 0.005)
        self.shares_D /= self.shares_D.sum()
        self.spread = rng.uniform(0.04, 0.52)  # of the load
        self.taste = rng.choice([0.05, rng.uniform(0.2, 1.4)])  # how much domains prefer experts
        self.length = int(rng.choice([256, 1024, 2048]))
        assigned = self.experts * 10 ** rng.uniform(3.1, 4.5)
        self.tokens = max(int(assigned / self.top_k), 64 * self.length)
        self.alike = 1 / rng.uniform(0.5, 1.5) ** 2  # of sequences of a domain, an expert
        self.shared = rng.uniform(0.3, 0.7), rng.uniform(0.01, 0.05)

    def healthy(self) -> Made:
        """Return a model without an anomaly."""
        return self._made([self._joint(self.load()) for _ in range(LAYERS)])

    def loads(self, load_E: Array, experts: NDArray[np.int64]) -> Made:
        """Return a model of which one layer has this load."""
        joints = [self._joint(self.load()) for _ in range(LAYERS)]
        joints[AT] = self._joint(load_E)
        return replace(self._made(joints), experts=tuple(int(e) for e in experts))

    def hot(self, count: int, times: float) -> Made:
        """Return a model some of whose experts have so many times the even load."""
        load_E = self.load()
        hot = self.rng.choice(self.experts, count, replace=False)
        rest = np.delete(np.arange(self.experts), hot)
        left = 1 - count * times / self.experts
        load_E[hot], load_E[rest] = times / self.experts, load_E[rest] / load_E[rest].sum() * left
        return self.loads(load_E, hot)

    def few(self, part: float, share: float) -> Made:
        """Return a model a part of whose experts has a share of the assignments."""
        load_E = self.load()
        busy = self.rng.choice(self.experts, max(1, round(part * self.experts)), replace=False)
        rest = np.delete(np.arange(self.experts), busy)
        load_E[busy] *= share / load_E[busy].sum()
        load_E[rest] *= (1 - share) / load_E[rest].sum()
        return self.loads(load_E, busy)

    def dead(self, part: float) -> Made:
        """Return a model a part of whose experts is dead."""
        load_E = self.load()
        gone = self.rng.choice(self.experts, max(1, round(part * self.experts)), replace=False)
        load_E[gone] *= 0.002
        return self.loads(load_E / load_E.sum(), gone)

    def occupied(self, times: float) -> Made:
        """Return a model one of whose domains has so many times its share of the experts."""
        d = int(np.abs(self.shares_D - 1 / self.domains).argmin())
        self.shares_D[d] = 1 / self.domains
        self._rescale(d)
        share = float(self.shares_D[d])
        count = min(round(times * share * self.experts), round(0.8 * self.experts))
        of_it = self.rng.choice(self.experts, max(count, 1), replace=False)
        rest = np.delete(np.arange(self.experts), of_it)
        joint_DE = np.zeros((self.domains, self.experts))
        inside = 0.95 * share  # of all tokens, those of the domain on its experts
        strange = inside * 0.1 / 0.9  # those of the others there
        load_E = self.load()
        own_E = load_E[of_it] / load_E[of_it].sum()
        others_D = self.shares_D.copy()
        others_D[d] = 0
        joint_DE[:, of_it] = strange * np.outer(others_D / others_D.sum(), own_E)
        joint_DE[d, of_it] = inside * own_E
        left_D = self.shares_D - joint_DE.sum(1)
        load_R = load_E[rest] / load_E[rest].sum() * left_D.sum()
        joint_DE[:, rest] = _balanced(self._tastes()[:, rest], left_D, load_R)
        joints = [self._joint(self.load()) for _ in range(LAYERS)]
        joints[AT] = joint_DE
        return replace(self._made(joints), domain=f"d{d}", experts=tuple(map(int, of_it)))

    def shares_out(self, more: float) -> Made:
        """Return a model whose shared experts serve one domain by so much more."""
        made = self.healthy()
        d = int(self.rng.integers(self.domains))
        layers = list(made.probe.layers)
        shared_D = layers[AT].shared_D.copy()
        shared_D[d] = np.delete(shared_D, d).mean() + more
        layers[AT] = replace(layers[AT], shared_D=shared_D)
        return replace(made, probe=replace(made.probe, layers=tuple(layers)), domain=f"d{d}")

    def underfitted(self, part: float) -> Made:
        """Return a model with a rare domain that uses the experts of all to a part.

        Args:
            part: 0 for a rare domain with experts of its own as the others have them.
        """
        self.taste = self.rng.uniform(0.7, 1.4)
        d = int(self.rng.integers(self.domains))
        self.shares_D[d] = self.rng.uniform(0.15, 0.45) / self.domains
        self._rescale(d)
        tastes_DE = self._tastes(even=True)
        joints = [_balanced(tastes_DE, self.shares_D, self.load()) for _ in range(LAYERS)]
        joint_DE = joints[AT]
        rest_E = np.delete(joint_DE, d, 0).sum(0)
        joint_DE[d] = (1 - part) * joint_DE[d] + part * self.shares_D[d] * rest_E / rest_E.sum()
        return replace(self._made(joints), domain=f"d{d}")

    def load(self) -> Array:
        """Draw a healthy layer's load, which is no wider than those that were published."""
        while True:
            load_E = self.rng.gamma(self.spread**-2, size=self.experts)
            if load_E.std() <= WIDEST * load_E.mean():
                return np.asarray(load_E / load_E.sum())

    def _rescale(self, d: int) -> None:
        """Give the other domains what is left, in proportion."""
        rest = np.delete(np.arange(self.domains), d)
        self.shares_D[rest] *= (1 - self.shares_D[d]) / self.shares_D[rest].sum()

    def _tastes(self, *, even: bool = False) -> Array:
        own_D = np.ones(self.domains) if even else self.rng.uniform(0.5, 1.3, self.domains)
        taste_D = np.maximum(self.taste * own_D, 0.02)
        shape_D1 = taste_D[:, None] ** -2
        drawn_DE = self.rng.gamma(shape_D1, 1 / shape_D1, (self.domains, self.experts))
        return np.asarray(np.maximum(drawn_DE, 1e-4))

    def _joint(self, load_E: Array) -> Array:
        return _balanced(self._tastes(), self.shares_D, load_E)

    def _made(self, joint_LDE: list[Array]) -> Made:
        names = tuple(f"d{d}" for d in range(self.domains))
        layers = []
        for number, joint_DE in enumerate(joint_LDE):
            counts_HDE = self._drawn(joint_DE)
            empty = no_layer(number, self.experts, self.top_k, self.domains)
            layers.append(replace(empty, counts_HDE=counts_HDE))
        return Made(Assignments(names, tuple(layers)), self._probe(names))

    def _drawn(self, joint_DE: Array) -> NDArray[np.int64]:
        """Draw tokens by sequences; the sum of many is drawn at once."""
        share_D1 = joint_DE.sum(1, keepdims=True)
        profile_DE = np.minimum(joint_DE / share_D1, 0.95 / self.top_k)
        sequences_D1 = np.maximum(share_D1 * self.tokens / self.length / 2, 1)
        shape_DE = np.maximum(sequences_D1 * self.alike * self.experts * profile_DE, 1e-3)
        halves = []
        for _ in range(2):
            drawn_DE = self.rng.gamma(shape_DE)
            drawn_DE /= drawn_DE.sum(1, keepdims=True)
            assigned_D = np.rint(share_D1[:, 0] * self.tokens * self.top_k / 2).astype(np.int64)
            halves.append(self.rng.multinomial(assigned_D, drawn_DE))
        return np.stack(halves)

    def _probe(self, names: tuple[str, ...]) -> ProbeResult:
        nothing = np.zeros((0, self.experts), np.int64)
        mean, spread = self.shared
        layers = tuple(
            LayerProbe(
                number,
                self.top_k,
                nothing,
                np.zeros((0, self.top_k), np.int64),
                np.clip(self.rng.normal(mean, spread, len(names)), 0, 1),
            )
            for number in range(LAYERS)
        )
        none = np.zeros(0, np.int64)
        return ProbeResult(names, none, none, none, layers)


def _balanced(tastes_DE: Array, shares_D: Array, load_E: Array) -> Array:
    """Return shares of all assignments that follow tastes and have these sums."""
    joint_DE = tastes_DE.copy()
    for _ in range(60):
        joint_DE *= (shares_D / joint_DE.sum(1))[:, None]
        joint_DE *= load_E / joint_DE.sum(0)
    return joint_DE
