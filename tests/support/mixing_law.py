"""Losses of a data mixing law, and the Gaussian process's covariance written out, for its tests."""

import numpy as np


def mixtures(count, domains=5, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(domains), count)


def law(weights_ND, targets=2, noise=0.0):
    slopes_DM = np.random.default_rng(5).normal(-1.0, 2.0, (weights_ND.shape[1], targets))
    losses_NM = 2.0 + np.exp(weights_ND @ slopes_DM)
    return losses_NM + noise * np.random.default_rng(6).standard_normal(losses_NM.shape)


def covariance(weights_ND, other_KD, parameters_P):
    """The law's covariance, written out domain by domain."""
    lengths_D, power = np.exp(parameters_P[:-3]), 1 / (1 + np.exp(-parameters_P[-3]))
    apart_NKD = (weights_ND[:, None] + 1e-9) ** power - (other_KD[None] + 1e-9) ** power
    distance_NK = np.sqrt(5 * ((apart_NKD / lengths_D) ** 2).sum(axis=2))
    alike_NK = (1 + distance_NK + distance_NK**2 / 3) * np.exp(-distance_NK)
    return 10.0 + np.exp(parameters_P[-2]) * alike_NK
