"""Intervals while a mixture moves follow it, and are those of Python once it rests."""

import numpy as np
import pytest
from law_answers import law_page, mixtures
from made_fit import DOMAINS, TARGETS, fitted, objective
from made_what_if import NATURAL, what_if_content, what_if_page

from mixopt.mixture import Mixture
from mixopt.trials import Losses, Trial, TrialResult, Trials

MOVE = """([from, to, milliseconds]) => {
  law.halves(from);
  const { halves, valueHalf } = law.movingWidths(to, milliseconds);
  return [...halves, valueHalf];
}"""
REST = "(w) => [...law.halves(w), law.valueHalf(w)]"
SINGLE = """(w) => law.targets.map((_, m) => {
  const { loss, slope } = law.only(m);
  return [loss(w), ...slope(w)];
})"""
DRAG = """async () => {
  const slider = document.querySelector("[data-domain=code] input[type=range]");
  const root = document.querySelector(".what-if");
  const seen = [Number(root.dataset.half)];
  for (const value of [0.6, 0.8, 1]) {
    slider.value = value;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
    seen.push(Number(root.dataset.half));
  }
  return seen;
}"""


@pytest.fixture(scope="module")
def fit():
    """A fit of trials near the natural mixture, whose intervals are local."""
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(200 * NATURAL, 24)
    losses_NM = 2.0 + np.exp(-2 * np.sqrt(weights_ND) @ rng.random((3, 4)))
    losses_NM += 0.001 * rng.standard_normal(losses_NM.shape)
    trials, results = [], []
    for n, (weights_D, losses_M) in enumerate(zip(weights_ND, losses_NM.tolist(), strict=True)):
        trials.append(Trial(f"t{n}", Mixture.from_array(DOMAINS, weights_D), seed=n))
        values = dict(zip(TARGETS, losses_M, strict=True))
        results.append(
            TrialResult(f"t{n}", "finished", 10**9, 10**6, 1.0, Losses(10**9, values, values))
        )
    table = Trials.from_results(trials, results, proxy="proxy")
    found = fitted(
        "gaussian_process", trials=table, asked=objective("code", "law", "math"), folds=3
    )
    assert all(one.local for one in found.calibrations)
    return found


@pytest.fixture
def law(open_page, fit):
    return open_page(law_page(what_if_content(fit)))


def test_with_time_enough_they_are_exact_at_once(law):
    here, there = mixtures(3, 20)[-2:].tolist()
    moved = law.evaluate(MOVE, [here, there, 1e6])
    assert np.abs(np.array(moved) - law.evaluate(REST, there)).max() < 1e-12


def test_without_time_they_are_as_they_were_but_for_the_distance_from_the_trials(law, fit):
    here, there = mixtures(3, 20)[-2:].tolist()
    before = np.array(law.evaluate(REST, here))
    wider = np.divide(*fit.reach.stretch(np.array([there, here])))
    moved = np.array(law.evaluate(MOVE, [here, there, -1]))
    assert np.abs(moved - wider * before).max() < 1e-9
    assert np.abs(moved - law.evaluate(REST, there)).max() > 1e-6


def test_a_single_loss_is_the_one_among_all(law, fit):
    for weights_D in mixtures(3, 20)[-3:]:
        found = np.array(law.evaluate(SINGLE, weights_D.tolist()))
        assert np.abs(found[:, 0] - fit.predict(weights_D[None]).losses_NM[0]).max() < 1e-6
        slopes_MD = fit.regressor.gradient(weights_D)
        assert (np.abs(found[:, 1:] - slopes_MD) / np.maximum(np.abs(slopes_MD), 1)).max() < 1e-6


def test_intervals_widen_away_from_the_trials(open_page, fit, tmp_path):
    content = what_if_content(fit) | {"proposal": NATURAL, "recommended": None}
    page = open_page(what_if_page(content, tmp_path / "page.html"))
    page.wait_for_function("() => document.querySelector('.what-if').dataset.half > 0")
    near, *moved = page.evaluate(DRAG)
    assert near < moved[0] < moved[1] < moved[2]
    assert moved[2] > 2 * near
    page.wait_for_timeout(400)
    found = fit.predict(np.array([[1.0, 0.0, 0.0]]))
    rested = page.evaluate("() => Number(document.querySelector('.what-if').dataset.half)")
    assert abs(rested - (found.objective_high_N - found.objective_N)[0]) < 1e-6
