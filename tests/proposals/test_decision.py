"""What is recommended follows what validation has shown, and says why."""

from dataclasses import replace

import numpy as np
import pytest
from made_fit import fitted, table, with_objective
from made_proposal import made_proposal
from made_validation import DOMAINS, MIXTURES, OBJECTIVE, TARGETS, made_validation

from mixopt.baselines import FullRun
from mixopt.config import ConstraintsConfig
from mixopt.constraints import Constraints, Guardrails
from mixopt.difference import Difference
from mixopt.errors import EditedWarning, MixtureError
from mixopt.mixture import Mixture, largest_shares
from mixopt.proposals import Decision, Recommendation, Region, guarded, with_validated

SIZES = {"code": 8_000, "prose": 2_000}
BASES = {"natural": [2.0, 2.1, 2.2], "uniform": [2.2, 2.3, 2.4], "best_trial": [1.9, 2.0, 2.1]}

LESS = "\N{MINUS SIGN}"


SHARE_N1 = np.linspace(0, 1, 9)[:, None]
LOSSES_NM = np.hstack([3.0 + SHARE_N1, 4.0 - SHARE_N1, 4.0 - SHARE_N1])
TRIALS = table(np.hstack([1 - SHARE_N1, SHARE_N1]), LOSSES_NM, DOMAINS, TARGETS, [(1, 5)])


FIT = fitted("linear", trials=TRIALS, folds=3, goal=OBJECTIVE)


def recommended(validation, proposals=(), fit=FIT, **limits):
    allowed = Constraints.from_config(ConstraintsConfig(**limits), SIZES)
    decision = Decision(validation, dict(proposals), fit, allowed, FullRun(SIZES), 10)
    return decision.recommend()


def decide(values, others=None, **limits):
    return recommended(made_validation(values, others), **limits)


LOST, WON, TIED = [2.5, 2.6, 2.7], [1.0, 1.1, 1.2], [1.95, 2.05, 2.15]
BETTER, CLOSE, OTHER = "significantly better", "better on the mean", "not the proposal"
LOSS = f"{LESS}0.6000 bits per byte (95% {LESS}0.6000 to {LESS}0.6000)."


@pytest.mark.parametrize(
    ("proposal", "code", "chosen", "standing", "words"),
    [
        (WON, (0, 1), "proposal", BETTER, "It is significantly better than natural, uniform and"),
        ([1.7, 1.9, 2.1], (0, 1), "proposal", CLOSE, "better on the mean than natural and the bes"),
        (LOST, (0, 1), "best_trial", OTHER, "The best trial has the lowest validated loss of the"),
        (LOST, (0, 1), "best_trial", OTHER, f"worse: gain over the best trial {LOSS}"),
        ([2.2, 1.9, 2.05], (0, 1), "best_trial", OTHER, "The proposal is not significantly better"),
        (LOST, (0.5, 1), "natural", OTHER, "lowest validated loss of the baselines that are allow"),
        (LOST, (0.6, 1), "natural", OTHER, "Natural is the only baseline allowed. The proposal"),
        (LOST, (0.2, 0.4), "proposal", "undecided", "The constraints allow none of the baselines."),
        (TIED, (0, 1), "best_trial", OTHER, "significantly worse"),
        (TIED, (0.2, 1), "proposal", BETTER, "significantly better than natural and uniform"),
        ([1.0, None, None], (0, 1), "natural", "undecided", "Too few runs finished to compare the"),
    ],
)
def test_the_recommendation_follows_the_intervals(proposal, code, chosen, standing, words):
    found = decide({"proposal": proposal, **BASES}, bounds={"code": code})
    assert (found.chosen, found.standing) == (chosen, standing)
    assert found.mixture == MIXTURES[chosen]
    assert words in found.why
    assert found.headline.startswith("Recommendation: ")


