"""What a validation says of the noise of seeds."""

import numpy as np
import pytest

from mixopt.fitting import objective_of
from mixopt.mixture import Mixture
from mixopt.pipeline.validation import noise_text
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
    return [(f"{name}{n}", mixture, 2 + spread * place) for n, place in enumerate(places)]


def validation(runs):
    trials = table(runs)
    return Validation(trials, objective_of(trials, "web", "nats_per_token"))


@pytest.fixture
def validated():
    return validation([*seeds("q", QUIET, 0.001, 6), *seeds("n", NOISY, 0.1)])


def test_a_recommendation_that_is_far_noisier_than_the_others_is_said(validated):
    assert "significantly more: raise validate.seeds" in noise_text(validated, NOISY)
    quiet = noise_text(validated, QUIET)
    assert "differ by 0.000" in quiet
    assert "significantly" not in quiet


def test_nothing_is_said_of_the_noise_of_two_seeds():
    few = validation([*seeds("q", QUIET, 0.001, 6), *seeds("n", NOISY, 0.1, 2)])
    assert noise_text(few, NOISY) is None
