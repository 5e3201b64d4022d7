"""Pilots carry a fit to their size; the losses are synthetic, of a known law at two sizes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from places import DATA

from mixopt.config import FitConfig
from mixopt.errors import TrialsError
from mixopt.fitting import Fit, evaluate, fit_regressor, fit_trials, select_targets, spearman
from mixopt.objective import Objective
from mixopt.pipeline import load_fit
from mixopt.trials import Trials

DOMAINS = ("web", "code", "books")
TARGETS = ("web", "code", "exam")
REGMIX = DATA / "regmix"
SLOPES = np.array([0.2, 1.0, 0.6])


def small(weights_ND):
    own_NM = np.column_stack([weights_ND[:, :2], weights_ND @ [0.5, 0.1, 0.4]])
    return 2 + np.array([1.0, 0.3, 0.6]) * np.exp(-4 * own_NM)


def large(weights_ND):
    """At the target size another line for each loss, and something that no line knows."""
    bent_NM = 0.01 * np.sin(8 * weights_ND[:, :1]) * [1.0, 1.0, 1.0]
    return 1.5 + (small(weights_ND) - 2) * SLOPES + bent_NM


def write_tables(folder, name, law, count, seed, domains=DOMAINS, targets=TARGETS, size=""):
    """Write a table of mixtures and one of losses; return both paths."""
    rng = np.random.default_rng(seed)
    weights_ND = rng.dirichlet(np.ones(len(DOMAINS)), count)
    losses_NM = law(weights_ND) + 0.002 * rng.standard_normal((count, 3))
    paths = (folder / f"{name}_w.csv", folder / f"{name}_l.csv")
    header, cells = ("parameters,tokens,", size) if size else ("", "")
    for path, head, names, values in (
        (paths[0], header, domains, weights_ND),
        (paths[1], "", targets, losses_NM),
    ):
        lines = [f"run,{head}{','.join(names)}"]
        first = cells if head else ""
        lines += [
            f"{name}{n},{first}{','.join(map(repr, row[: len(names)]))}"
            for n, row in enumerate(values.tolist())
        ]
        path.write_text("\n".join(lines) + "\n")
    return paths


def runs(tmp_path, name, law, count, seed, **options) -> Trials:
    return Trials.from_csv(*write_tables(tmp_path, name, law, count, seed, **options))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pilots")


@pytest.fixture(scope="module")
def trials(folder) -> Trials:
    return runs(folder, "proxy", small, 40, 0, size="1000000,1000,")


@pytest.fixture(scope="module")
def fit(trials) -> Fit:
    """A fit of the proxies alone; its objective is the mean."""
    objective = Objective(TARGETS, "mean", dict.fromkeys(TARGETS, 1 / 3), "nats_per_token")
    return fit_trials(trials, FitConfig(regressors=["log_linear"]), objective, 0)


@pytest.fixture(scope="module")
def pilots(folder) -> Trials:
    return runs(folder, "pilot", large, 10, 1)


@pytest.fixture(scope="module")
def unseen(folder) -> Trials:
    return runs(folder, "unseen", large, 60, 2)


@pytest.fixture(scope="module")
def carried(fit, pilots) -> Fit:
    return fit.with_pilots(pilots)


def test_one_pilot_shifts_every_loss_to_its_size(fit, folder, unseen):
    one = fit.with_pilots(runs(folder, "one", large, 1, 3))
    assert np.allclose(one.pilots.lines.slopes_M, 1)
    off_M = (unseen.losses() - one.predict(unseen.weights()).losses_NM).mean(axis=0)
    before_M = (unseen.losses() - fit.predict(unseen.weights()).losses_NM).mean(axis=0)
    assert (np.abs(off_M) < 0.5 * np.abs(before_M)).all()


def test_pilots_find_the_slope_of_every_loss(carried):
    found = np.array(list(carried.pilots.slopes.values()))
    assert np.abs(found - SLOPES).max() < 0.15


def test_an_aggregate_is_ranked_better_at_the_pilots_size(fit, carried, unseen):
    observed_N = unseen.losses().mean(axis=1)
    raw, better = (
        spearman(one.predict(unseen.weights()).objective_N, observed_N) for one in (fit, carried)
    )
    assert raw < 0.85
    assert better > 0.93


def test_what_a_line_carries_keeps_the_ranks_of_the_proxies(fit, pilots, unseen):
    lines = fit.with_pilots(Trials(pilots.table[:5], pilots.domains, pilots.targets))
    before_NM, after_NM = (one.predict(unseen.weights()).losses_NM for one in (fit, lines))
    assert np.array_equal(before_NM.argsort(axis=0), after_NM.argsort(axis=0))


@pytest.mark.parametrize("count", [1, 3, 10])
def test_intervals_hold_runs_at_the_pilots_size(fit, folder, unseen, count):
    one = fit.with_pilots(runs(folder, f"held{count}", large, count, 4))
    predicted, observed_NM = one.predict(unseen.weights()), unseen.losses()
    inside_NM = (predicted.low_NM <= observed_NM) & (observed_NM <= predicted.high_NM)
    observed_N = observed_NM.mean(axis=1)
    inside_N = (predicted.objective_low_N <= observed_N) & (
        observed_N <= predicted.objective_high_N
    )
    assert inside_NM.mean() > 0.85
    assert inside_N.mean() > 0.8


def test_more_pilots_make_intervals_narrower(fit, folder, unseen):
    widths = []
    for count in (2, 5, 20):
        predicted = fit.with_pilots(runs(folder, f"w{count}", large, count, 5)).predict(
            unseen.weights()
        )
        widths.append((predicted.high_NM - predicted.low_NM).mean())
    assert widths[0] > widths[1] > widths[2]


def test_the_gradient_is_that_of_the_carried_predictions(carried):
    weights_D, step = np.array([0.5, 0.3, 0.2]), 1e-5
    slopes_MD = carried.regressor.gradient(weights_D)
    for towards_D in ([1, -1, 0], [0, 1, -1]):
        ends = [weights_D + sign * step * np.array(towards_D) for sign in (1, -1)]
        up_M, down_M = carried.regressor.predict(np.array(ends))
        assert slopes_MD @ towards_D == pytest.approx((up_M - down_M) / (2 * step), rel=1e-3)


def test_some_losses_of_a_carried_fit_are_predicted_as_all_are(carried, unseen):
    weights_ND = unseen.weights()
    every = carried.regressor.predict(weights_ND, return_std=True)
    some = select_targets(carried.regressor, [2, 0]).predict(weights_ND, return_std=True)
    for whole_NM, kept_NM in zip(every, some, strict=True):
        assert np.allclose(kept_NM, whole_NM[:, [2, 0]], rtol=1e-12)


def test_a_refit_on_the_same_trials_is_carried_alike(carried, unseen):
    again = fit_regressor(
        carried.name, carried.regressor.tuned(), carried.rows(), carried.trials.losses()
    )
    mine_NM, theirs_NM = (one.predict(unseen.weights()) for one in (again, carried.regressor))
    assert np.allclose(mine_NM, theirs_NM, atol=1e-6)


def test_a_refit_draws_its_lines_through_its_own_predictions(carried, pilots):
    shifted = carried.regressor.tuned().fit(carried.rows(), carried.trials.losses() + 1.0)
    left_M = (shifted.predict(pilots.weights()) - pilots.losses()).mean(axis=0)
    assert np.abs(left_M).max() < 0.01


def test_a_carried_fit_is_read_back_as_it_was(carried, unseen, tmp_path):
    carried.save(tmp_path / "fit")
    read = Fit.load(tmp_path / "fit")
    for one in ("losses_NM", "low_NM", "objective_N", "objective_high_N"):
        mine, theirs = (getattr(f.predict(unseen.weights()), one) for f in (read, carried))
        assert np.allclose(mine, theirs, rtol=1e-9)  # products of arrays read from disk
    kept = json.loads((tmp_path / "fit" / "fit.json").read_text())["slopes"]
    assert list(kept) == list(TARGETS)
    assert read.pilots.trials == carried.pilots.trials


def test_the_summary_says_how_many_pilots_and_which_correction(fit, carried):
    assert "is corrected to the size of 10 pilots by lines, slopes 0." in carried.summary()
    assert "pilot" not in fit.summary()


def test_runs_of_the_pilots_size_are_of_the_fits_scale(fit, carried, unseen):
    before, after = evaluate(fit, unseen), evaluate(carried, unseen)
    assert (before["scale"], after["scale"]) == ("other", "same")
    assert before["mean"]["rmse"] is None
    assert after["mean"]["rmse"] < 0.02
    assert after["mean"]["coverage90"] > 0.8
    assert after["mean"]["spearman"] > before["mean"]["spearman"] + 0.03


def test_a_proposal_speaks_of_the_pilots_size(trials, pilots, tmp_path):
    fitted = trials.fit(regressors="log_linear", pilots=pilots)
    fitted.save(tmp_path)
    found = load_fit(tmp_path).propose()
    truth = float(large(found.mixture.over(DOMAINS).array[None]).mean())
    assert found.predicted_objective.value == pytest.approx(truth, abs=0.02)
    best = large(trials.weights()).mean(axis=1)
    assert best.min() - 0.05 < found.best_observed < best.max()
    assert load_fit(tmp_path).pilots.slopes == fitted.pilots.slopes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"domains": ("web", "cde", "books")}, "pilots: the trials have no domain 'cde'; did you"),
        ({"targets": ("web", "exam")}, "pilots: no loss on 'code'"),
        ({"size": "1000000,1000,"}, "pilots: 'bad0' is of the trials' own size"),
    ],
)
def test_pilots_that_cannot_be_are_named(fit, tmp_path, options, message):
    with pytest.raises(TrialsError, match=message):
        fit.with_pilots(runs(tmp_path, "bad", large, 4, 6, **options))


def test_pilots_are_checked_before_a_fit(trials, tmp_path):
    wrong = runs(tmp_path, "bad", large, 4, 6, targets=("web", "exam"))
    with pytest.raises(TrialsError, match="pilots: no loss on 'code'"):
        trials.fit(regressors="odd_regressors:RefusesToFit", pilots=wrong)


def test_a_domain_that_pilots_lack_is_named(fit, pilots):
    fewer = pilots.reindex(merge={"text": ("web", "books")})
    with pytest.raises(TrialsError, match="no domain 'text'"):
        fit.with_pilots(fewer)


def test_pilots_of_another_unit_are_refused(fit, tmp_path):
    paths = write_tables(tmp_path, "bits", large, 4, 6)
    with pytest.raises(TrialsError, match="not in nats_per_token"):
        fit.with_pilots(Trials.from_csv(*paths, unit="bits_per_byte"))


def test_pilots_of_which_none_finished_are_refused(fit, pilots):
    table = pilots.table.with_columns(
        status=np.full(len(pilots), "failed"), reason=np.full(len(pilots), "out of memory")
    )
    with pytest.raises(TrialsError, match="pilots: none of 10 trials finished.*at least one"):
        fit.with_pilots(Trials(table, pilots.domains, pilots.targets))


def test_the_trials_themselves_are_no_pilots(fit, folder):
    same = runs(folder, "proxy2", small, 40, 0)
    with pytest.raises(TrialsError, match=r"pilots: 'proxy20' is trial 'proxy0'"):
        fit.with_pilots(same)


@pytest.mark.skipif(not REGMIX.exists(), reason="../shared/data/regmix is not here")
def test_eight_60m_pilots_rank_the_mean_of_published_runs_better():
    trials, every = (
        Trials.from_csv(REGMIX / f"{name}_mixture.csv", REGMIX / f"{name}_loss.csv")
        for name in ("train_1m", "test_60m")
    )
    shares = dict.fromkeys(trials.targets, 1 / len(trials.targets))
    objective = Objective(trials.targets, "mean", shares, "nats_per_token")
    some = Trials(trials.table[:64], trials.domains, trials.targets)
    fit = fit_trials(some, FitConfig(regressors=["log_linear"], folds=2), objective, 0)
    gains = []
    for draw in range(3):
        order_N = np.random.default_rng(draw).permutation(len(every)).tolist()
        pilots, unseen = (
            Trials(every.table[rows], every.domains, every.targets)
            for rows in (order_N[:8], order_N[8:])
        )
        observed_N = unseen.losses().mean(axis=1)
        raw, better = (
            spearman(one.predict(unseen.weights()).objective_N, observed_N)
            for one in (fit, fit.with_pilots(pilots))
        )
        gains.append(better - raw)
    assert np.mean(gains) > 0