def test_one_baseline_none_and_a_later_proposal_are_called_so():
    single = decide({"proposal": LOST, "natural": [2.0, 2.1, 2.2]})
    assert single.why.startswith(
        "Natural is the only baseline. The proposal is significantly worse:"
    )
    alone = decide({"proposal": WON})
    assert (alone.chosen, alone.standing) == ("proposal", "undecided")
    same = {"proposal": [2.0, 2.1], "natural": [2.1, 2.2], "twin": [2.0, 2.1]}
    assert "It is significantly better than natural, and is the same mixture as twin (2" in (
        decide(same).why
    )
    later = decide({"proposal": LOST, "proposal_2": WON, **BASES})
    assert (later.chosen, later.standing) == ("proposal_2", "significantly better")
    assert later.headline.startswith("Recommendation: proposal 2. It is significantly better than")
    assert later.gains["proposal"].verdict == "better"


def test_baselines_are_ranked_on_the_seeds_that_all_of_them_finished():
    lucky = {"natural": [1.0, 2.0, 2.0], "uniform": [None, 1.9, 1.9]}
    found = decide({"proposal": LOST, **lucky})
    assert found.chosen == "uniform"


def test_a_baseline_beyond_a_limit_is_passed_over_and_said():
    found = decide({"proposal": LOST, **BASES}, bounds={"code": [0.3, 1.0]})
    assert found.chosen == "natural"
    assert found.warnings[0].startswith(
        "the best trial has a better mean and is not recommended: it breaks a limit: domain"
    )
    assert ".." not in found.warnings[0]


def test_a_proposal_that_breaks_a_guardrail_gives_way_or_has_a_warning_where_that_is_not_shown():
    values, rails = {"proposal": WON, **BASES}, {"reference": "natural", "margin": 0.1}
    found = decide(values, {"proposal": 1.5}, guardrails=rails)
    assert found.chosen == "best_trial"
    ends = f"{LESS}0.5000 to {LESS}0.5000"
    said = f"breaks the guardrail on code: gain over natural {LESS}0.5000 (95% {ends}), allowed"
    assert f"{said} {LESS}0.1" in found.why
    assert decide(values, {"proposal": 0.5}, guardrails=rails).chosen == "proposal"
    values = {"proposal": [1.0, 1.1, 1.2], "natural": [2.0, 2.3, 2.0]}
    found = decide(values, {"proposal": 1.15}, guardrails=rails)
    assert found.chosen == "proposal"
    said = f"it may break the guardrail on code: gain over natural {LESS}0.15"
    assert found.warnings[0].startswith(said)


def test_guardrails_hold_what_was_measured_of_a_checkpoint_and_none_without_their_reference():
    found = made_validation({"proposal": [2.0, 2.1], "natural": [2.2, 2.4]})
    base = {"code": 2.0, "prose": 9.0, "help": 9.0}
    rails = Guardrails("base", targets={"code": 0.1}, base=base)
    (guard,) = guarded(found, rails, "proposal")
    assert (guard.target, guard.reference, guard.margin) == ("code", "base", 0.1)
    assert (guard.difference.mean, guard.difference.pairs) == (pytest.approx(-0.05), 2)
    (guard,) = guarded(found, Guardrails("natural", floors={"code": 1.5}), "proposal")
    assert str(guard).startswith(f"code: gain over the floor {LESS}0.5500 (95%")
    assert str(guard).endswith(", allowed 0")
    assert guarded(found, Guardrails("uniform", 0.1), "proposal") == []
    assert guarded(found, None, "proposal") == []
    assert guarded(found, Guardrails("natural", 0.1), "natural") == []


def test_gains_are_above_0_where_it_is_better_and_other_losses_below_0_where_it_costs():
    found = decide({"proposal": WON, **BASES}, {"proposal": 1.5})
    gain = found.gains["natural"]
    assert gain.mean == pytest.approx(1.0)
    assert (gain.pairs, gain.verdict, gain.tokens, gain.unit) == (3, "better", 10, "bits_per_byte")
    # The linear law loses a nat from all code to all prose, and they are half of that apart.
    predicted = found.predicted_gains["natural"]
    assert predicted.mean == pytest.approx(0.5, abs=1e-6)
    assert (predicted.pairs, predicted.tokens) == (None, 5)
    assert list(found.other_losses) == ["code", "prose"]
    assert found.other_losses["code"].mean == pytest.approx(-0.5)
    worse = decide({"proposal": [3.0, 3.1, 3.2], "natural": BASES["natural"]})
    assert worse.other_losses == {}


