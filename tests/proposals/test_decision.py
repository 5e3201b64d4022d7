"""What is recommended follows what validation has shown, and says why."""

from dataclasses import replace

import numpy as np
import pytest

from mixopt.config import ConstraintsConfig, FitConfig
from mixopt.constraints import Constraints
from mixopt.errors import EditedWarning, MixtureError
from mixopt.fitting import fit_trials
from mixopt.mixture import Mixture
from mixopt.proposals import Decision, FullRun, Recommendation, with_validated
from mixopt.trials import Losses, Trial, TrialResult, Trials
from tests.support.made_validation import MIXTURES, OBJECTIVE, TARGETS, made_validation

SIZES = {"code": 8_000, "prose": 2_000}
BASES = {"natural": [2.0, 2.1, 2.2], "uniform": [2.2, 2.3, 2.4], "best_trial": [1.9, 2.0, 2.1]}

LESS = "\N{MINUS SIGN}"


def sweep_trials():
    trials, results = [], []
    for row, share in enumerate(np.linspace(0, 1, 9)):
        trials.append(Trial(f"t{row}", Mixture({"code": 1 - share, "prose": share}), row))
        losses = dict.fromkeys(TARGETS, 4.0 - share) | {"code": 3.0 + share}
        result = TrialResult(f"t{row}", "finished", 5, 1, 0.0, Losses(5, losses, losses))
        results.append(result)
    return Trials.from_results(trials, results, proxy="ngram")


@pytest.fixture(scope="module")
def fit():
    return fit_trials(sweep_trials(), FitConfig(regressors=["linear"], folds=3), OBJECTIVE, 0)


def limits(**fields):
    config = ConstraintsConfig(**fields)
    return Constraints.from_config(config, inventory=SIZES, target_tokens=None)


@pytest.fixture(scope="module")
def decide(fit):
    def recommend(values, others=None, **fields):
        validation = made_validation(values, others)
        return Decision(validation, {}, fit, limits(**fields), FullRun(SIZES), 10).recommend()

    return recommend


def test_a_proposal_that_wins_against_all_is_recommended_as_significantly_better(decide):
    found = decide({"proposal": [1.0, 1.1, 1.2], **BASES})
    assert (found.chosen, found.standing) == ("proposal", "significantly better")
    assert found.mixture == MIXTURES["proposal"]
    assert found.headline.startswith(
        "Recommendation: the proposal. It is significantly better than natural, uniform and the "
        "best trial (3 seeds, paired 95% intervals). Predicted as good, up to the error on held-out"
    )


def test_a_proposal_that_ties_and_is_better_on_the_mean_is_recommended_as_that(decide):
    found = decide({"proposal": [1.7, 1.9, 2.1], **BASES})
    assert (found.chosen, found.standing) == ("proposal", "better on the mean")
    assert "significantly better than uniform" in found.why
    assert (
        "better on the mean than natural and the best trial, but the difference is not" in found.why
    )


def test_a_proposal_that_loses_gives_way_to_the_best_of_the_others(decide):
    found = decide({"proposal": [2.5, 2.6, 2.7], **BASES})
    assert (found.chosen, found.standing) == ("best_trial", "not the proposal")
    assert found.headline.startswith(
        "Recommendation: the best trial. The best trial has the lowest validated loss of the"
        " baselines. The proposal is significantly worse: gain over the best trial"
        f" {LESS}0.6000 bits per byte (95% {LESS}0.6000 to {LESS}0.6000)."
    )
    assert found.mixture == MIXTURES["best_trial"]


def test_a_proposal_that_ties_and_is_worse_on_the_mean_gives_way(decide):
    found = decide({"proposal": [2.2, 1.9, 2.05], **BASES})
    assert found.chosen == "best_trial"
    said = f"The proposal is not significantly better: gain over the best trial {LESS}0.05"
    assert said in found.why


