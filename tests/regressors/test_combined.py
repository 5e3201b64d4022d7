"""Auto: what it predicts, what it chooses, and that held-out stays held out."""

import numpy as np
import pytest
from mixopt_regressors.combinations import AutoRegressor, stacking_weights

from mixopt.errors import PluginError
from mixopt.fitting import grouped_folds, row_groups

LAWS = ("linear", "log_linear")


def data(rows: int = 40, noise: float = 1e-3) -> tuple[np.ndarray, np.ndarray]:
    """Losses of which the first is linear in the weights and the second exponential."""
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.ones(3), rows)
    straight_N = 3.0 - weights_ND @ [1.0, 0.5, 0.0]
    bent_N = 1.0 + np.exp(-4.0 * weights_ND @ [1.0, 0.3, 0.0])
    noise_NM = noise * rng.standard_normal((rows, 2))
    return weights_ND, np.column_stack([straight_N, bent_N]) + noise_NM


def test_it_predicts_the_weighted_mean_and_members_that_disagree_make_it_less_sure():
    weights_ND, losses_NM = data(noise=0.2)
    both = AutoRegressor(candidates=LAWS).fit(weights_ND, losses_NM)
    mean_NM, std_NM = both.predict(weights_ND, return_std=True)
    alone = [item.predict(weights_ND, return_std=True) for item in both.members_]
    means_CNM, stds_CNM = (np.stack([item[k] for item in alone]) for k in (0, 1))
    shares_CM = both.weights_MC.T[:, None]
    assert np.allclose(mean_NM, (shares_CM * means_CNM).sum(axis=0), rtol=1e-12)
    apart_NM = (shares_CM * (means_CNM - mean_NM) ** 2).sum(axis=0)
    assert np.allclose(std_NM**2, (shares_CM * stds_CNM).sum(axis=0) ** 2 + apart_NM)


def test_each_loss_gets_the_candidate_of_its_law():
    auto = AutoRegressor(candidates=("linear", "log_linear", "lightgbm")).fit(*data(noise=0.0))
    assert auto.weights_MC[1, 1] > 0.9
    assert "log_linear (held-out errors: log_linear 0.0" in auto.explain(["straight", "bent"])[1]
    assert auto.weights_MC[:, 2].max() == 0


def test_what_a_candidate_predicts_for_a_fold_does_not_depend_on_the_folds_losses():
    weights_ND, losses_NM = data(noise=0.1)
    fold_N = grouped_folds(row_groups(weights_ND), 4, 0)
    names, seen = ("linear", "lightgbm"), []
    for up in (0.0, 5.0):
        auto = AutoRegressor(candidates=names)
        auto.cross_fit(weights_ND, losses_NM + up * (fold_N == 0)[:, None], fold_N)
        seen.append([auto.held_out_members[name] for name in names])
    same_CNM = np.equal(*seen)
    assert same_CNM[:, fold_N == 0].all()
    assert not same_CNM[:, fold_N == 1].all(axis=(1, 2)).any()


def test_the_weights_of_a_fold_come_from_the_errors_of_the_others():
    weights_ND, losses_NM = data()
    fold_N = grouped_folds(row_groups(weights_ND), 4, 0)
    auto = AutoRegressor(candidates=LAWS)
    held_out_NM, _ = auto.cross_fit(weights_ND, losses_NM, fold_N)
    means_CNM = np.stack([auto.held_out_members[name] for name in LAWS])
    others_N = fold_N != 2
    weights_MC = stacking_weights((losses_NM - means_CNM)[:, others_N])
    expected_NM = (weights_MC.T[:, None] * means_CNM).sum(axis=0)
    assert np.allclose(held_out_NM[fold_N == 2], expected_NM[fold_N == 2])


def test_the_weights_minimise_the_squared_error_of_the_mean_and_small_ones_are_left_out():
    errors_CNM = np.random.default_rng(0).standard_normal((2, 4000, 1))
    times = np.array([1.0, 2.0])[:, None, None]
    few, many = (stacking_weights(errors_CNM[:, :n] * times, prior=0.0)[0] for n in (8, 4000))
    assert many == pytest.approx([0.8, 0.2], abs=0.02)
    assert few[0] < many[0]
    assert np.array_equal(stacking_weights(errors_CNM * times**2.6), [[1.0, 0.0]])


def test_errors_of_other_targets_count_as_prior_trials():
    errors_CNM = np.ones((2, 10, 2))
    errors_CNM[0, ::2], errors_CNM[1, 1::2] = -1.0, -1.0
    errors_CNM[0, :, 1] *= 3.0
    assert stacking_weights(errors_CNM)[:, 0] == pytest.approx([0.30657, 0.33796], rel=1e-4)
    alone, pooled = (stacking_weights(errors_CNM, prior=trials)[1, 0] for trials in (0.0, 100.0))
    assert alone < pooled


def test_no_default_member_is_without_a_gradient():
    auto = AutoRegressor().fit(*data(rows=16))
    assert auto.names == ("gaussian_process", "skills")
    assert auto.gradient(data()[0][0]).shape == (2, 3)


def test_one_mixture_cannot_be_held_out():
    with pytest.raises(PluginError, match="auto: one mixture only; it needs at least 2"):
        AutoRegressor(candidates=LAWS).fit(np.full((3, 2), 0.5), np.ones((3, 1)))