def test_the_mixtures_that_are_as_good_are_those_within_noise_of_what_is_recommended():
    found = decide({"proposal": LOST, **BASES}, bounds={"code": [0.15, 1.0]})
    low, high = found.region.shares["prose"]
    best, least = (
        FIT.predict({"code": 1 - share, "prose": share}).objective_N[0]
        for share in (found.mixture["prose"], low)
    )
    assert least - best == pytest.approx(found.region.noise, rel=0.1, abs=1e-3)
    assert high == pytest.approx(0.85)
    assert found.why.endswith(found.region.describe("bits_per_byte"))


def test_a_recommendation_is_read_as_it_was_written(tmp_path):
    found = decide({"proposal": WON, **BASES}, {"proposal": 1.5})
    path = tmp_path / "recommendation.yaml"
    found.to_file(path)
    assert Recommendation.from_file(path) == found
    assert Mixture.from_file(path) == found.mixture
    shares = largest_shares(found.mixture)
    assert repr(found) == f"Recommendation(proposal: {shares}; significantly better)"


def test_what_a_proposal_says_of_itself_counts_before_what_the_fit_says_now():
    said = Difference(0.3, 0.2, 0.4, 0.9, "bits_per_byte")
    region = Region(0.25, "seeds", {"code": (0.1, 0.4), "prose": (0.6, 0.9)})
    proposal = made_proposal(mixture=MIXTURES["proposal"], gains={"natural": said}, region=region)
    validation = made_validation({"proposal": WON, **BASES})
    found = recommended(validation, {"proposal": proposal})
    assert (found.predicted_gains["natural"], found.region) == (said, region)
    assert found.predicted_gains["uniform"] != said
    assert found.provenance["proposals"] == {"proposal": MIXTURES["proposal"].fingerprint}


def test_an_edited_recommendation_is_a_mixture_of_ones_own(tmp_path):
    path = tmp_path / "recommendation.yaml"
    decide({"proposal": WON, **BASES}).to_file(path)
    path.write_text(path.read_text().replace("prose: 0.7", "prose: 0.6").replace("0.3", "0.4"))
    with pytest.warns(EditedWarning):
        assert Mixture.from_file(path)["prose"] == 0.6
    refused = pytest.raises(MixtureError, match="read it as your own mixture")
    with pytest.warns(EditedWarning), refused:
        Recommendation.from_file(path)
    path.write_text("weights: {code: 0.5, prose: 0.5}\n")
    with pytest.raises(MixtureError, match="is a mixture but not a recommendation"):
        Recommendation.from_file(path)


def test_runs_of_a_proposal_join_the_trials_at_the_trials_length():
    # Validation is longer: all its losses lie 0.5 below what the law says at the trials' length.
    names = ("proposal", "natural", "uniform")
    validation = made_validation({name: [3.5 - MIXTURES[name]["prose"]] * 2 for name in names})
    joined = with_validated(TRIALS, validation, FIT)
    row = joined.table.row(len(TRIALS), named=True)
    assert (row["trial"], row["tokens"]) == ("proposal-s0", 5)
    assert row["bpb/help"] == pytest.approx(4.0 - 0.7)
    assert joined.losses("bits_per_byte").shape == (len(TRIALS) + 2, len(TARGETS))


def test_the_objective_of_a_decision_may_be_better_higher():
    validation = made_validation({"proposal": [3.0, 3.1, 3.2], "natural": [2.0, 2.1, 2.2]})
    higher = replace(OBJECTIVE, higher=("help",))
    validation = replace(validation, objective=higher)
    found = recommended(validation, fit=with_objective(FIT, higher))
    assert found.chosen == "proposal"
    assert (found.better, validation.mean("proposal")) == ("higher", pytest.approx(3.1))
    assert found.predicted_gains["natural"].mean == pytest.approx(-0.5, abs=1e-6)
    assert found.gains["natural"].mean == pytest.approx(1.0)
    assert (found.unit, found.objective) == ("metric_units", "help (higher is better)")
