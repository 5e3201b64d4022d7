"""How far the page's emulator is off, for each regressor, by domains and by moves of sliders.

    OMP_NUM_THREADS=1 python experiments/synthetic/what_if_emulator.py

Each loss of a world is a power of a weighted sum of shares, with noise of 5% of its spread; six
losses, 3 trials for each domain and at least 30. Errors are the largest at 500 mixtures that the
sliders reach: of losses over their spread, and of standard deviations over themselves.
"""

import argparse
import warnings

import numpy as np

from mixopt.fitting import predict_with_std
from mixopt.fitting.regressor import Repetition, fit_regressor, make_regressor
from mixopt.reporting.emulator import Emulator, Sliders
from mixopt.system import Array

LOSSES = 6
NOISE = 0.05
TOKENS = 1e11
NAMES = (
    "linear",
    "own_share",
    "log_linear",
    "lightgbm",
    "skills",
    "gaussian_process",
    "epochs",
    "auto",
)


def world(domains: int) -> tuple[Array, Array, Array]:
    """Return the natural mixture, and the trials' weights and losses."""
    rng = np.random.default_rng([0, domains])
    natural_D = rng.dirichlet(np.ones(domains)) + 0.1 / domains
    natural_D /= natural_D.sum()
    strengths = np.exp(rng.uniform(np.log(0.1), np.log(5.0), max(3 * domains, 30)))
    weights_ND = np.stack(
        [rng.dirichlet(np.maximum(domains * natural_D * strength, 1e-3)) for strength in strengths]
    )
    loads_DM = rng.exponential(size=(domains, LOSSES))
    loads_DM *= rng.random((domains, LOSSES)) < max(3 / domains, 0.3)
    own_D = np.arange(LOSSES) % domains
    loads_DM[own_D, np.arange(LOSSES)] += 0.5
    helped_NM = 3.0 * weights_ND @ (loads_DM / loads_DM.max(axis=0))
    losses_NM = 1.5 + 2.0 * (0.02 + helped_NM) ** -0.15 - 0.3 * np.sqrt(weights_ND[:, own_D])
    losses_NM += NOISE * losses_NM.std(axis=0) * rng.standard_normal(losses_NM.shape)
    return natural_D, weights_ND, losses_NM


def sliders_of(natural_D: Array, weights_ND: Array, losses_NM: Array) -> Sliders:
    """Return sliders that start from the middle to the best trial, the best trial, and natural."""
    best_D = weights_ND[losses_NM.mean(axis=1).argmin()]
    starts_SD = np.stack([(natural_D + best_D) / 2, best_D, natural_D])
    return Sliders(starts_SD, natural_D, np.zeros(len(natural_D), dtype=int))


def main() -> None:
    """Print a row for each regressor and count of domains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domains", type=int, nargs="*", default=[3, 7, 17, 64])
    parser.add_argument("--regressors", nargs="*", default=list(NAMES))
    options = parser.parse_args()
    print("| domains | regressor | losses, 1 move | deviations | losses, 5 moves | deviations |")
    print("|---|---|---|---|---|---|")
    for domains in options.domains:
        natural_D, weights_ND, losses_NM = world(domains)
        sliders = sliders_of(natural_D, weights_ND, losses_NM)
        repetition = Repetition(tuple(3 * TOKENS * natural_D), TOKENS)
        for name in options.regressors:
            regressor = make_regressor(name, 0, repetition)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fitted = fit_regressor(name, regressor, weights_ND, losses_NM)
            emulator = Emulator.of(
                lambda rows, fitted=fitted: predict_with_std(fitted, rows), sliders
            )
            cells = " | ".join(
                f"{share:.1%}" for errors in emulator.errors.values() for share in errors
            )
            print(f"| {domains} | {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
