"""JavaScript predicts what Python does: losses, intervals and objective, to 1e-6."""

import numpy as np
import pytest
from made_fit import (
    DOMAINS as DOMAINS_OF_FIT,
    TARGETS,
    fitted,
    make_trials,
    objective,
    with_objective,
)
from made_laws import TARGET_SIZE, one_size, pilot_runs, sized_trials, two_sizes
from mixopt_regressors.gaussian import GaussianProcessRegressor
from mixopt_regressors.laws import EpochsRegressor, SkillsRegressor

from mixopt.fitting import ModelSize, predict_with_std
from mixopt.mixture import Phases
from mixopt.objective import Objective
from mixopt.reporting import law_data, packed_json, view_script
from mixopt.trials import Losses, Trial, TrialResult, Trials

pytestmark = pytest.mark.nightly

CLOSE = 1e-6
ANSWER = """
(mixtures) => mixtures.map((w) => ({
  losses: Array.from(law.predict(w)),
  stds: Array.from(law.stds(w)),
  halves: Array.from(law.halves(w)),
  value: law.value(w),
  half: law.valueHalf(w),
}))
"""
DOMAINS, TRIALS, LOSSES = 60, 120, 40
HALF = {"code": 0.5, "law": 0.5}
OBJECTIVES = {
    "mean": objective("code", "law"),
    "target": objective("code", kind="target"),
    "worst": objective("code", "law", "math", kind="worst"),
    "higher": Objective(TARGETS, "target", {"code": 1.0}, higher=("code",)),
    "spread": Objective(
        TARGETS, "mean", HALF, higher=("law",), scale="spread", spreads={"code": 0.2, "law": 0.05}
    ),
}


def law_page(content):
    """Return a page in which `law` is the law of a page's data."""
    return (
        f'<script type="application/json" id="data">{packed_json(content)}</script>'
        f"<script>{view_script()}\n"
        "const law = makeLaw(readWhatIf(document.getElementById('data').textContent));</script>"
    )


def mixtures(domains, count=50):
    """Return random mixtures, corners and zeros among them, shape (count, D)."""
    rng = np.random.default_rng(0)
    corners = np.eye(domains)[:6]
    edges = rng.dirichlet(np.ones(domains), 10) * (rng.random((10, domains)) < 0.6)
    edges[:, 0] += 1e-3
    inside = rng.dirichlet(np.ones(domains), count - len(corners) - len(edges))
    drawn = np.vstack([corners, edges, inside])
    return drawn / drawn.sum(axis=1, keepdims=True)


def assert_same(open_page, fit, goal=None):
    weights_KD = mixtures(len(fit.domains))
    found = fit.predict_turned(weights_KD, goal)
    means_KM, stds_KM = predict_with_std(fit.regressor, weights_KD)
    ours = {
        "losses": found.losses_NM,
        "stds": fit._by_items(means_KM, stds_KM),
        "halves": found.high_NM - found.losses_NM,
        "value": found.objective_N,
        "half": found.objective_high_N - found.objective_N,
    }
    names = {"domains": list(fit.domains), "targets": list(fit.targets)}
    page = open_page(law_page({**names, **law_data(fit, goal)}))
    rows = page.evaluate(ANSWER, weights_KD.tolist())
    for name, expected in ours.items():
        theirs = np.array([row[name] for row in rows], dtype=float)
        assert np.abs(theirs - expected).max() < CLOSE, name


@pytest.fixture(scope="module")
def proxies():
    """A fit of trials of one size."""
    return fitted("gaussian_process", trials=one_size(), folds=3)


LAWS = [f"made_laws:{name}" for name in ("few_units", "few_members", "few_candidates")]


@pytest.mark.parametrize("name", ["gaussian_process", "epochs", *LAWS])
def test_a_browser_predicts_what_python_does(open_page, name):
    assert_same(open_page, fitted(name, trials=make_trials(count=20, replicates=2), folds=3))


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_a_browser_values_every_kind_of_objective(open_page, proxies, kind):
    assert_same(open_page, with_objective(proxies, OBJECTIVES[kind]), OBJECTIVES[kind])


