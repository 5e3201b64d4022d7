"""Laws of several targets or phases learn what these have in common, and are smooth."""

import numpy as np
import pytest
from mixopt_regressors.laws import SkillsRegressor, skills
from mixopt_regressors.laws.skills import STRENGTHS
from mixopt_regressors.phases import PhasesRegressor


def two_skills(rng: np.random.Generator, trials: int) -> tuple[np.ndarray, np.ndarray]:
    """Five losses that fall with two skills, each taught by two of five domains."""
    weights_ND = rng.dirichlet(np.ones(5), trials)
    taught_N2 = weights_ND[:, :4].reshape(-1, 2, 2).sum(axis=2)
    skills_N2 = (0.05 + taught_N2) ** -0.4
    loads_2M = np.array([[1.0, 0.8, 0.5, 0.2, 0.0], [0.0, 0.2, 0.5, 0.8, 1.0]])
    return weights_ND, 1.5 + skills_N2 @ loads_2M


def test_a_law_of_two_shared_skills_is_predicted_from_two_dozen_trials():
    weights_ND, losses_NM = two_skills(np.random.default_rng(0), 224)
    fitted = SkillsRegressor().fit(weights_ND[:24], losses_NM[:24])
    errors_NM = fitted.predict(weights_ND[24:]) - losses_NM[24:]
    assert np.abs(errors_NM).mean() < 0.05 * losses_NM.std()


def test_the_law_is_convex_in_the_mixture():
    rng = np.random.default_rng(1)
    weights_ND, losses_NM = two_skills(rng, 30)
    fitted = SkillsRegressor().fit(weights_ND, losses_NM + 0.1 * rng.standard_normal((30, 5)))
    one_ND, other_ND = rng.dirichlet(np.ones(5), (2, 200))
    chord_NM = 0.5 * (fitted.predict(one_ND) + fitted.predict(other_ND))
    assert (fitted.predict(0.5 * (one_ND + other_ND)) <= chord_NM + 1e-12).all()


def test_a_new_trial_lies_within_two_standard_deviations_about_as_often_as_it_should():
    rng = np.random.default_rng(2)
    weights_ND, losses_NM = two_skills(rng, 248)
    losses_NM += 0.05 * rng.standard_normal(losses_NM.shape)
    fitted = SkillsRegressor().fit(weights_ND[:48], losses_NM[:48])
    means_NM, stds_NM = fitted.predict(weights_ND[48:], return_std=True)
    inside_NM = np.abs(means_NM - losses_NM[48:]) < 2 * stds_NM
    assert 0.9 < inside_NM.mean() < 0.995


def test_a_fit_of_few_steps_is_known_to_the_last_digits(monkeypatch):
    # Whole descents turn the last bit of a loss into the third digit of a prediction.
    monkeypatch.setattr(skills, "FOLD_STEPS", 40)
    monkeypatch.setattr(SkillsRegressor, "_steps", 40)
    rng = np.random.default_rng(2)
    weights_ND, losses_NM = two_skills(rng, 248)
    losses_NM += 0.05 * rng.standard_normal(losses_NM.shape)
    fitted = SkillsRegressor().fit(weights_ND[:48], losses_NM[:48])
    mean_1M, std_1M = fitted.predict(weights_ND[48:49], return_std=True)
    assert [mean_1M[0, 0], std_1M[0, 0]] == pytest.approx([2.83309839, 0.0586497815], rel=1e-7)
    # A trial twice is two rows of one mixture with equal losses.
    twice = SkillsRegressor(folds=0).fit(weights_ND[[*range(24), 0]], losses_NM[[*range(24), 0]])
    moved = weights_ND[[*range(24), 0]] + np.array([[0.0]] * 24 + [[1e-13]])
    apart = SkillsRegressor(folds=0).fit(moved, losses_NM[[*range(24), 0]])
    assert twice.predict(weights_ND[30:34]) == pytest.approx(apart.predict(weights_ND[30:34]))


