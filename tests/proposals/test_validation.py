"""A validation says plainly whether the proposal won."""

import numpy as np
import pytest

from mixopt.config import ObjectiveConfig, ValidateConfig
from mixopt.errors import TrialsError
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import Comparison, Validation, mixture_of, plan_validation, validation_table
from mixopt.trials import Losses, Trial, TrialResult, Trials

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


def test_a_table_without_a_loss_of_the_objective_is_no_validation(tmp_path):
    path = tmp_path / "validation.parquet"
    trials_of({"proposal": [1.0], "natural": [2.0]}).write(path)
    assert Validation.read(path, OBJECTIVE).objective == OBJECTIVE
    other = Objective.from_config(ObjectiveConfig(target="maths"), ("code", "prose", "maths"))
    with pytest.raises(TrialsError, match="has losses on code, prose, help, not code, prose, math"):
        Validation.read(path, other)


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


def test_a_seed_that_a_trial_had_is_drawn_again():
    drawn = plan()[0].seed
    used = Trial("t0000", NATURAL, drawn)
    trials = Trials.from_results([used], [result_of(used, 1.0)], proxy="ngram")
    config = ValidateConfig(baselines=["natural"])
    planned = plan_validation(PROPOSED, NATURAL, trials, OBJECTIVE, config, seed=0)
    assert drawn not in {trial.seed for trial in planned}
    assert len({trial.seed for trial in planned}) == config.seeds


def test_a_baseline_that_equals_another_mixture_is_not_trained_twice():
    config = ValidateConfig(baselines=["natural", "uniform"])
    planned = plan_validation(
        Mixture.uniform(("code", "prose")), NATURAL, sweep_trials(), OBJECTIVE, config, seed=0
    )
    assert {trial.name.rpartition("-s")[0] for trial in planned} == {"proposal", "natural"}


def test_each_mixture_is_trained_with_each_seed_in_turn():
    names = [trial.name for trial in plan(seeds=3, baselines=["natural", "best_trial"])]
    assert names == [
        *("proposal-s0", "natural-s0", "best_trial-s0"),
        *("proposal-s1", "natural-s1", "best_trial-s1"),
        *("proposal-s2", "natural-s2", "best_trial-s2"),
    ]
    mixtures = {mixture_of(t.name): t.mixture for t in plan(baselines=["natural", "best_trial"])}
    assert mixtures["best_trial"] == Mixture({"code": 0.1, "prose": 0.9})
    assert mixtures["natural"] == NATURAL
    assert {trial.role for trial in plan()} == {"validation"}


def test_a_verdict_needs_an_interval_without_0():
    for low, high, verdict in (
        (-0.2, -0.1, "wins"),
        (0.1, 0.2, "loses"),
        (-0.1, 0.1, "no difference shown"),
        (-0.1, 0.0, "no difference shown"),
        (0.0, 0.1, "no difference shown"),
    ):
        assert Comparison("natural", (low + high) / 2, low, high, 3).verdict == verdict


def test_a_proposal_that_wins_against_all_says_against_whom():
    better, worse = [1.0, 1.1, 1.0], [2.0, 2.1, 2.0]
    validation = validation_of(proposal=better, natural=worse, uniform=worse, best_trial=worse)
    assert validation.verdict == (
        "The proposal wins against natural, uniform and the best trial (3 seeds, paired 95%"
        " intervals)."
    )


def test_a_proposal_that_does_not_win_says_so_first_and_where_it_loses():
    validation = validation_of(
        proposal=[2.0, 2.1, 2.0],
        natural=[1.0, 1.1, 1.0],
        uniform=[2.0, 2.0, 2.1],
        best_trial=[3.0, 3.1, 3.0],
    )
    assert validation.verdict == (
        "The proposal does not win against every baseline: it loses to natural, and no difference"
        " from uniform is shown, and it wins against the best trial (3 seeds, paired 95%"
        " intervals)."
    )


def test_a_validation_without_enough_runs_says_so():
    assert validation_of(proposal=[1.0, 1.1]).verdict == (
        "The proposal equals every baseline; there was nothing to compare."
    )
    alone = validation_of(proposal=[1.0, np.nan], natural=[2.0, 2.1])
    assert alone.verdict == "Too few runs finished to say whether the proposal wins."
    assert alone.comparisons == []
    assert alone.problems == ["natural: too few seeds finished to compare the proposal with it"]
    assert validation_of(proposal=[1.0, 1.1], natural=[2.0, 2.1]).problems == []


def test_the_verdict_counts_the_seeds_of_the_pair_with_the_fewest():
    validation = validation_of(
        proposal=[1.0, 1.1, 1.0], natural=[2.0, 2.1, 2.0], uniform=[2.0, 2.1, np.nan]
    )
    assert validation.verdict.endswith("(2 seeds, paired 95% intervals).")


def test_a_higher_metric_that_is_better_compares_below_0():
    higher = Objective(("code", "prose", "help"), "target", {"help": 1.0}, higher=("code",))
    trials = trials_of({"proposal": [3.0, 3.1], "natural": [2.0, 2.1]})
    validation = Validation(trials, higher)
    assert validation.compare("natural", "code").mean == pytest.approx(-1.0)
    assert validation.compare("natural", "prose").mean == pytest.approx(1.0)


def test_means_and_spreads_are_over_the_seeds_that_finished():
    validation = validation_of(proposal=[1.0, np.nan, 1.4], natural=[2.0, np.nan, np.nan])
    assert validation.mean("proposal") == pytest.approx(1.2)
    assert validation.spread("proposal") == pytest.approx(np.sqrt(0.08))
    assert np.isnan(validation.spread("natural"))
    assert np.isnan(validation.mean("uniform"))
    assert validation.values("natural") == {0: 2.0}


def test_the_plain_values_leave_out_what_is_missing():
    validation = validation_of(proposal=[1.0, 1.2], natural=[2.0, 2.2], uniform=[np.nan, np.nan])
    plain = validation.to_json()
    assert plain["means"] == pytest.approx({"proposal": 1.1, "natural": 2.1})
    assert list(plain["proposal_less"]) == ["natural"]
    assert plain["proposal_less"]["natural"]["mean"] == pytest.approx(-1.0)
    assert plain["verdict"] == validation.verdict


def test_the_table_holds_the_paired_difference_with_its_interval():
    row = validation_table(validation_of(proposal=[1, 1.2, 1], natural=[2, 2.1, 2])).row(
        1, named=True
    )
    assert row["objective"] == pytest.approx(6.1 / 3)
    assert row["difference"] == pytest.approx(-2.9 / 3)
    assert row["low"] < row["difference"] < row["high"] < 0


def test_the_seeds_of_a_plan_never_change_so_that_a_validation_resumes():
    natural = ValidateConfig(seeds=3, baselines=["natural"])
    for seed, drawn in (
        (0, [194557229, 1850713511, 738208508]),
        (1, [325475402, 146023892, 1766492334]),
    ):
        planned = plan_validation(PROPOSED, NATURAL, sweep_trials(), OBJECTIVE, natural, seed)
        assert [trial.seed for trial in planned[::2]] == drawn
