"""CPU seconds of `auto` with its folds and of a proposal under it, beside one ridge regression.

    OMP_NUM_THREADS=1 python experiments/benchmarks/bench_auto.py

Synthetic tables, trials x domains x losses. The fit is `fit_trials` with five folds, the proposal
that for the mean of all losses with its refits, as many as by default and 20; the peer is the same
fit of `linear`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "published"))

from published_data import observed

from mixopt.config import FitConfig, ProposeConfig
from mixopt.constraints import Constraints
from mixopt.fitting import Fit, fit_trials
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import Proposal, ProposalRequest, propose_mixture
from mixopt.trials import Trials

CASES = (
    *((64, 17, 13), (512, 17, 13), (96, 24, 110), (64, 64, 110), (128, 64, 110), (300, 100, 1)),
    (64, 300, 16),
)
NOISE = 0.05  # of the deviation of a loss


def main() -> None:
    """Print the table."""
    print("| trials x domains x losses | auto, fit | linear, fit | auto, proposal | of 20 refits |")
    print("|---|---|---|---|---|", flush=True)
    fitted(table(16, 4, 2), "auto")  # imports
    for case in CASES:
        trials = table(*case)
        fit, seconds = timed(lambda trials=trials: fitted(trials, "auto"))
        _, peer = timed(lambda trials=trials: fitted(trials, "linear"))
        _, proposal = timed(lambda fit=fit: proposed(fit, ProposeConfig()))
        _, twenty = timed(lambda fit=fit: proposed(fit, ProposeConfig(bootstrap=20)))
        name = " x ".join(map(str, case))
        costs = " | ".join(f"{cost:.1f}" for cost in (seconds, peer, proposal, twenty))
        print(f"| {name} | {costs} |", flush=True)


def table(trials: int, domains: int, losses: int) -> Trials:
    """Return trials of a sum of power laws, with noise."""
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.full(domains, 0.5), trials)
    useful_NM3 = 0.02 + np.einsum(
        "nd,mkd->nmk", weights_ND, rng.gamma(0.3, 1, (losses, 3, domains))
    )
    heights_M3, decays_M3 = rng.uniform(0.2, 1, (losses, 3)), rng.uniform(0.2, 0.8, (losses, 3))
    losses_NM = 2 + (heights_M3 * useful_NM3**-decays_M3).sum(axis=-1)
    losses_NM += NOISE * losses_NM.std(axis=0) * rng.standard_normal(losses_NM.shape)
    names, targets = (
        [f"{kind}{i}" for i in range(n)] for kind, n in (("d", domains), ("t", losses))
    )
    return observed(names, weights_ND, targets, losses_NM)


def fitted(trials: Trials, name: str) -> Fit:
    """Fit one regressor with its folds, for the mean of all losses."""
    weights = dict.fromkeys(trials.targets, 1 / len(trials.targets))
    objective = Objective(trials.targets, "mean", weights, "nats_per_token")
    return fit_trials(trials, FitConfig(regressors=[name]), objective, 0)


def proposed(fit: Fit, search: ProposeConfig) -> Proposal:
    """Propose a mixture as `mixopt propose` does."""
    uniform = Mixture.uniform(fit.domains)
    request = ProposalRequest(fit, Constraints(fit.domains), uniform, search=search)
    return propose_mixture(request)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what some work returns, and the CPU seconds that it took."""
    start = time.process_time()
    answer = work()
    return answer, time.process_time() - start


if __name__ == "__main__":
    main()
