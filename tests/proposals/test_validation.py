"""A validation says plainly whether the proposal won."""

import numpy as np
import pytest

from mixopt.config import ObjectiveConfig, ValidateConfig
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import Validation, plan_validation, validation_table
from mixopt.trials import Losses, Trial, TrialResult, Trials, best_trial

NATURAL = Mixture({"code": 0.8, "prose": 0.2})
PROPOSED = Mixture({"code": 0.3, "prose": 0.7})
OBJECTIVE = Objective.from_config(ObjectiveConfig(target="help"), ("code", "prose", "help"))


def result_of(trial, value, status="finished"):
    if status != "finished":
        return TrialResult(trial.name, status, 0, 1, 0.0, reason="loss is nan")
    losses = {"code": value, "prose": value, "help": value}
    return TrialResult(trial.name, "finished", 10, 1, 0.0, Losses(10, losses, losses))


def trials_of(values_by_name, seeds=3):
    trials, results = [], []
    for name, values in values_by_name.items():
        mixture = PROPOSED if name == "proposal" else NATURAL
        for seed, value in enumerate(values):
            trial = Trial(f"{name}-s{seed}", mixture, seed, role="validation")
            trials.append(trial)
            status = "finished" if np.isfinite(value) else "diverged"
            results.append(result_of(trial, value, status))
    return Trials.from_results(trials, results, proxy="ngram", targets=("code", "prose", "help"))


def validation_of(**values):
    return Validation(trials_of(values), OBJECTIVE)


@pytest.mark.parametrize(
    ("proposal", "verdict"),
    [
        ([1.0, 1.2, 1.1], "wins"),
        ([3.0, 3.2, 3.1], "loses"),
        ([2.0, 2.3, 2.0], "no difference shown"),
    ],
)
def test_the_verdict_follows_the_paired_interval(proposal, verdict):
    validation = validation_of(proposal=proposal, natural=[2.0, 2.2, 2.1])
    assert validation.compare("natural").verdict == verdict


def test_the_interval_is_that_of_students_t_on_paired_differences():
    ours, theirs = np.array([1.0, 1.5, 1.1]), np.array([1.3, 1.9, 1.3])
    comparison = validation_of(proposal=ours, natural=theirs).compare("natural")
    differences = ours - theirs
    half = 4.302653 * differences.std(ddof=1) / np.sqrt(3)
    assert comparison.mean == pytest.approx(differences.mean())
    assert comparison.low == pytest.approx(differences.mean() - half, rel=1e-5)


def test_pairs_are_made_by_seed_where_a_run_diverged():
    validation = validation_of(proposal=[1.0, np.nan, 1.2], natural=[2.0, 9.0, 2.2])
    comparison = validation.compare("natural")
    assert comparison.seeds == 2
    assert comparison.mean == pytest.approx(-1.0)


def test_the_table_has_a_row_for_each_mixture():
    table = validation_table(validation_of(proposal=[1, 1.1, 1], natural=[2, 2.1, 2]))
    assert table["mixture"].to_list() == ["proposal", "natural"]
    assert table["verdict"].to_list() == [None, "wins"]


def sweep_trials():
    trials = [
        Trial("natural", NATURAL, 5, role="anchor"),
        Trial("t0000", Mixture({"code": 0.1, "prose": 0.9}), 6),
    ]
    return Trials.from_results(
        trials, [result_of(trials[0], 2.0), result_of(trials[1], 1.0)], proxy="ngram"
    )


def plan(**options):
    config = ValidateConfig(**options)
    return plan_validation(PROPOSED, NATURAL, sweep_trials(), OBJECTIVE, config, seed=0)


def test_every_mixture_is_trained_with_the_same_fresh_seeds():
    planned = plan()
    seeds = {}
    for trial in planned:
        seeds.setdefault(trial.name.rpartition("-s")[0], []).append(trial.seed)
    assert set(seeds) == {"proposal", "natural", "uniform", "best_trial"}
    assert len({tuple(each) for each in seeds.values()}) == 1
    assert not {5, 6} & set(seeds["proposal"])


def test_the_best_trial_is_the_lowest_observed():
    name, mixture = best_trial(sweep_trials(), OBJECTIVE)
    assert name == "t0000"
    assert mixture == Mixture({"code": 0.1, "prose": 0.9})


def test_a_baseline_that_equals_another_mixture_is_not_trained_twice():
    config = ValidateConfig(baselines=["natural", "uniform"])
    planned = plan_validation(
        Mixture.uniform(("code", "prose")), NATURAL, sweep_trials(), OBJECTIVE, config, seed=0
    )
    assert {trial.name.rpartition("-s")[0] for trial in planned} == {"proposal", "natural"}
