"""What a validation says of the noise of seeds, and of runs that make the fit worse."""

import numpy as np
import polars as pl
import pytest

from mixopt.fitting import objective_of
from mixopt.mixture import Mixture
from mixopt.pipeline import rounds
from mixopt.pipeline.rounds import worse_round, worse_text
from mixopt.proposals import Validation
from mixopt.trials import Losses, Trial, TrialResult, Trials

QUIET, NOISY = Mixture({"web": 0.5, "code": 0.5}), Mixture({"web": 0.1, "code": 0.9})


def table(runs):
    """Trials of (name, mixture, loss) with losses of `web` and `code`."""
    trials = [Trial(name, mixture, seed=n) for n, (name, mixture, _) in enumerate(runs)]
    results = []
    for name, _, loss in runs:
        values = {"web": loss, "code": loss}
        results.append(TrialResult(name, "finished", 9, 1, 0.1, Losses(9, values, values)))
    return Trials.from_results(trials, results, proxy="synthetic")


def seeds(name, mixture, spread, count=4):
    places = np.linspace(-1, 1, count)
    return [(f"{name}-s{n}", mixture, 2 + spread * place) for n, place in enumerate(places)]


def validation(runs):
    trials = table(runs)
    return Validation(trials, objective_of(trials, "web", "nats_per_token"))


@pytest.fixture
def validated():
    return validation([*seeds("q", QUIET, 0.001, 6), *seeds("n", NOISY, 0.1)])


def test_a_recommendation_that_is_far_noisier_than_the_others_is_said(validated):
    assert "significantly more: raise validate.seeds" in validated.noise_note("n")
    quiet = validated.noise_note("q")
    assert "differ by 0.000" in quiet
    assert "significantly" not in quiet


def test_nothing_is_said_of_the_noise_of_two_seeds():
    few = validation([*seeds("q", QUIET, 0.001, 6), *seeds("n", NOISY, 0.1, 2)])
    assert few.noise_note("n") is None


def straight(count, change=lambda name, loss: loss):
    weights_N = np.random.default_rng(0).uniform(0.05, 0.95, count)
    runs = []
    for n, share in enumerate(weights_N):
        name = f"t{n}"
        mixture = Mixture({"web": float(share), "code": 1 - float(share)})
        runs.append((name, mixture, change(name, 3 - float(share))))
    return table(runs)


def test_runs_of_one_kind_make_nothing_worse():
    def noisy(name, loss):
        return loss + 0.05 * np.sin(7 * int(name[1:]) ** 2)

    before, after = (straight(count, noisy).fit(regressors="linear") for count in (24, 32))
    assert worse_text(before, after, "these runs") is None


def test_a_round_that_makes_the_fit_worse_is_said(monkeypatch):
    monkeypatch.setattr(rounds, "fit_of", lambda run, trials: trials.fit(regressors="linear"))

    def longer(name, loss):
        return loss if int(name[1:]) < 12 else loss - 1.5

    trials = straight(18, longer)
    assert worse_round(None, trials.fit(regressors="linear")) is None  # one round
    table = trials.table.with_columns(round=pl.Series([0] * 12 + [1] * 6))
    later = Trials(table, trials.domains, trials.targets).fit(regressors="linear")
    said = "with the trials of the last round the fit predicts the earlier trials worse on held-out"
    assert said in worse_round(None, later)
