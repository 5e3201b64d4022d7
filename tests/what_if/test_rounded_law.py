"""A law of many losses and trials is written in fewer bits, and predicts the same."""

import numpy as np
import pytest
from law_answers import ANSWER, law_page
from mixopt_regressors.gaussian import GaussianProcessRegressor
from mixopt_regressors.laws import PowerRegressor, SkillsRegressor

DOMAINS, TRIALS, LOSSES = 60, 120, 40


@pytest.fixture(scope="module")
def trials():
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.full(DOMAINS, 0.5), TRIALS)
    law_NM = 2 + np.exp(-2 * np.sqrt(weights_ND[:, :2])) + 0.003 * rng.standard_normal((TRIALS, 2))
    return weights_ND, law_NM


@pytest.fixture(scope="module")
def asked():
    rng = np.random.default_rng(1)
    inside = rng.dirichlet(np.ones(DOMAINS), 12)
    return np.vstack([inside, np.eye(DOMAINS)[:4]])


def many(regressor):
    """Return a fit that predicts each of its two losses twenty times."""
    return regressor.select([0, 1] * (LOSSES // 2))


def answers(open_page, regressor, asked_KD):
    """Return a browser's means and deviations, shape (K, M) each."""
    ones = np.ones(LOSSES)
    intervals = {"factors": ones, "floors": ones * 0, "locals": [True] * LOSSES, "agrees": None}
    intervals["value"] = {"factor": 1.0, "floor": 0.0, "local": True}
    content = {
        "domains": [str(d) for d in range(DOMAINS)],
        "targets": [str(m) for m in range(LOSSES)],
        "law": {"model": regressor.plain_law(), "intervals": intervals},
        "objective": {"pieces": [ones.tolist()]},
    }
    rows = open_page(law_page(content)).evaluate(ANSWER, asked_KD.tolist())
    return (np.array([row[name] for row in rows]) for name in ("losses", "stds"))


def test_a_gaussian_process_is_within_a_millionth(open_page, trials, asked):
    process = GaussianProcessRegressor(learning_trials=40).fit(*trials)
    large = many(process)
    large.__dict__["_roots"] = process._roots * (LOSSES // 2)
    law = large.plain_law()
    kinds = [law[name].dtype for name in ("weights_ND", "duals_MN", "roots_MT")]
    assert kinds == [np.float32, np.int32, np.int16]
    losses_KM, stds_KM = answers(open_page, large, asked)
    expected = large.predict(asked, return_std=True)
    assert np.abs(losses_KM - expected[0]).max() < 1e-6
    assert np.abs(stds_KM - expected[1]).max() < 1e-6


def test_shared_units_are_within_a_millionth(open_page, trials, asked):
    large = many(SkillsRegressor(units=50, strength=0.1, optimism=1.5).fit(*trials))
    law = large.plain_law()
    assert {law[name].dtype.name for name in ("logs_UD", "loads_MU", "root_T")} == {"float32"}
    losses_KM, stds_KM = answers(open_page, large, asked)
    expected = large.predict(asked, return_std=True)
    assert np.abs(losses_KM - expected[0]).max() < 1e-6
    assert np.abs(stds_KM - expected[1]).max() < 1e-6


def test_deviations_of_power_laws_are_within_a_millionth(open_page, trials, asked):
    large = many(PowerRegressor(penalty=1e-2).fit(*trials))
    law = large.plain_law()
    assert law["weights_ND"].dtype == np.float32
    assert "roots_MT" not in law
    losses_KM, stds_KM = answers(open_page, large, asked)
    expected = large.predict(asked, return_std=True)
    assert np.abs(losses_KM - expected[0]).max() < 1e-6
    assert np.abs(stds_KM / expected[1] - 1).max() < 1e-6


def test_trials_that_are_doubted_count_less_in_a_browser_too(open_page, trials, asked):
    weights_ND, losses_NM = trials[0], trials[1].copy()
    losses_NM[:3] += 0.4
    large = many(PowerRegressor(penalty=1e-2).fit(weights_ND, losses_NM))
    assert len(large.plain_law()["doubted"]) >= LOSSES
    _, stds_KM = answers(open_page, large, asked)
    assert np.abs(stds_KM / large.predict(asked, return_std=True)[1] - 1).max() < 1e-6


def test_a_power_law_of_an_older_file_has_roots_of_its_covariances(
    open_page, trials, asked, tmp_path
):
    fit = PowerRegressor(penalty=1e-2).fit(*trials)
    for name in PowerRegressor.later:
        delattr(fit, name)
    fit.save(tmp_path)
    large = many(PowerRegressor.load(tmp_path))
    assert large.plain_law()["roots_MT"].dtype == np.int16
    _, stds_KM = answers(open_page, large, asked)
    assert np.abs(stds_KM / large.predict(asked, return_std=True)[1] - 1).max() < 1e-3
