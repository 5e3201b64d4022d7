"""Pilots carry the objective itself; in synthetic worlds of two sizes the truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

from mixopt.config import ConstraintsConfig, FitConfig
from mixopt.constraints import Constraints
from mixopt.fitting import Fit, aimed, fit_trials
from mixopt.fitting.intervals import LEVEL
from mixopt.fitting.pilot_correction import ObjectiveResidual, PilotLines
from mixopt.fitting.pilots import CarriedRegressor
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import Problem, ProposalRequest
from mixopt.trials import Losses, Trial, TrialResult, Trials

DOMAINS = ("web", "code", "books", "law")
TARGETS = ("web", "code", "exam")
SHARES = dict.fromkeys(TARGETS, 1 / 3)
MEAN = Objective(TARGETS, "mean", SHARES, "nats_per_token")
WORST = Objective(TARGETS, "worst", dict.fromkeys(TARGETS, 1.0), "nats_per_token")
EXAM = Objective(TARGETS, "target", {"exam": 1.0}, "nats_per_token")
SPREAD = MEAN.scaled({"web": 0.5, "code": 2.0, "exam": 1.0})


class World:
    """Losses at two sizes that share a law with interactions, with other numbers in it."""

    def __init__(self, seed: int, runs: int = 140) -> None:
        rng = np.random.default_rng(seed)
        domains, losses = int(rng.integers(4, 14)), int(rng.integers(3, 10))
        helps_MD = rng.gamma(0.35, 1.0, (losses, domains)) + 3.0 * np.eye(losses, domains)
        later_MD = helps_MD * np.exp(
            rng.choice([0.1, 0.3, 0.6]) * rng.standard_normal(helps_MD.shape)
        )
        pairs_MDD = 0.3 * rng.standard_normal((losses, domains, domains))
        power_M = np.exp(rng.normal(np.log(0.12), 0.3, losses))
        self.weights_ND = rng.dirichlet(np.ones(domains), runs)
        small_NM = self._law(helps_MD, pairs_MDD, power_M)
        slower_M = power_M * np.exp(rng.normal(-0.4, 0.35, losses))
        large_NM = 0.75 * self._law(later_MD, pairs_MDD, slower_M)
        self.spread_M, noise = small_NM.std(axis=0), rng.choice([0.02, 0.1])
        off_NM = noise * rng.standard_normal((2, *small_NM.shape))
        self.predicted_NM = small_NM + off_NM[0] * self.spread_M
        self.observed_NM = large_NM + off_NM[1] * large_NM.std(axis=0)
        self.noise_M = noise * self.spread_M
        names = tuple(f"loss{m}" for m in range(losses))
        self.objective = Objective(names, "mean", dict.fromkeys(names, 1 / losses))

    def _law(self, helps_MD, pairs_MDD, power_M):
        helps_MD = helps_MD / helps_MD.sum(axis=1, keepdims=True)
        together = np.einsum("nd,mde,ne->nm", self.weights_ND, pairs_MDD, self.weights_ND)
        return 2.0 * ((self.weights_ND @ helps_MD.T + 0.03) * np.exp(together)) ** -power_M

    def learned(self, pilots: int) -> ObjectiveResidual:
        given = (self.weights_ND, self.predicted_NM, self.observed_NM)
        lines = PilotLines(*(one[:pilots] for one in given), self.spread_M, self.noise_M)
        return ObjectiveResidual.learned(lines.drawn_together(), self.objective, self.predicted_NM)

    def judged(self, pilots: int) -> tuple[float, float, float, float]:
        """Return coverage, half-width, and errors with and without the residual, in deviations."""
        residual, unseen = self.learned(pilots), slice(pilots, None)
        predicted_NM, weights_ND = self.predicted_NM[unseen], self.weights_ND[unseen]
        truth_N = self.objective.value(self.observed_NM[unseen])
        lines_N = self.objective.value(residual.lines.apply(predicted_NM))
        error_N = truth_N - residual.value(predicted_NM, weights_ND)
        half_N = t.ppf(0.5 + LEVEL / 2, residual.lines.freedom) * residual.std(weights_ND)
        own, off = (
            float(np.sqrt((error_N**2).mean())),
            float(np.sqrt(((truth_N - lines_N) ** 2).mean())),
        )
        covered = float((np.abs(error_N) <= half_N).mean())
        return (
            covered,
            float(half_N.mean()) / truth_N.std(),
            own / truth_N.std(),
            off / truth_N.std(),
        )


@pytest.fixture(scope="module")
def judged() -> dict[int, np.ndarray]:
    """What 60 worlds give, by the number of pilots: the mean of each figure."""
    counts = (4, 8, 16, 32)
    worlds = [World(seed) for seed in range(60)]
    return {k: np.mean([one.judged(k) for one in worlds], axis=0) for k in counts}


@pytest.mark.parametrize("pilots", [4, 8, 16, 32])
def test_nine_in_ten_intervals_hold_the_objective_of_a_new_run(judged, pilots):
    assert 0.85 <= judged[pilots][0] <= 0.95


def test_intervals_tell_runs_apart_from_eight_pilots_on(judged):
    assert judged[8][1] < 0.75
    assert judged[4][1] > judged[8][1] > judged[16][1] > judged[32][1]


def test_a_residual_takes_off_error_that_lines_leave(judged):
    assert judged[8][2] < 0.95 * judged[8][3]
    assert judged[32][2] < 0.7 * judged[32][3]


def test_one_pilot_has_wide_intervals_that_hold():
    covered = [World(seed).judged(1)[:2] for seed in range(40)]
    assert np.mean(covered, axis=0)[0] >= 0.85
    assert np.mean(covered, axis=0)[1] > 1.0


def small(weights_ND):
    return 2 + np.exp(-4 * weights_ND[:, :3] @ [[1, 0, 0.5], [0, 1, 0.1], [0, 0, 0.4]])


def large(weights_ND):
    return 1 + [0.3, 1.0, 0.6] * (small(weights_ND) - 2) + 0.05 * np.sin(6 * weights_ND[:, 3:])


def runs(name: str, law, count: int, seed: int) -> Trials:
    rng = np.random.default_rng(seed)
    weights_ND = rng.dirichlet(np.ones(len(DOMAINS)), count)
    return table(name, weights_ND, law(weights_ND) + 0.002 * rng.standard_normal((count, 3)))


def table(name: str, weights_ND, losses_NM) -> Trials:
    trials, results = [], []
    for n, (weights_D, losses_M) in enumerate(zip(weights_ND, losses_NM.tolist(), strict=True)):
        trials.append(Trial(f"{name}{n}", Mixture.from_array(DOMAINS, weights_D), 0))
        losses = Losses(0, dict(zip(TARGETS, losses_M, strict=True)), {})
        results.append(TrialResult(f"{name}{n}", "finished", 0, 0, 0.0, losses))
    return Trials.from_results(trials, results, proxy=name)


@pytest.fixture(scope="module")
def fit() -> Fit:
    config = FitConfig(regressors=["gaussian_process"])
    return fit_trials(runs("proxy", small, 50, 0), config, MEAN, 0)


@pytest.fixture(scope="module")
def pilots() -> Trials:
    return runs("pilot", large, 12, 1)


@pytest.fixture(scope="module")
def carried(fit, pilots) -> Fit:
    return fit.with_pilots(pilots)


@pytest.fixture(scope="module")
def unseen() -> Trials:
    return runs("unseen", large, 60, 2)


def aimed_at(carried: Fit, objective: Objective) -> CarriedRegressor:
    found, _ = aimed(carried.regressor, objective)
    assert isinstance(found, CarriedRegressor)
    return found


def test_a_fit_without_pilots_is_aimed_as_it_is(fit):
    assert aimed(fit.regressor, MEAN) == (fit.regressor, MEAN)


@pytest.mark.parametrize("objective", [MEAN, WORST, EXAM, SPREAD])
def test_every_kind_of_objective_is_carried_by_its_own_residual(carried, unseen, objective):
    weights_ND = unseen.weights()
    residual = aimed_at(carried, objective).residual
    value_N = carried.predict(weights_ND, objective).objective_N
    lines_N = objective.value(residual.lines.apply(carried.fitted.predict(weights_ND)))
    assert np.allclose(value_N, lines_N + residual.shift(weights_ND))
    truth_N = objective.value(unseen.losses())
    off, before = (np.abs(x_N - truth_N).mean() for x_N in (value_N, lines_N))
    assert off < 0.8 * before


@pytest.mark.parametrize("objective", [MEAN, WORST, EXAM, SPREAD])
def test_the_gradient_of_each_piece_is_that_of_its_prediction(carried, objective):
    one, weights_D, step = aimed_at(carried, objective), np.array([0.4, 0.3, 0.2, 0.1]), 1e-5
    slopes_MD = one.gradient(weights_D)
    for towards_D in ([1, -1, 0, 0], [0, 0, 1, -1]):
        ends = [weights_D + sign * step * np.array(towards_D) for sign in (1, -1)]
        up_M, down_M = one.predict(np.array(ends))
        assert slopes_MD @ towards_D == pytest.approx((up_M - down_M) / (2 * step), rel=1e-3)


def test_a_regressor_without_a_gradient_has_none_when_aimed(carried):
    class Flat:
        def predict(self, weights_ND):
            return np.zeros((len(weights_ND), 3))

    one = aimed_at(carried, MEAN)
    assert hasattr(one, "gradient")
    assert not hasattr(replace(one, regressor=Flat()), "gradient")


def test_losses_are_carried_as_before_whatever_is_minimised(carried, unseen):
    weights_ND = unseen.weights()
    losses_NM = carried.regressor.predict(weights_ND)
    for objective in (MEAN, WORST):
        assert np.allclose(aimed_at(carried, objective).predict(weights_ND)[:, :3], losses_NM)


def test_a_loss_that_is_minimised_has_one_prediction(carried, unseen):
    found = carried.predict(unseen.weights(), EXAM)
    assert np.array_equal(found.losses_NM[:, 2], found.objective_N)
    assert np.allclose(found.high_NM[:, 2], found.objective_high_N)


def test_an_accuracy_is_carried_as_the_loss_that_is_minus_it(pilots, unseen):
    def turned(trials: Trials) -> Trials:
        return table(trials.table["trial"][0], trials.weights(), -trials.losses())

    config = FitConfig(regressors=["gaussian_process"])
    trials = runs("proxy", small, 50, 0)
    higher = replace(MEAN, higher=TARGETS)
    values = [
        fit_trials(given, config, asked, 0).with_pilots(few).predict(unseen.weights()).objective_N
        for given, asked, few in ((trials, MEAN, pilots), (turned(trials), higher, turned(pilots)))
    ]
    assert np.allclose(*values, rtol=1e-4)


def test_a_proposal_for_another_target_has_a_residual_of_its_own(carried):
    proposal = carried.propose(target="exam")
    weights_1D = proposal.mixture.over(DOMAINS).array[None]
    value = carried.predict(weights_1D, EXAM).objective_N[0]
    assert proposal.predicted_objective.value == pytest.approx(value, abs=1e-6)
    assert proposal.predicted_objective.value == pytest.approx(large(weights_1D)[0, 2], abs=0.02)


def test_what_is_searched_is_the_carried_objective_and_guards_are_on_losses(carried, unseen):
    natural = Mixture.uniform(DOMAINS)
    config = ConstraintsConfig.model_validate({"guardrails": {"targets": {"web": 0.05}}})
    rails = Constraints.from_config(config, dict.fromkeys(DOMAINS, 1))
    problem = Problem.of(ProposalRequest(carried, rails, natural, goal=EXAM))
    weights_ND = unseen.weights()
    assert np.allclose(problem.value(weights_ND), carried.predict(weights_ND, EXAM).objective_N)
    web_N, natural_N = (
        carried.regressor.predict(x)[:, 0] for x in (weights_ND, natural.array[None])
    )
    assert np.allclose(problem.excess(weights_ND)[:, 0], web_N - natural_N - 0.05)


def test_intervals_are_wider_where_the_fit_itself_is_less_sure(carried, fit):
    weights_ND = np.vstack([np.full(4, 0.25), [0.0, 0.0, 0.0, 1.0]])
    stds_NM = np.array([[1e-9] * 3, [0.3] * 3])

    class Unsure:
        def predict(self, weights_ND, return_std=False):
            means_NM = fit.regressor.predict(weights_ND)
            return (means_NM, stds_NM[: len(means_NM)]) if return_std else means_NM

    one = aimed_at(carried, MEAN)
    doubtful = replace(one, regressor=Unsure())
    known_N, unsure_N = (x.predict(weights_ND, return_std=True)[1][:, -1] for x in (one, doubtful))
    assert known_N[0] == unsure_N[0]
    assert unsure_N[1] > 5 * known_N[0]


def test_a_refit_is_aimed_with_the_same_pilots(carried, unseen):
    again = carried.regressor.tuned().fit(carried.rows(), carried.trials.losses())
    mine_N, theirs_N = (
        aim.value(one.predict(unseen.weights()))
        for one, aim in (aimed(again, MEAN), aimed(carried.regressor, MEAN))
    )
    assert np.allclose(mine_N, theirs_N, atol=1e-6)
