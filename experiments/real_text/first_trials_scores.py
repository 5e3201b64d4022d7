"""Fit the designs that first_trials.py trained, and score what they predict.

Shapes: N trials, D domains, M targets, T truths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from first_trials_experts import Experts
from first_trials_plan import ALL, Case
from sklearn.base import clone

from mixopt.fitting import Learner, make_regressor, spearman
from mixopt.system import Array, read_json

NOISE_DRAWS = 200


@dataclass(frozen=True)
class Scores:
    """Correlations of ranks over the truths: own losses, outside targets, the mean of all."""

    own: float
    outside: float
    mean: float

    def __sub__(self, other: Scores) -> Scores:
        """Return the difference."""
        own, outside = self.own - other.own, self.outside - other.outside
        return Scores(own, outside, self.mean - other.mean)

    @staticmethod
    def over(found: Sequence[Scores]) -> Scores:
        """Return the mean."""
        rows = np.array([(one.own, one.outside, one.mean) for one in found])
        return Scores(*rows.mean(0).tolist())


class Results:
    """The trained trials of one case, and the truths that judge them."""

    def __init__(self, case: Case, out: Path) -> None:
        """Read what is finished; trials with own seeds are judged by the truths of the others."""
        self.case, self._trained = case, out / "trained"
        self.weights, self.losses = self._read(case.name)
        weights, losses = self._read(case.name.removesuffix("_own"))
        truths = sorted(name for name in losses if name.startswith("truth-"))
        self.truth_TD = np.stack([weights[name] for name in truths])
        self.truth_TM = np.stack([losses[name] for name in truths])

    def rows(self, names: Sequence[str]) -> tuple[Array, Array]:
        """Return weights and losses of some trials, shapes (N, D) and (N, M)."""
        weights_ND = np.stack([self.weights[name] for name in names])
        return weights_ND, np.stack([self.losses[name] for name in names])

    def noise_M(self) -> Array:
        """Return the variance between seeds of each target, and of the mean of all, last.

        Shape (M + 1,). From the axial trials that have several seeds; what a seed does to all
        mixtures alike is taken off where all trials of a draw have one seed.
        """
        draws = [i for i in range(9) if self.has(axial_names(self.case, ".5", i))]
        rows_SNM = np.stack([self.rows(axial_names(self.case, ".5", i))[1] for i in draws])
        rows_SNM = np.concatenate([rows_SNM, rows_SNM.mean(2, keepdims=True)], 2)
        apart_SNM = rows_SNM - rows_SNM.mean(0)
        seeds, mixtures, _ = apart_SNM.shape
        freedom = (seeds - 1) * mixtures
        if not self.case.own_seeds:
            apart_SNM = apart_SNM - apart_SNM.mean(1, keepdims=True)
            freedom = (seeds - 1) * (mixtures - 1)
        return np.asarray((apart_SNM**2).sum((0, 1)) / freedom)

    def has(self, names: Sequence[str]) -> bool:
        """Tell whether these trials are trained."""
        return set(self.losses).issuperset(names)

    def ceiling(self, noise_M: Array) -> Scores:
        """Return what the truths reach against themselves with the noise of other seeds."""
        rng = np.random.default_rng(1)
        found = []
        for _ in range(NOISE_DRAWS):
            noise_TM = rng.standard_normal((len(self.truth_TM), len(ALL) + 1)) * np.sqrt(noise_M)
            mean_T = self.truth_TM.mean(1) + noise_TM[:, -1]
            found.append(self._ranks(self.truth_TM + noise_TM[:, :-1], mean_T))
        return Scores.over(found)

    def own_share(self) -> float:
        """Return how well a domain's own share ranks its loss."""
        pairs = zip(-self.truth_TD.T, self.truth_TM.T, strict=False)
        return float(np.mean([spearman(share_T, loss_T) for share_T, loss_T in pairs]))

    def scores(self, predicted_TM: Array) -> Scores:
        """Score predictions for the truths."""
        return self._ranks(predicted_TM, predicted_TM.mean(1))

    def _ranks(self, predicted_TM: Array, mean_T: Array) -> Scores:
        domains = len(self.case.domains)
        pairs = zip(predicted_TM.T, self.truth_TM.T, strict=True)
        ranks_M = [spearman(one_T, other_T) or 0.0 for one_T, other_T in pairs]
        return Scores(
            float(np.mean(ranks_M[:domains])),
            float(np.mean(ranks_M[domains:] or [float("nan")])),
            spearman(mean_T, self.truth_TM.mean(1)) or 0.0,
        )

    def _read(self, name: str) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return weights and losses by the rest of each trial's name."""
        weights, losses = {}, {}
        for path in sorted(self._trained.glob(f"{name}-*.json")):
            found, told = read_json(path), path.stem.removeprefix(f"{name}-")
            weights[told] = np.array([found["weights"][d] for d in self.case.domains])
            losses[told] = np.array([found["losses"][d] for d in ALL])
        return weights, losses

    def place_experts(self, level: str, draw: int) -> None:
        """Give `expert_mixture` the axial trials of a draw."""
        names = axial_names(self.case, level, draw)
        arrays = [np.load(self._trained / f"{self.case.name}-{name}.npz") for name in names]
        losses_KMX = np.stack([[one[d].ravel() for d in ALL] for one in arrays])
        Experts.place(self.rows(names)[0], losses_KMX)


def axial_names(case: Case, level: str, draw: int) -> list[str]:
    """Return the axial trials of a draw and the centre's, which is last."""
    places = range(len(case.domains))
    centre = f"axial.5-{draw}-{len(case.domains)}"
    return [f"axial{level}-{draw}-{place}" for place in places] + [centre]


def dirichlet_names(results: Results, count: int, draw: int) -> list[str]:
    """Return so many of the pool of Dirichlet trials, others in each draw if there are others."""
    pool = sum(name.startswith("dirichlet-") for name in results.losses)
    if pool < count or (pool == count and draw > 0):
        return ["no such draw"]
    chosen = np.random.default_rng([draw, 5]).permutation(pool)[:count]
    return [f"dirichlet-{i}" for i in chosen]


def predicted(results: Results, names: Sequence[str], regressor: str) -> Array:
    """Fit some trials and predict the truths, shape (T, M)."""
    weights_ND, losses_NM = results.rows(names)
    found = fresh(regressor).fit(weights_ND, losses_NM)
    return np.asarray(found.predict(results.truth_TD))


def fresh(regressor: str) -> Learner:
    """Return an unfitted regressor; `auto + NAME` has a further candidate."""
    name, _, member = regressor.partition(" + ")
    made = make_regressor(name, 0)
    if not member:
        return made
    candidates = [*made.get_params()["candidates"], f"first_trials_experts:{member}"]
    return clone(made).set_params(candidates=candidates)
