"""A validation says plainly whether the proposal won."""

import numpy as np
import pytest
from made_validation import MIXTURES, OBJECTIVE, TARGETS, made_validation, result_of

from mixopt.config import ObjectiveConfig, ValidateConfig
from mixopt.difference import Difference, paired_interval
from mixopt.errors import TrialsError
from mixopt.objective import Objective
from mixopt.proposals import Validation, ValidationPlan, fresh_seeds, looks
from mixopt.proposals.validation import nominal_level
from mixopt.trials import Trial, Trials

NATURAL, PROPOSED = MIXTURES["natural"], MIXTURES["proposal"]


def validation_of(**values):
    return made_validation(values)


def test_the_interval_is_student_s_of_paired_differences_and_the_verdict_follows_it():
    ours, theirs = np.array([1.0, 1.5, 1.1]), np.array([1.3, 1.9, 1.3])
    found = validation_of(proposal=ours, natural=theirs).compare("natural")
    mean, half = (theirs - ours).mean(), 4.302653 * (theirs - ours).std(ddof=1) / np.sqrt(3)
    assert [found.mean, found.low, found.high] == pytest.approx([mean, mean - half, mean + half])
    ends = [(0.1, 0.2), (-0.2, -0.1), (-0.1, 0.0), (0.0, 0.1)]
    verdicts = [Difference(0.0, *end, 0.95, "bits_per_byte", pairs=3).verdict for end in ends]
    assert verdicts == ["better", "worse", "not significant", "not significant"]


def test_pairs_are_of_seeds_that_finished_of_both_and_a_mean_of_all_that_finished():
    validation = validation_of(proposal=[1.0, None, 1.4], natural=[2.0, 9.0, 2.4])
    difference = validation.compare("natural")
    assert difference.pairs == 2
    assert difference.mean == pytest.approx(1.0)
    assert validation.mean("proposal") == pytest.approx(1.2)
    assert validation.values("proposal") == {0: 1.0, 2: 1.4}
    assert np.isnan(validation.mean("uniform"))
    assert validation.problems == []
    alone = validation_of(proposal=[1.0, None], natural=[2.0, 2.1])
    assert alone.differences == {}
    assert alone.problems == ["natural: too few seeds finished to compare the proposal with it"]


def test_a_table_without_a_loss_of_the_objective_is_no_validation(tmp_path):
    path = tmp_path / "validation.parquet"
    validation_of(proposal=[1.0], natural=[2.0]).trials.write(path)
    assert Validation.read(path, OBJECTIVE).objective == OBJECTIVE
    other = Objective.from_config(ObjectiveConfig(target="maths"), ("code", "prose", "maths"))
    with pytest.raises(TrialsError, match="has losses on code, prose, help, not code, prose, math"):
        Validation.read(path, other)


def test_the_proposal_with_the_lowest_mean_leads_and_two_names_of_one_mixture_are_the_same():
    validation = validation_of(proposal=[2.0, 2.1], proposal_2=[1.0, 1.1], natural=[3.0, 3.1])
    assert validation.proposals == ("proposal", "proposal_2")
    assert validation.baselines == ("natural",)
    assert validation.leading == "proposal_2"
    assert validation.compare("natural").mean == pytest.approx(2.0)
    assert validation.compare("natural", of="proposal").mean == pytest.approx(1.0)
    validation = validation_of(proposal=[1.0, 1.1], natural=[2.0, 2.1], twin=[1.0, 1.1])
    assert validation.same_as("twin") == "proposal"
    assert validation.same_as("proposal") is None
    assert validation.compare("twin").verdict == "same mixture"
    assert validation.compare("natural", of="twin").verdict == "better"


def test_intervals_are_wider_where_there_are_more_looks():
    trials, widths = validation_of(proposal=[1.0, 1.2, 1.1], natural=[2.0, 2.2, 2.15]).trials, []
    for most in (3, 6):
        config = ValidateConfig(seeds=3, max_seeds=most)
        found = Validation.of(trials, OBJECTIVE, config).compare("natural")
        widths.append(found.high - found.low)
    assert widths[1] > 1.2 * widths[0]


def test_above_0_is_better_for_losses_and_metrics_alike():
    higher = Objective(TARGETS, "target", {"help": 1.0}, higher=("code",))
    trials = validation_of(proposal=[3.0, 3.1], natural=[2.0, 2.1]).trials
    validation = Validation(trials, higher)
    assert validation.compare("natural", "code").mean == pytest.approx(1.0)
    assert validation.compare("natural", "prose").mean == pytest.approx(-1.0)


def test_the_frame_has_the_best_mixture_first_and_gains_over_the_others():
    frame = validation_of(proposal=[1.0, 1.2, 1.1], natural=[2.0, 2.2, 2.1]).frame()
    assert frame["mixture"].to_list() == ["proposal", "natural"]
    assert frame["objective"].to_list() == pytest.approx([1.1, 2.1])
    assert frame["gain"].to_list() == [None, pytest.approx(1.0)]
    assert frame["bpb/help"].to_list() == pytest.approx([1.1, 2.1])


def trial_with(seed):
    return Trials.from_results([Trial("t", NATURAL, seed)], [result_of("t", 1.0)], proxy="ngram")


def test_each_mixture_is_trained_with_each_seed_in_turn_and_once_for_two_names():
    plan = ValidationPlan({}, [7, 8]).add({"proposal": PROPOSED, "natural": NATURAL}, 2)
    assert [(trial.name, trial.seed) for trial in plan.trials] == [
        *(("proposal-s0", 7), ("natural-s0", 7), ("proposal-s1", 8), ("natural-s1", 8))
    ]
    assert {trial.role for trial in plan.trials} == {"validation"}
    assert plan.trials[1].mixture == NATURAL
    plan = ValidationPlan({}, [7]).add({"natural": NATURAL, "uniform": NATURAL}, 1)
    assert [trial.name for trial in plan.trials] == ["natural-s0"]
    results = plan.named_results([result_of(plan.trials[0].name, 3.0)])
    assert [result.trial for result in results] == ["natural-s0", "uniform-s0"]
    assert results[1].losses == results[0].losses


def test_seeds_are_fresh_and_looks_add_half_of_the_first_ones():
    first = fresh_seeds(trial_with(1), 3, seed=0)
    assert fresh_seeds(trial_with(1), 6, seed=0)[:3] == first
    assert first[0] not in fresh_seeds(trial_with(first[0]), 6, seed=0)
    assert first == [194557229, 1850713511, 738208508]  # so that a validation resumes
    assert fresh_seeds(trial_with(1), 3, seed=1) != first
    found = [looks(*seeds) for seeds in ((4, 8), (3, 6), (3, 3), (4, 5))]
    assert found == [(4, 6, 8), (3, 5, 6), (3,), (4, 5)]


@pytest.mark.parametrize("at", [(3, 5, 6), (4, 6, 8)])
def test_the_chance_that_any_interval_misses_is_one_in_twenty(at):
    level, rng = nominal_level(at), np.random.default_rng(3)
    missed = 0
    for _ in range(4_000):
        noise_S = rng.standard_normal(at[-1])
        pairs = [paired_interval(noise_S[:count], level) for count in at]
        missed += any(abs(mean) > half for mean, half in pairs)
    # Three standard errors of a share of 0.05 in 4,000.
    assert missed / 4_000 == pytest.approx(0.05, abs=0.0104)
