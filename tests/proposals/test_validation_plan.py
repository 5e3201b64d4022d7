"""A plan trains each mixture once, with seeds that no trial had and that never change."""

from mixopt.mixture import Mixture
from mixopt.proposals import ValidationPlan, fresh_seeds
from mixopt.trials import Losses, Trial, TrialResult, Trials

NATURAL = Mixture({"code": 0.8, "prose": 0.2})
PROPOSED = Mixture({"code": 0.3, "prose": 0.7})
UNIFORM = Mixture.uniform(("code", "prose"))


def result_of(trial, value=1.0):
    losses = {"code": value, "prose": value}
    return TrialResult(trial.name, "finished", 10, 1, 0.0, Losses(10, losses, losses))


def trials_with(*seeds):
    trials = [Trial(f"t{seed}", NATURAL, seed) for seed in seeds]
    return Trials.from_results(trials, [result_of(trial) for trial in trials], proxy="ngram")


def test_each_mixture_is_trained_with_each_seed_in_turn():
    plan = ValidationPlan({}, [7, 8]).add({"proposal": PROPOSED, "natural": NATURAL}, 2)
    assert [(trial.name, trial.seed) for trial in plan.trials] == [
        *(("proposal-s0", 7), ("natural-s0", 7), ("proposal-s1", 8), ("natural-s1", 8))
    ]
    assert {trial.role for trial in plan.trials} == {"validation"}
    assert plan.trials[1].mixture == NATURAL


def test_a_mixture_with_two_names_is_trained_once_and_counts_for_both():
    plan = ValidationPlan({}, [7]).add({"natural": UNIFORM, "uniform": UNIFORM}, 1)
    assert [trial.name for trial in plan.trials] == ["natural-s0"]
    results = plan.named_results([result_of(plan.trials[0], 3.0)])
    assert [result.trial for result in results] == ["natural-s0", "uniform-s0"]
    assert results[1].losses == results[0].losses


def test_seeds_are_fresh_and_more_of_them_keep_the_first():
    first = fresh_seeds(trials_with(1), 3, seed=0)
    assert fresh_seeds(trials_with(1), 6, seed=0)[:3] == first
    assert not set(fresh_seeds(trials_with(first[0]), 6, seed=0)) & {first[0]}


def test_the_seeds_never_change_so_that_a_validation_resumes():
    assert fresh_seeds(trials_with(1), 3, 0) == [194557229, 1850713511, 738208508]
    assert fresh_seeds(trials_with(1), 3, 1) == [325475402, 146023892, 1766492334]
