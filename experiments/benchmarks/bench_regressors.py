"""CPU seconds of `auto` with its five held-out folds, beside LightGBM alone in the same run.

    OMP_NUM_THREADS=1 python experiments/benchmarks/bench_regressors.py

Losses are synthetic power laws of the weights with noise of 5% of their spread. The ratio is what
can be compared between machines and loads. LightGBM is one fit without folds.

Shapes: N trials, D domains, M losses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from mixopt.fitting import grouped_folds, make_regressor, row_groups, supports_cross_fit
from mixopt.system import Array, IntArray

CASES = ((64, 17, 13), (512, 17, 13), (96, 24, 110), (300, 100, 1))


def main() -> None:
    """Print the table."""
    print("| trials x domains x losses | auto with folds, s | lightgbm alone, s | ratio |")
    print("|---|---|---|---|")
    for case in CASES:
        weights_ND, losses_NM = _world(*case)
        fold_N = grouped_folds(row_groups(weights_ND), 5, 0)
        for name in ("auto", "lightgbm"):
            make_regressor(name, 0).fit(weights_ND[:8], losses_NM[:8, :1])  # imports
        auto = _seconds(partial(_with_folds, weights_ND, losses_NM, fold_N))
        trees = _seconds(partial(make_regressor("lightgbm", 0).fit, weights_ND, losses_NM))
        shape = " x ".join(map(str, case))
        print(f"| {shape} | {auto:.1f} | {trees:.1f} | {auto / trees:.2f} |", flush=True)


def _with_folds(weights_ND: Array, losses_NM: Array, fold_N: IntArray) -> None:
    made = make_regressor("auto", 0)
    assert supports_cross_fit(made)
    made.cross_fit(weights_ND, losses_NM, fold_N)


def _world(trials: int, domains: int, losses: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.full(domains, 0.5), trials)
    useful_MD = rng.gamma(0.3, 1.0, (losses, domains))
    losses_NM = 2.0 + (0.02 + weights_ND @ useful_MD.T) ** -0.4
    return weights_ND, losses_NM + 0.05 * losses_NM.std(axis=0) * rng.standard_normal(
        losses_NM.shape
    )


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
