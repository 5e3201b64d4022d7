"""The next trials together: what a belief of the losses chooses, and a fit that believes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_fit import table
from scipy.stats import norm

from mixopt.config import FitConfig
from mixopt.constraints import FeasibleSet
from mixopt.errors import DesignError
from mixopt.fitting import fit_trials
from mixopt.objective import Objective
from mixopt.proposals import Surrogate, choose_batch, draw_candidates
from mixopt.proposals.rounds import CHILDREN, _moved, choose_by_knowledge, expected_improvement

GP = "mixopt_regressors.gaussian.gaussian_process:GaussianProcessRegressor"
DOMAINS = ("web", "code", "books")
OPTIMUM = np.array([0.2, 0.7, 0.1])


@given(mean=st.floats(-1, 1), std=st.floats(0.1, 2))
def test_the_expected_improvement_of_one_mixture_is_that_of_a_normal_distribution(mean, std):
    expected = std * norm.pdf(mean / std) - mean * norm.cdf(-mean / std)
    found = expected_improvement(np.array([-mean]), np.array([std]))
    assert found[0] == pytest.approx(expected, abs=1e-12)


def bowl(weights_ND):
    """A loss with its least at OPTIMUM."""
    return 2.0 + ((np.asarray(weights_ND) - OPTIMUM) ** 2).sum(axis=1)


def surrogate_of(weights_ND, values_N, regressor=GP):
    trials = table(weights_ND, values_N, DOMAINS, ("loss",))
    objective = Objective(("loss",), "target", {"loss": 1.0})
    config = FitConfig(regressors=[regressor], folds=2)
    return Surrogate.of(fit_trials(trials, config, objective, 0))


def fitted(count=12, regressor=GP):
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.ones(3), count)
    return surrogate_of(weights_ND, bowl(weights_ND) + 0.002 * rng.normal(size=count), regressor)


def test_deviations_come_from_refits_where_a_regressor_has_none_and_noise_from_replicates():
    surrogate = fitted(40, "sklearn.linear_model:Ridge")
    _, covariance_KK = surrogate.believe(np.random.default_rng(1).dirichlet(np.ones(3), 50))
    stds_K = np.sqrt(np.diag(covariance_KK))
    assert np.ptp(stds_K) > 0.1 * stds_K.max() > 0
    weights_ND = np.random.default_rng(0).dirichlet(np.ones(3), 12)[[*range(12), 0]]
    values_N = bowl(weights_ND) + 0.06 * np.eye(13)[12]
    assert surrogate_of(weights_ND, values_N).noise == pytest.approx(0.06 / np.sqrt(2))


class Sure:
    """A law whose deviations are of each prediction alone, without covariance."""

    def predict(self, weights_ND, return_std=False):
        means_N = bowl(weights_ND)
        return (means_N, 0.1 + np.asarray(weights_ND)[:, 0]) if return_std else means_N


def test_deviations_alone_make_near_mixtures_off_together_by_a_matern_kernel():
    surrogate = replace(fitted(), regressor=Sure())
    points_KD = np.array([[0.2, 0.3, 0.5], [0.25, 0.25, 0.5], [0.9, 0.1, 0.0]])
    means_K, covariance_KK = surrogate.believe(points_KD)
    stds_K, least = np.sqrt(np.diag(covariance_KK)), 0.1 + surrogate.weights_ND[:, 0].min()  # noise
    np.testing.assert_allclose(stds_K**2, np.maximum((0.1 + points_KD[:, 0]) ** 2 - least**2, 0))
    np.testing.assert_allclose(means_K, bowl(points_KD))
    roots_KD = np.sqrt(points_KD)
    scaled_KK = np.sqrt(5.0) * np.linalg.norm(roots_KD[:, None] - roots_KD, axis=2) / 0.5
    alike_KK = (1 + scaled_KK + scaled_KK**2 / 3) * np.exp(-scaled_KK)
    np.testing.assert_allclose(covariance_KK, alike_KK * np.outer(stds_K, stds_K), rtol=1e-6)


def test_a_child_gives_one_domain_more_or_less_and_the_others_keep_their_proportions():
    parents_PD = np.random.default_rng(1).dirichlet(np.ones(5), 20)
    rows_KD = np.repeat(parents_PD, CHILDREN, axis=0)
    moved_KD = _moved(parents_PD, np.random.default_rng(2))
    np.testing.assert_allclose(moved_KD.sum(axis=1), 1.0)
    ratios_KD = np.sort(moved_KD / rows_KD, axis=1)
    down_K = ratios_KD[:, 1] - ratios_KD[:, 0] > 1e-7
    others_KD = np.where(down_K[:, None], ratios_KD[:, 1:], ratios_KD[:, :-1])
    assert np.ptp(others_KD, axis=1).max() < 1e-6
    given_K = 1.0 - others_KD[~down_K, 0]
    assert 0.003 - 1e-6 <= given_K.min() < 0.02
    assert 0.1 < given_K.max() <= 0.3 + 1e-6
    assert 0 < down_K.sum() < len(down_K)


def test_a_batch_is_new_distinct_and_within_the_limits_or_an_error():
    surrogate, allowed = fitted(), FeasibleSet.within(np.zeros(3), np.array([0.9, 0.8, 0.5]))
    natural_D = np.array([0.6, 0.3, 0.1])
    candidates = draw_candidates(surrogate, allowed, natural_D, minimum=1e-3, seed=0)
    weights_BD = choose_batch(surrogate, candidates, 6, seed=0).weights_BD
    together = np.vstack([surrogate.weights_ND, weights_BD])
    apart = np.abs(together[:, None] - together[None]).sum(axis=2) + np.eye(len(together))
    assert weights_BD.shape == (6, 3)
    assert allowed.contains(weights_BD).all()
    assert apart.min() > 1e-5
    assert ((weights_BD == 0) | (weights_BD >= 1e-3)).all()
    surrogate = fitted()
    message = "design.rounds: 3 further mixtures requested, but only 1 untried"
    with pytest.raises(DesignError, match=message):
        choose_batch(surrogate, np.vstack([surrogate.weights_ND, np.eye(3)[:1]]), 3)


NODES, MASSES = np.polynomial.hermite_e.hermegauss(61)
MASSES = MASSES / MASSES.sum()


def chosen(means, covariance, noise, count=1):
    belief = np.array(means, dtype=float), np.array(covariance, dtype=float)
    return choose_by_knowledge(*belief, noise, np.ones(len(means), dtype=bool), count, seed=0)


def brute_force(means, covariance, noise, batch) -> float:
    """Expected fall of the least predicted value after trials at one or two mixtures."""
    means, covariance = np.array(means, dtype=float), np.array(covariance, dtype=float)
    tried = covariance[np.ix_(batch, batch)] + noise**2 * np.eye(len(batch))
    moves = np.linalg.solve(np.linalg.cholesky(tried), covariance[batch])  # a row for each normal
    grids = np.meshgrid(*[NODES] * len(batch), indexing="ij")
    mass = np.prod(np.meshgrid(*[MASSES] * len(batch), indexing="ij"), axis=0).ravel()
    after = means + np.stack([grid.ravel() for grid in grids], axis=1) @ moves
    return float(means.min() - mass @ after.min(axis=1))


def random_belief(seed, mixtures=5):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(mixtures, mixtures))
    return rng.normal(size=mixtures), root @ root.T / mixtures, rng.uniform(0.1, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_one_mixture_and_two_are_those_that_an_integral_prefers(seed):
    means, covariance, noise = random_belief(seed)
    worth = [brute_force(means, covariance, noise, [row]) for row in range(5)]
    (row,), gain = chosen(means, covariance, noise)
    # 128 draws, a different sum than 61 nodes: the best two may differ by less than both errors.
    assert worth[row] > max(worth) - 0.01
    assert gain == pytest.approx(max(worth), abs=0.02)
    (first, second), gain = chosen(means, covariance, noise, count=2)
    others = [row for row in range(5) if row != first]
    worth = {row: brute_force(means, covariance, noise, [first, row]) for row in others}
    assert worth[second] > max(worth.values()) - 0.02
    assert gain == pytest.approx(worth[second], abs=0.04)


def test_a_poor_mixture_is_tried_for_what_it_tells():
    # 1 and 2 are off together, and a trial of 2 shows it at three times the size. 2 itself is far
    # too high to be proposed, and no improvement is expected of it.
    covariance = [[0, 0, 0], [0, 0.04, 0.12], [0, 0.12, 0.36]]
    assert chosen([0, 0.05, 5.0], covariance, noise=0.5)[0] == [2]
    # A trial of unit variance and unit noise moves the least of two equal ones by z / sqrt(2).
    found = chosen([0, 0], [[0, 0], [0, 1]], noise=1.0)[1]
    assert found == pytest.approx(norm.pdf(0) / np.sqrt(2), abs=0.01)


@given(count=st.integers(1, 8), seed=st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_a_batch_is_of_distinct_open_mixtures(count, seed):
    rng = np.random.default_rng(seed)
    open_K, root = rng.permutation(30) < 18, rng.normal(size=(5, 30))
    rows, _ = choose_by_knowledge(rng.normal(size=30), root.T @ root, 0.3, open_K, count, seed)
    assert len(set(rows)) == count
    assert open_K[rows].all()
