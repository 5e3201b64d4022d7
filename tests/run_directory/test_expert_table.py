"""The experts of a sweep's trials as one table."""

import numpy as np
import pytest
from made_experts import counted

from mixopt.errors import RunError
from mixopt.routing import ExpertCounts
from mixopt.run_directory import TrialExperts
from mixopt.system import write_table
from mixopt.trials import TrialResult

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
