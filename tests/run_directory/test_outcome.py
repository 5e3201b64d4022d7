"""What a run stands for has one answer or is refused; in a line it says which steps are done."""

import pytest
import yaml

from mixopt.errors import EditedWarning, RunError
from mixopt.pipeline import status
from mixopt.run_directory import Run, load_run, verify_run


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
    with pytest.raises(RunError, match=r"recommendation\.yaml: has .*: mixopt run .* --until v"):
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


def test_a_run_counts_its_steps_and_of_a_damaged_one_says_what_is_wrong(copied, tmp_path):
    run = load_run(copied)
    assert repr(run) == f"Run({str(copied)!r}: 7 of 7 steps done)"
    assert repr(Run(tmp_path / "new", run.config)).endswith(": 0 of 7 steps done)")
    (copied / "trials.parquet").write_bytes(b"damaged")
    assert "6 of 7 steps done" in repr(run)
    (copied / "steps.json").write_text("[]")
    assert "steps.json" in repr(Run(copied, run.config))


def test_what_a_run_made_says_in_a_line_what_it_is_and_has_few_names(finished):
    run = load_run(finished)
    assert repr(run.fit).startswith("Fit('skills': 12 trials, 2 domains, ")
    assert repr(run.trials).startswith("Trials(12 finished; 2 domains, ")
    for result in (run.fit, run.trials, run.proposal, run.validation, run.recommendation):
        assert repr(result).startswith(f"{type(result).__name__}(")
        assert "\n" not in repr(result)
    assert len([name for name in dir(run) if not name.startswith("_")]) <= 25
