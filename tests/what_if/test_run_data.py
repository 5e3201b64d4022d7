"""What a page is given of a whole run."""

import numpy as np
import pytest
from law_answers import ANSWER, law_page
from made_run import make_run

from mixopt.what_if import packed_json, what_if_data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("made"), domains=4, trials=14)


@pytest.fixture(scope="module")
def data(run):
    return what_if_data(run)


def test_mixtures_are_those_of_the_run(run, data):
    domains = run.fit.domains
    assert data["domains"] == list(domains)
    assert np.array_equal(data["proposal"], run.proposal.mixture.over(domains).array)
    assert np.array_equal(data["recommended"], run.recommendation.mixture.over(domains).array)
    assert np.array_equal(data["natural"], run.natural.over(domains).array)


def test_limits_are_those_of_the_run(run, data):
    limits, domains = data["constraints"], run.fit.domains
    low, high = limits["low"], limits["high"]
    assert all(low[d] <= data["proposal"][d] + 1e-9 <= high[d] + 2e-9 for d in range(4))
    assert limits["target_tokens"] == 25_000_000_000
    assert limits["max_epochs"] == [4] * 4
    assert limits["inventory"].tolist() == [run.inventory[name] for name in domains]
    names = {group.name for group in run.constraints.groups}
    assert {group["name"] for group in limits["groups"]} == names


def test_trials_are_those_of_the_fit(run, data):
    trials = data["trials"]
    assert trials["names"] == run.fit.trials.table["trial"].to_list()
    assert np.array_equal(trials["weights"], run.fit.data.weights_ND)
    assert np.abs(trials["losses"] - run.fit.data.losses_NM).max() < 1e-6


def test_a_browser_predicts_the_proposal_as_the_run_does(open_page, run, data):
    found = open_page(law_page(data)).evaluate(ANSWER, [data["proposal"].tolist()])[0]
    expected = run.fit.predict(data["proposal"][None])
    assert np.abs(np.array(found["losses"]) - expected.losses_NM[0]).max() < 1e-6
    assert abs(found["value"] - expected.objective_N[0]) < 1e-6
    assert abs(found["half"] - (expected.objective_high_N - expected.objective_N)[0]) < 1e-6


def test_trials_of_a_table_and_of_a_law_are_one_array(data):
    without = {**data, "trials": {**data["trials"], "weights": []}}
    assert len(packed_json(data)) - len(packed_json(without)) < 60
