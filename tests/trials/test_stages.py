"""Conditional rounds hold what was found while the rest moves."""

import json

import numpy as np
import pytest

import mixopt
from mixopt import Mixture
from mixopt.config import DesignConfig
from mixopt.constraints import Constraints
from mixopt.mixture import branch_shares
from mixopt.trials import make_design, stage_limits
from mixopt.trials.stages import STAGE_RADIUS

DOMAINS = ("web/a", "web/b", "code/a", "code/b", "law")
NATURAL = Mixture.from_array(DOMAINS, [0.3, 0.2, 0.1, 0.1, 0.3])
RNG = np.random.default_rng(0)


def drawn(stage):
    allowed = stage_limits(stage, NATURAL, Constraints(DOMAINS)).allowed
    return allowed.inside(RNG.dirichlet(np.ones(5), 50))


def test_totals_of_branches_then_inner_shares_are_held_and_the_last_stage_has_a_radius():
    within_ND, between_ND = drawn("within"), drawn("between")
    totals_N2 = [[0.5, 0.2]] * len(within_ND)
    np.testing.assert_allclose(within_ND[:, :4].reshape(-1, 2, 2).sum(axis=2), totals_N2)
    assert np.ptp(within_ND[:, 0]) > 0.1
    np.testing.assert_allclose(between_ND[:, 0] * 0.4, between_ND[:, 1] * 0.6, atol=1e-9)
    np.testing.assert_allclose(between_ND[:, 2], between_ND[:, 3], atol=1e-9)
    assert np.ptp(between_ND[:, 4]) > 0.1
    away_N = 0.5 * np.abs(drawn("all") - NATURAL.array).sum(axis=1)
    assert away_N.max() == pytest.approx(STAGE_RADIUS, abs=1e-6)


def test_a_branch_that_was_found_to_get_nothing_stays_without():
    reference = Mixture.from_array(DOMAINS, [0.5, 0.5, 0, 0, 0])
    found = stage_limits("between", reference, Constraints(DOMAINS))
    assert found.upper_D[2:].tolist() == [0, 0, 0]


@pytest.mark.parametrize("stage", ["within", "between"])
def test_the_first_stage_is_drawn_as_it_holds(stage):
    config = DesignConfig(trials=16, stages=[stage, "all"], rounds=[8, 8], max_usage=None)
    trials = [t for t in make_design(config, NATURAL, None, 0) if t.role == "sampled"]
    held = stage_limits(stage, NATURAL, Constraints(DOMAINS)).simplex
    assert len(trials) == 8
    assert held.contains(np.array([trial.mixture.array for trial in trials]), tolerance=1e-6).all()


@pytest.mark.nightly
def test_stages_of_a_run_are_one_table(tmp_path):
    for name in "abcd":
        rows = (f'{{"text": "text {n} of {name} with some words {n % 7}"}}' for n in range(300))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    files = {name: {"path": f"{tmp_path}/{name}.jsonl"} for name in "abcd"}
    tree = {"x": {n: files[n] for n in "ab"}, "y": {n: files[n] for n in "cd"}}
    design = {"rounds": [8, 4, 4], "stages": ["within", "between", "all"]}
    content = {"corpus": {"domains": tree}, "objective": {"mean": {"*": 1}}, "design": design}
    content["proxy"] = {"name": "ngram", "tokens": 2000}
    (tmp_path / "a.yaml").write_text(json.dumps(content))
    run = mixopt.run(tmp_path / "a.yaml", tmp_path / "run", until="sweep")
    first = [t for t in run.design if t.role == "sampled"]
    assert len(run.trials) == 16 + 5
    for trial in first:
        assert branch_shares(trial.mixture) == pytest.approx(branch_shares(run.natural))
    second = [trial.mixture for trial in run.design if trial.round == 1]
    inner = [m["x/a"] / (m["x/a"] + m["x/b"]) for m in second if m["x/a"] + m["x/b"] > 0.01]
    assert inner == pytest.approx([inner[0]] * len(inner), abs=1e-6)