def test_the_only_baseline_that_is_left_is_called_so(decide):
    one = decide({"proposal": [2.5, 2.6, 2.7], "natural": [2.0, 2.1, 2.2]})
    assert one.why.startswith("Natural is the only baseline. The proposal is significantly worse:")
    bounds = {"code": (0.5, 1.0)}
    found = decide({"proposal": [2.5, 2.6, 2.7], **BASES}, bounds=bounds)
    assert found.why.startswith("Natural has the lowest validated loss of the baselines that are")
    alone = decide({"proposal": [2.5, 2.6, 2.7], **BASES}, bounds={"code": (0.6, 1.0)})
    assert alone.why.startswith("Natural is the only baseline allowed. The proposal")


def test_the_later_proposal_is_recommended_where_it_is_better(decide):
    found = decide({"proposal": [2.5, 2.6, 2.7], "proposal_2": [1.0, 1.1, 1.2], **BASES})
    assert (found.chosen, found.standing) == ("proposal_2", "significantly better")
    assert found.headline.startswith(
        "Recommendation: proposal 2. It is significantly better than natural"
    )
    assert found.gains["proposal"].verdict == "better"


def test_a_baseline_beyond_a_limit_is_passed_over_and_said(decide):
    losing = {"proposal": [2.5, 2.6, 2.7], **BASES}
    found = decide(losing, bounds={"code": [0.3, 1.0]})
    assert found.chosen == "natural"
    assert found.warnings[0].startswith(
        "the best trial has a lower mean and is not recommended: it breaks a limit: domain"
    )
    assert ".." not in found.warnings[0]


def test_where_no_baseline_is_allowed_the_proposal_stays_undecided(decide):
    found = decide({"proposal": [2.5, 2.6, 2.7], **BASES}, bounds={"code": [0.2, 0.4]})
    assert (found.chosen, found.standing) == ("proposal", "undecided")
    assert found.why.startswith("The constraints allow none of the baselines. Predicted")


def test_a_baseline_that_is_not_allowed_does_not_keep_a_proposal_back(decide):
    values = {"proposal": [1.95, 2.05, 2.15], **BASES}
    assert decide(values).chosen == "best_trial"
    assert decide(values, bounds={"code": [0.2, 1.0]}).chosen == "proposal"


def test_a_proposal_that_is_shown_to_break_a_guardrail_gives_way(decide):
    values, worse = {"proposal": [1.0, 1.1, 1.2], **BASES}, {"proposal": 1.5}
    rails = {"reference": "natural", "margin": 0.1}
    found = decide(values, worse, guardrails=rails)
    assert found.chosen == "best_trial"
    ends = f"{LESS}0.5000 to {LESS}0.5000"
    said = f"breaks the guardrail on code: gain over natural {LESS}0.5000 (95% {ends}), allowed"
    assert f"{said} {LESS}0.1" in found.why
    assert decide(values, {"proposal": 0.5}, guardrails=rails).chosen == "proposal"


def test_a_guardrail_that_may_be_broken_is_a_warning(decide):
    values = {"proposal": [1.0, 1.1, 1.2], "natural": [2.0, 2.3, 2.0]}
    found = decide(values, {"proposal": 1.15}, guardrails={"reference": "natural", "margin": 0.1})
    assert found.chosen == "proposal"
    assert found.warnings[0].startswith(
        f"it may break the guardrail on code: gain over natural {LESS}0.15"
    )


def test_too_few_runs_are_undecided(decide):
    found = decide({"proposal": [1.0, None, None], **BASES})
    assert (found.chosen, found.standing) == ("natural", "undecided")
    assert found.why.startswith("Too few runs finished to compare the proposal")
    alone = decide({"proposal": [1.0, 1.1, 1.2]})
    assert (alone.chosen, alone.standing) == ("proposal", "undecided")