def test_a_browser_widens_shares_of_right_answers_by_their_questions(open_page):
    trials = make_trials(lambda weights_ND: 0.3 + 0.4 * weights_ND[:, [0, 1, 2, 0]])
    items = {"code": 40, "math": 200}
    goal = Objective(TARGETS, "mean", HALF, higher=("code", "math"), items=items)
    fit = fitted("gaussian_process", trials=trials, folds=3, goal=goal)
    assert (fit.item_variances > 0).tolist() == [True, False, False, True]
    assert_same(open_page, fit)


def test_a_browser_predicts_a_law_of_two_phases(open_page):
    rng = np.random.default_rng(0)
    trials, results = [], []
    for n in range(24):
        parts = {p: dict(zip(DOMAINS_OF_FIT, rng.dirichlet(np.ones(3)), strict=True)) for p in "12"}
        mixture = Phases({"1": 0.8, "2": 0.2}).joined(parts)
        share = mixture["1/code"] + 2 * mixture["2/code"]
        values = {name: 2 + np.exp(-k - share) for k, name in enumerate(TARGETS)}
        trials.append(Trial(f"t{n}", mixture, seed=n))
        results.append(TrialResult(f"t{n}", "finished", 9, 9, 1.0, Losses(9, values, values)))
    table = Trials.from_results(trials, results, proxy="made")
    assert_same(open_page, fitted("phases", trials=table, folds=3))


@pytest.mark.parametrize(("count", "kind"), [(1, "target"), (3, "mean"), (12, "worst")])
def test_a_browser_carries_predictions_to_the_size_of_pilots(open_page, proxies, count, kind):
    assert_same(open_page, proxies.with_pilots(pilot_runs(count)), OBJECTIVES[kind])


def test_a_browser_predicts_at_a_size_that_no_trial_had_or_that_pilots_had(open_page):
    sized = two_sizes().fit(size=ModelSize(*map(float, TARGET_SIZE)))
    assert_same(open_page, sized)
    larger = sized_trials("pilot", np.repeat([(10**9, 10**11)], 9, axis=0), seed=1)
    assert_same(open_page, sized.with_pilots(larger), OBJECTIVES["mean"])


@pytest.mark.parametrize(
    "regressor",
    [GaussianProcessRegressor(learning_trials=40), SkillsRegressor(), EpochsRegressor()],
    ids=lambda item: type(item).__name__,
)
def test_a_law_of_many_losses_is_in_single_precision_and_within_a_millionth(open_page, regressor):
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.full(DOMAINS, 0.5), TRIALS)
    losses_NM = 2 + np.exp(-2 * np.sqrt(weights_ND[:, :2]))
    losses_NM += 0.003 * rng.standard_normal((TRIALS, 2))
    losses_NM[:3] += 0.4  # doubted
    fit = regressor.fit(weights_ND, losses_NM)
    large = fit.select([0, 1] * (LOSSES // 2))
    if hasattr(fit, "_roots"):
        large.__dict__["_roots"] = fit._roots * (LOSSES // 2)
    law = large.plain_law()
    assert law["roots_MT"].dtype == np.float32
    asked_KD = np.vstack([rng.dirichlet(np.ones(DOMAINS), 12), np.eye(DOMAINS)[:4]])
    ones = np.ones(LOSSES)
    intervals = {"factors": ones, "floors": 0 * ones, "locals": [True] * LOSSES}
    intervals["value"] = {"factor": 1.0, "floor": 0.0, "local": True}
    content = {
        "domains": [str(d) for d in range(DOMAINS)],
        "targets": [str(m) for m in range(LOSSES)],
        "law": {"model": law, "intervals": intervals},
        "objective": {"pieces": [ones.tolist()], "offsets": [0.0]},
    }
    rows = open_page(law_page(content)).evaluate(ANSWER, asked_KD.tolist())
    means_KM, stds_KM = large.predict(asked_KD, return_std=True)
    assert np.abs([row["losses"] for row in rows] - means_KM).max() < CLOSE
    assert np.abs([row["stds"] for row in rows] / stds_KM - 1).max() < 1e-5
