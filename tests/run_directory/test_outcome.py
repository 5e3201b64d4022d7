"""What a run stands for has one answer or is refused; its experts are one table."""

import numpy as np
import pytest
import yaml
from made_experts import counted

from mixopt.errors import EditedWarning, RunError
from mixopt.pipeline import status
from mixopt.routing import ExpertCounts
from mixopt.run_directory import Run, TrialExperts, load_run, verify_run
from mixopt.system import write_table
from mixopt.trials import TrialResult


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


EVEN = np.full((2, 4), 1000)
CROWDED = np.tile([2200, 600, 600, 600], (2, 1))
APART = np.array([[2000, 2000, 0, 0], [0, 0, 2000, 2000]])
ONE = np.tile([4000, 0, 0, 0], (2, 1))


def result(name, layers):
    assignments = counted(layers)
    held_out = counted([APART, EVEN][: len(layers)])
    return TrialResult(name, "finished", 10, 5, 1.0, experts=ExpertCounts(assignments, held_out))


PLAIN = TrialResult("plain", "failed", 10, 5, 1.0, reason="out of memory")
TABLE = TrialExperts.of([result("a", [EVEN, CROWDED]), PLAIN, result("b", [EVEN, ONE])])


def test_a_trial_has_a_row_a_layer_and_one_a_domain_in_it():
    assert TABLE.table.height == 2 * (2 + 2 * 2)
    layers = TABLE.table.filter(TABLE.table["domain"].is_null())
    assert layers.select("trial", "layer").rows() == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert layers["specialisation"].to_list() == pytest.approx([1.0, 0.0] * 2)
    assert layers["has_collapsed"].to_list() == [False, False, False, True]
    domains = TABLE.table.filter(~TABLE.table["domain"].is_null())
    assert domains["share"].to_list() == [0.5] * 8
    assert domains["own"].null_count() == domains["distance"].null_count() == 0
    assert domains["has_collapsed"].null_count() == 8


def test_a_row_a_trial_has_the_worst_load_of_its_layers_and_the_first_collapse():
    first, second = TABLE.by_trial().to_dicts()
    layers = TABLE.table.filter(TABLE.table["domain"].is_null())
    entropy, violation = layers["load_entropy"].to_list(), layers["max_violation"].to_list()
    assert entropy[0] > entropy[1] > entropy[3]
    assert violation[0] < violation[1] < violation[3]
    assert (first["load_entropy"], first["max_violation"]) == (entropy[1], violation[1])
    assert (second["load_entropy"], second["max_violation"]) == (entropy[3], violation[3])
    assert (first["dead"], second["dead"]) == (0, 3)
    assert first["specialisation"] == pytest.approx(0.5)
    assert (first["has_collapsed"], second["has_collapsed"]) == (False, True)
    assert first["collapse"] is None
    assert second["collapse"].startswith("layer 1: collapse: expert 0")
    found = [len(said) for said in layers["diagnoses"]]
    assert (first["diagnoses"], second["diagnoses"]) == (sum(found[:2]), sum(found[2:]))


def test_trials_that_collapsed_are_named_once_each():
    twice = TrialExperts.of([result("b", [ONE, ONE]), result("a", [EVEN]), result("c", [ONE])])
    assert twice.collapsed == ("b", "c")


def test_a_table_is_read_as_it_was_written_and_none_where_no_trial_has_experts(tmp_path):
    path = tmp_path / "experts.parquet"
    assert TrialExperts.of([PLAIN]) is None
    assert TrialExperts.read(path) is None
    write_table(path, TABLE.table)
    assert TrialExperts.read(path).table.equals(TABLE.table)
    path.write_bytes(b"no table")
    with pytest.raises(RunError, match=r"experts\.parquet: cannot be read"):
        TrialExperts.read(path)