def test_gains_are_above_0_where_the_recommended_mixture_is_better(decide):
    gain = decide({"proposal": [1.0, 1.1, 1.2], **BASES}).gains["natural"]
    assert gain.validated.value == pytest.approx(1.0)
    assert (gain.seeds, gain.verdict) == (3, "better")
    # The linear law loses a nat from all code to all prose, and they are half of that apart.
    assert gain.predicted.value == pytest.approx(0.5, abs=1e-6)


def test_costs_are_what_the_objective_does_not_measure_the_worst_first(decide):
    found = decide({"proposal": [1.0, 1.1, 1.2], **BASES}, {"proposal": 1.5})
    assert list(found.costs) == ["code", "prose"]
    assert found.costs["code"].value == pytest.approx(0.5)
    assert decide({"proposal": [3.0, 3.1, 3.2], "natural": BASES["natural"]}).costs == {}


def test_the_mixtures_that_are_as_good_are_those_within_noise_of_what_is_recommended(decide, fit):
    found = decide({"proposal": [2.5, 2.6, 2.7], **BASES}, bounds={"code": [0.15, 1.0]})
    low, high = found.region.shares["prose"]
    own, least = (
        fit.predict({"code": 1 - share, "prose": share}).objective_N[0]
        for share in (found.mixture["prose"], low)
    )
    assert least - own == pytest.approx(found.region.noise, rel=0.1, abs=1e-3)
    assert high == pytest.approx(0.85)
    assert found.why.endswith(found.region.describe())


def test_a_recommendation_is_read_as_it_was_written(decide, tmp_path):
    found = decide({"proposal": [1.0, 1.1, 1.2], **BASES}, {"proposal": 1.5})
    path = tmp_path / "recommendation.yaml"
    found.to_file(path)
    assert Recommendation.from_file(path) == found
    assert Mixture.from_file(path) == found.mixture


def test_an_edited_recommendation_is_a_mixture_of_ones_own(decide, tmp_path):
    path = tmp_path / "recommendation.yaml"
    decide({"proposal": [1.0, 1.1, 1.2], **BASES}).to_file(path)
    path.write_text(path.read_text().replace("prose: 0.7", "prose: 0.6").replace("0.3", "0.4"))
    with pytest.warns(EditedWarning):
        assert Mixture.from_file(path)["prose"] == 0.6
    with (
        pytest.warns(EditedWarning),
        pytest.raises(MixtureError, match="read it as your own mixture"),
    ):
        Recommendation.from_file(path)
    path.write_text("weights: {code: 0.5, prose: 0.5}\n")
    with pytest.raises(MixtureError, match="is a mixture but not a recommendation"):
        Recommendation.from_file(path)


def test_runs_of_a_proposal_join_the_trials_at_the_trials_length(fit):
    # Validation is longer: all its losses lie 0.5 below what the law says at the trials' length.
    def law(name):
        share = MIXTURES[name]["prose"]
        return 4.0 - share - 0.5

    names = ("proposal", "natural", "uniform")
    validation = made_validation({name: [law(name)] * 2 for name in names})
    trials = sweep_trials()
    joined = with_validated(trials, validation, fit)
    assert len(joined) == len(trials) + 2
    row = joined.table.row(len(trials), named=True)
    assert row["trial"] == "proposal-s0"
    assert row["bpb/help"] == pytest.approx(4.0 - 0.7)
    assert row["tokens"] == trials.table["tokens"].max()
    assert joined.losses("bits_per_byte").shape == (len(trials) + 2, len(TARGETS))


def test_the_objective_of_a_decision_may_be_better_higher(fit):
    values = {"proposal": [3.0, 3.1, 3.2], "natural": [2.0, 2.1, 2.2]}
    validation = made_validation(values)
    higher = replace(OBJECTIVE, higher=("help",))
    validation = replace(validation, objective=higher)
    found = Decision(validation, {}, fit, limits(), FullRun(SIZES), 10).recommend()
    assert found.chosen == "proposal"
    assert found.gains["natural"].validated.value == pytest.approx(1.0)
