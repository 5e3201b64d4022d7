"""What a run stands for has one answer: validated, not validated, edited; or it is refused."""

import pytest
import yaml

from mixopt.errors import EditedWarning, RunError
from mixopt.pipeline import status
from mixopt.run_directory import load_run, verify_run


def states(path):
    """How a step stands, as status and verify say it."""
    run = load_run(path)
    steps = status(run)["steps"]
    parts = {part.name: part.state for part in verify_run(run)}
    return steps["validate"]["state"], parts["validate"]


def test_a_validated_run_stands_for_its_recommendation(finished):
    outcome = load_run(finished).outcome
    assert (outcome.state, outcome.note) == ("validated", "")
    assert outcome.result == load_run(finished).recommendation
    assert states(finished) == ("done", "whole")


def test_a_run_that_is_not_validated_stands_for_its_proposal_and_says_so(copied):
    load_run(copied).log.discard("validate")
    outcome = load_run(copied).outcome
    assert outcome.state == "not validated"
    assert outcome.note.startswith("the proposal is not validated against baselines yet: mixopt ")
    assert outcome.result.mixture == load_run(copied).proposal.mixture
    assert states(copied) == ("waiting", "waiting")


def test_an_edited_recommendation_is_refused_and_its_proposal_is_not_taken_for_it(copied):
    path = copied / "recommendation.yaml"
    path.write_text(path.read_text().replace("weights:", "weights: # mine", 1))
    with pytest.raises(
        RunError, match=r"recommendation\.yaml: has .*: mixopt run .* --until validate"
    ):
        _ = load_run(copied).outcome
    assert states(copied) == ("damaged", "damaged")


def edit_proposal(path):
    content = yaml.safe_load((path / "proposal.yaml").read_text())
    content["weights"] = dict.fromkeys(content["weights"], 1 / len(content["weights"]))
    (path / "proposal.yaml").write_text(yaml.safe_dump(content))


def test_a_recommendation_of_another_proposal_is_refused(copied):
    edit_proposal(copied)
    with pytest.raises(RunError, match=r"is for another mixture than proposal\.yaml"):
        _ = load_run(copied).outcome
    assert states(copied) == ("outdated", "outdated")


def test_an_edited_proposal_without_a_validation_is_the_user_s_own(copied):
    load_run(copied).log.discard("validate")
    edit_proposal(copied)
    with pytest.warns(EditedWarning, match="as a mixture of your own"):
        outcome = load_run(copied).outcome
    assert outcome.state == "edited"
    assert "proposal.yaml was edited" in outcome.note
    assert set(dict(outcome.result.mixture).values()) == {0.5}
