"""Worlds with two phases: is a mixture for each proposed where that pays, and only there?

    python experiments/published/phases.py --worlds 6 --trials 64

The losses are those of a plain world of known_worlds.py, of a mixture in which the tokens of a
domain in the second phase, a fifth of all, count `lates_D` times those in the first. In `same` that
is 1 for all domains, so that phases do not matter; in `late` it is drawn, from a tenth to tenfold.

    tied      as many trials with one mixture in both phases, fitted and proposed as without phases
    phases    trials by phase, fitted by [phases, auto, linear], proposed by the rule of propose

Regret is over the best mixture by phase, as a share of what that gains over natural.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from known_worlds import KnownWorld, known_world
from scipy.optimize import minimize

from mixopt.config import DesignConfig, FitConfig
from mixopt.constraints import Constraints
from mixopt.fitting import fit_trials
from mixopt.mixture import Mixture, Phases
from mixopt.proposals import ProposalRequest, propose_mixture
from mixopt.system import Array
from mixopt.trials import make_design

Kind = Literal["same", "late"]
PHASES = Phases({"1": 0.8, "2": 0.2})
SPREAD = 1.15  # of the logarithm of what a late token counts


@dataclass(frozen=True, eq=False)
class PhasedWorld(KnownWorld):
    """A world whose mixtures are of cells of two phases."""

    lates_D: Array = None  # type: ignore[assignment]

    def truth(self, weights_ND: Array) -> Array:
        """Return the losses without noise, shape (N, M)."""
        first_ND, second_ND = np.split(np.asarray(weights_ND, dtype=np.float64), 2, axis=1)
        return self.terms.losses(first_ND + self.lates_D * second_ND, None)

    @cached_property
    def optimum(self) -> Array:
        """The best mixture by phase, from many starts."""
        rng, count = np.random.default_rng([self.seed, 17]), len(self.lates_D)
        starts = [PHASES.tied(start) for start in self._tied(rng.dirichlet(np.ones(count), 12))]
        eye_2C = np.repeat(np.eye(2), count, axis=1)
        ends = [
            minimize(
                lambda w_C: float(self.values(w_C[None])[0]),
                start.array,
                method="SLSQP",
                bounds=[(0, 1)] * (2 * count),
                constraints={"type": "eq", "fun": lambda w: eye_2C @ w - list(PHASES.values())},
                options={"maxiter": 300, "ftol": 1e-11},
            ).x
            for start in starts
        ]
        inside_KC = self.constraints.simplex.project(np.array(ends))
        return np.asarray(inside_KC[int(np.argmin(self.values(inside_KC)))])

    def _tied(self, weights_ND: Array) -> list[Mixture]:
        names = PHASES.names(self.domains)
        return [Mixture.from_array(names, weights_D) for weights_D in weights_ND]


def phased_world(kind: Kind, seed: int) -> PhasedWorld:
    """Draw a world."""
    base = known_world("plain", seed)
    rng = np.random.default_rng([seed, 41])
    lates_D = np.exp(rng.normal(0.0, SPREAD, len(base.domains)))
    fields = {name: getattr(base, name) for name in KnownWorld.__dataclass_fields__}
    fields |= {
        "domains": PHASES.cells(base.domains),
        "natural": PHASES.tied(base.natural),
        "constraints": Constraints(base.domains)._by_phase(PHASES),
    }
    return PhasedWorld(**fields, lates_D=lates_D if kind == "late" else np.ones(len(lates_D)))


def regret(world: PhasedWorld, trials: int, by_phase: bool) -> tuple[float, str]:
    """Return the regret of the proposal from some trials, and a note."""
    seed, names = world.seed, PHASES.names(world.domains)
    natural, allowed, config = (
        PHASES.whole(world.natural),
        Constraints(names),
        DesignConfig(trials=trials, rounds=[], max_usage=None, method="dirichlet"),
    )
    fit_config = FitConfig()
    if by_phase:
        lengths = {"1": 0.8, "2": 0.2}
        config = DesignConfig(trials=trials, rounds=[], max_usage=None, phases=lengths)
        natural, allowed = world.natural, world.constraints
        fit_config = FitConfig(regressors=["phases", "auto", "linear"])
    design = [trial.mixture for trial in make_design(config, natural, allowed, seed)]
    cells_NC = np.array([(cells if by_phase else PHASES.tied(cells)).array for cells in design])
    table = world.train(cells_NC, seed)
    if not by_phase:
        table = table.reindex(merge={name: [f"1/{name}", f"2/{name}"] for name in names})
    fit = fit_trials(table, fit_config, world.objective, seed=0)
    phases = PHASES if by_phase else None
    request = ProposalRequest(fit, allowed, natural, phases=phases)
    request = replace(request, search=request.search.model_copy(update={"bootstrap": 0}))
    proposal = propose_mixture(request)
    cells = proposal.mixture if by_phase else PHASES.tied(proposal.mixture.over(names))
    most = float(world.values(world.natural.array[None])[0]) - world.best
    is_tied = PHASES.tied(PHASES.whole(cells)).total_variation(cells) < 1e-3
    return world.regret(
        cells.over(world.domains).array
    ) / most, f"{fit.name}{'' if is_tied else ', untied'}"


def main() -> None:
    """Print a row for each world, and the paired difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=6)
    parser.add_argument("--trials", type=int, default=64)
    given = parser.parse_args()
    print("| world | seed | tied | phases | of phases |\n|---|---|---|---|---|", flush=True)
    for kind in get_args(Kind):
        regrets = []
        for seed in range(given.worlds):
            world = phased_world(kind, seed)
            (tied, _), (own, word) = (regret(world, given.trials, way) for way in (False, True))
            regrets.append((tied, own))
            print(f"| {kind} | {seed} | {tied:.3f} | {own:.3f} | {word} |", flush=True)
        tied_W, own_W = np.array(regrets).T
        apart_W = own_W - tied_W
        half = 2.0 * apart_W.std(ddof=1) / np.sqrt(len(apart_W))
        print(
            f"{kind}: tied {tied_W.mean():.3f}, phases {own_W.mean():.3f}, difference"
            f" {apart_W.mean():+.3f} +- {half:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
