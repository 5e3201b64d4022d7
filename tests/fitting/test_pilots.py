"""Pilots carry a fit to their size; the losses are synthetic, of a known law at two sizes."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from made_fit import table

from mixopt.errors import TrialsError
from mixopt.fitting import evaluate, select_targets
from mixopt.fitting.pilots import Correction
from mixopt.objective import Objective
from mixopt.pipeline import load_fit
from mixopt.trials import Trials

DOMAINS = ("web", "code", "books")
TARGETS = ("web", "code", "exam")
SMALL = (1e6, 1e3)
SLOPES = np.array([0.2, 1.0, 0.6])
EXAM = Objective(TARGETS, "target", {"exam": 1.0}, "nats_per_token")


def small(weights_ND):
    own_NM = np.column_stack([weights_ND[:, :2], weights_ND @ [0.5, 0.1, 0.4]])
    return 2 + np.array([1.0, 0.3, 0.6]) * np.exp(-4 * own_NM)


def large(weights_ND):
    """Losses at the target size: another line for each, and a part that no line explains."""
    bent_NM = 0.01 * np.sin(8 * weights_ND[:, :1]) * [1.0, 1.0, 1.0]
    return 1.5 + (small(weights_ND) - 2) * SLOPES + bent_NM


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

    def judged(self, pilots: int) -> tuple[float, float, float, float]:
        """Return coverage, half-width, and errors with and without the residual, in deviations."""
        runs = self.weights_ND, self.predicted_NM, self.observed_NM
        found = Correction.of(*(run[:pilots] for run in runs), self.spread_M, self.noise_M)
        weights_ND, told_NM, observed_NM = (run[pilots:] for run in runs)
        truth_N = observed_NM.mean(axis=1)
        carried_NM = found.apply(told_NM, weights_ND)
        alone = replace(found.lines, dual_KM=0 * found.lines.dual_KM)
        lines_NM = replace(found, lines=alone).apply(told_NM, weights_ND)
        stds_NM = found.std(told_NM, weights_ND, np.ones_like(told_NM))
        scale = found.calibration(self.objective, found.apply(self.predicted_NM, self.weights_ND))
        halves_N = scale.halves(self.objective.spread(stds_NM))
        error_N, off_N = (truth_N - item.mean(axis=1) for item in (carried_NM, lines_NM))
        spread = truth_N.std()
        numbers = (halves_N.mean(), *(np.sqrt((item**2).mean()) for item in (error_N, off_N)))
        return float((np.abs(error_N) <= halves_N).mean()), *(item / spread for item in numbers)


def test_intervals_hold_new_runs_and_a_residual_takes_off_error_that_lines_leave():
    worlds = [World(seed) for seed in range(40)]
    judged = np.array([[item.judged(k) for item in worlds] for k in (1, 4, 8, 32)]).mean(axis=1)
    held, half, error, of_lines = judged.T
    assert held[0] >= 0.85
    assert (np.abs(held[1:] - 0.9) <= 0.05).all()
    assert half[0] > 1.0  # one pilot does not tell runs apart
    assert half[2] < 0.75
    assert half[1] > half[2] > half[3]
    assert (error[2:] < [1.0, 0.7] * of_lines[2:]).all()


def runs(law, count, seed, domains=DOMAINS, targets=TARGETS, size=(1e9, 1e12)) -> Trials:
    rng = np.random.default_rng(seed)
    weights_ND = rng.dirichlet(np.ones(3), count)
    losses_NM = law(weights_ND) + 0.002 * rng.standard_normal((count, 3))
    return table(weights_ND, losses_NM[:, : len(targets)], domains, targets, [size])


TRIALS = runs(small, 40, 0, size=SMALL)
PILOTS, UNSEEN = runs(large, 10, 1), runs(large, 60, 2)


@pytest.fixture(scope="module")
def fit():
    """A fit of the proxies alone; its objective is the mean."""
    return TRIALS.fit(regressors="log_linear")


@pytest.fixture(scope="module")
def carried(fit):
    return fit.with_pilots(PILOTS)


def test_one_pilot_shifts_every_loss_to_its_size_and_ten_find_every_slope(fit, carried):
    moved = fit.with_pilots(runs(large, 1, 3))
    assert np.allclose(moved.correction.lines.slopes_M, 1)
    off_M, before_M = (
        (UNSEEN.losses() - by.predict(UNSEEN.weights()).losses_NM).mean(axis=0)
        for by in (moved, fit)
    )
    assert (np.abs(off_M) < 0.5 * np.abs(before_M)).all()
    lines = carried.correction.lines
    assert np.abs(lines.slopes_M - SLOPES).max() < 0.15
    assert lines.levels_M == pytest.approx([-3.2685, -5.5218, -9.4505], rel=0.01)
    assert "is corrected to the size of 10 pilots by lines, slopes 0." in carried.summary()
    assert "pilot" not in fit.summary()


def test_the_gradient_is_that_of_the_carried_predictions(carried):
    weights_D, step = np.array([0.5, 0.3, 0.2]), 1e-5
    slopes_MD = carried.regressor.gradient(weights_D)
    for towards_D in ([1, -1, 0], [0, 1, -1]):
        ends = [weights_D + sign * step * np.array(towards_D) for sign in (1, -1)]
        up_M, down_M = carried.regressor.predict(np.array(ends))
        assert slopes_MD @ towards_D == pytest.approx((up_M - down_M) / (2 * step), rel=1e-3)
    some = select_targets(carried.regressor, [2, 0])
    assert np.allclose(some.gradient(weights_D), slopes_MD[[2, 0]], rtol=1e-12)


def test_some_losses_of_a_carried_fit_are_predicted_as_all_are(carried):
    points_ND = np.vstack([UNSEEN.weights(), np.full(3, 1 / 3), [0.0, 0.0, 1.0]])
    whole = carried.regressor.predict(points_ND, return_std=True)
    some = select_targets(carried.regressor, [2, 0]).predict(points_ND, return_std=True)
    for whole_NM, kept_NM in zip(whole, some, strict=True):
        assert np.allclose(kept_NM, whole_NM[:, [2, 0]], rtol=1e-12)
    assert (whole[1][-1] > whole[1][-2]).all()  # where the fit itself is less sure
    found = carried.predict(points_ND, EXAM)
    assert np.array_equal(found.losses_NM[:, 2], found.objective_N)
    assert np.allclose(found.high_NM[:, 2], found.objective_high_N)


def test_a_refit_draws_its_lines_through_its_own_predictions(carried):
    rows, losses_NM = carried.data.weights_ND, carried.trials.losses()
    same, shifted = (carried.regressor.tuned().fit(rows, losses_NM + up) for up in (0.0, 1.0))
    points_ND = UNSEEN.weights()
    assert np.allclose(same.predict(points_ND), carried.regressor.predict(points_ND), atol=1e-6)
    left_M = (shifted.predict(PILOTS.weights()) - PILOTS.losses()).mean(axis=0)
    assert np.abs(left_M).max() < 0.01


def test_runs_of_the_pilots_size_are_of_the_fits_scale(fit, carried):
    before, after = evaluate(fit, UNSEEN), evaluate(carried, UNSEEN)
    assert (before["scale"], after["scale"]) == ("other", "same")
    assert before["mean"]["rmse"] is None
    assert after["mean"]["rmse"] < 0.02
    assert after["mean"]["coverage90"] > 0.8
    assert after["mean"]["spearman"] > before["mean"]["spearman"] + 0.03


def test_a_fit_that_is_read_back_proposes_at_the_pilots_size(tmp_path):
    fitted = TRIALS.fit(regressors="log_linear", pilots=PILOTS)
    fitted.save(tmp_path)
    read, some_ND = load_fit(tmp_path), PILOTS.weights()
    for value in ("losses_NM", "low_NM", "objective_N", "objective_high_N"):
        mine, theirs = (getattr(f.predict(some_ND), value) for f in (read, fitted))
        assert np.allclose(mine, theirs, rtol=1e-9)  # products of arrays read from disk
    found = read.propose()
    truth = float(large(found.mixture.over(DOMAINS).array[None]).mean())
    assert found.predicted_objective.value == pytest.approx(truth, abs=0.02)
    best = large(TRIALS.weights()).mean(axis=1)
    assert best.min() - 0.05 < found.best_observed < best.max()
    assert read.pilots == fitted.pilots
    replace(fitted, pilots=None).save(tmp_path)
    assert load_fit(tmp_path).pilots is None


FAILED = PILOTS.table.with_columns(status=pl.lit("failed"), reason=pl.lit("out of memory"))
MISSPELT = runs(large, 4, 6, domains=("web", "cde", "books"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (3, "expected Trials, such as .*; got 3"),
        (MISSPELT, "the trials have no domain 'cde'; did you"),
        (runs(large, 4, 6, targets=("web", "exam")), "no loss on 'code'"),
        (runs(large, 4, 6, size=SMALL), "'t000' is of the trials' own size"),
        (runs(small, 40, 0), r"'t000' is trial 't000' \(the same mixture and losses\)"),
        (Trials(FAILED, DOMAINS, TARGETS), "none of 10 trials finished.*at least one"),
    ],
)
def test_pilots_that_cannot_be_are_named_before_a_fit(bad, message):
    with pytest.raises(TrialsError, match=f"pilots: {message}"):
        TRIALS.fit(regressors="odd_regressors:RefusesToFit", objective="web", pilots=bad)