def test_a_refit_keeps_the_strength_and_the_optimism():
    weights_ND, losses_NM = two_skills(np.random.default_rng(3), 30)
    fitted = SkillsRegressor().fit(weights_ND, losses_NM)
    refitted = fitted.tuned().fit(weights_ND, losses_NM)
    assert (refitted.strength_, refitted.optimism_) == (fitted.strength_, fitted.optimism_)
    # It goes on from where the fit ended, which was not quite at the least loss.
    assert refitted.predict(weights_ND) == pytest.approx(fitted.predict(weights_ND), abs=0.01)


def test_one_mixture_is_fitted_with_the_strongest_prior():
    weights_ND = np.full((3, 4), 0.25)
    fitted = SkillsRegressor().fit(weights_ND, np.array([[1.0], [1.1], [0.9]]))
    assert float(fitted.strength_) == STRENGTHS[0]
    assert fitted.predict(weights_ND) == pytest.approx(1.0, abs=0.02)


LENGTHS = np.array([0.8, 0.2])


def cells(count, seed=0):
    rng = np.random.default_rng(seed)
    drawn_NPD = rng.dirichlet(np.ones(3), (count, 2))
    return (drawn_NPD * LENGTHS[None, :, None]).reshape(count, -1)


def losses(cells_NC, ratio):
    seen_ND = cells_NC[:, :3] + ratio * cells_NC[:, 3:]
    seen_ND = seen_ND / seen_ND.sum(axis=1, keepdims=True)
    return 2.0 + (0.05 + seen_ND) ** -0.3


def both(cells_NC):
    return np.hstack([losses(cells_NC, 1.0), losses(cells_NC, 8.0)])


@pytest.fixture(scope="module")
def fitted():
    return PhasesRegressor().fit(cells(48), both(cells(48)))


def test_each_loss_has_its_own_ratio_and_unseen_mixtures_are_predicted(fitted, tmp_path):
    assert fitted.ratio_M.tolist() == [1, 1, 1, 8, 8, 8]
    new_NC = cells(20, seed=1)
    means_NM, stds_NM = fitted.predict(new_NC, return_std=True)
    seen_ND = new_NC[:, :3] + 8.0 * new_NC[:, 3:]
    alone = fitted.laws_[8.0].predict(seen_ND / seen_ND.sum(axis=1)[:, None], return_std=True)
    assert np.stack([means_NM, stds_NM])[:, :, 3:] == pytest.approx(np.stack(alone))
    error, spread = (np.abs(both(new_NC) - x).mean() for x in (means_NM, both(new_NC).mean(axis=0)))
    assert error < 0.2 * spread
    fitted.save(tmp_path)
    reloaded = PhasesRegressor.load(tmp_path).predict(new_NC)
    np.testing.assert_allclose(reloaded, means_NM, rtol=1e-6)
    np.testing.assert_allclose(
        fitted.select([4, 0]).predict(new_NC), reloaded[:, [4, 0]], rtol=1e-6
    )


@pytest.mark.parametrize(("first", "second"), [(0, 1), (3, 5), (4, 5)])
def test_the_slope_is_that_of_the_predictions_within_phases(fitted, first, second):
    point_C, move_C = cells(1, seed=2)[0], 1e-5 * (np.eye(6)[first] - np.eye(6)[second])
    there, back = fitted.predict(np.stack([point_C + move_C, point_C - move_C]))
    slope_M = fitted.gradient(point_C) @ move_C
    np.testing.assert_allclose(slope_M, (there - back) / 2, rtol=1e-2, atol=1e-8)


def test_trials_without_phases_are_fitted_as_a_law_without():
    weights_ND = np.random.default_rng(0).dirichlet(np.ones(4), 20)
    fitted = PhasesRegressor().fit(weights_ND, weights_ND @ np.arange(4.0))
    assert fitted.phases_ == 1
    assert fitted.ratio_M.tolist() == [1.0]
