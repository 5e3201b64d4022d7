"""Trials of several sizes and runs at a target size, of a synthetic law, for fits of every kind.

Shapes: N trials, D domains, M losses.
"""

import numpy as np
from made_fit import DOMAINS, table
from mixopt_regressors.combinations import AutoRegressor
from mixopt_regressors.laws import SkillsRegressor

SIZES = ((10**6, 10**9), (10**7, 10**10))
TARGET_SIZE = (10**8, 10**11)


def sized_law(weights_ND, sizes_N2):
    """A scaling law whose amplitudes depend on the mixture, shape (N, 4)."""
    helped_DM = np.array([[1.5, 0.1, 0.2, 1.0], [0.1, 1.0, 0.3, 0.1], [0.2, 0.2, 1.6, 0.3]])
    shrinks_N = sizes_N2[:, 0] ** -0.1 + sizes_N2[:, 1] ** -0.08
    return 1.5 + 3.0 * np.exp(-weights_ND @ helped_DM) * shrinks_N[:, None]


def sized_trials(name, sizes_N2, seed):
    rng = np.random.default_rng(seed)
    weights_ND = rng.dirichlet(np.ones(len(DOMAINS)), len(sizes_N2))
    losses_NM = sized_law(weights_ND, sizes_N2.astype(float))
    losses_NM += 0.002 * rng.standard_normal(losses_NM.shape)
    return table(weights_ND, losses_NM, sizes=sizes_N2, name=name)


def two_sizes():
    return sized_trials("proxy", np.repeat(SIZES, 14, axis=0), seed=0)


def one_size():
    return sized_trials("proxy", np.repeat(SIZES[:1], 28, axis=0), seed=0)


def pilot_runs(count):
    return sized_trials("pilot", np.repeat([TARGET_SIZE], count, axis=0), seed=1)


# Regressors that are fitted in a second, by `made_laws:NAME`.
few_units = SkillsRegressor(folds=2)
few_members = AutoRegressor(candidates=("gaussian_process", "made_laws:few_units"), folds=2)
few_candidates = AutoRegressor(candidates=("gaussian_process", "epochs"), folds=2)
