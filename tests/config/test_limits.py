"""Bounds as people write them, and a user's changes to the limits of a run."""

from mixopt.config import ConstraintsConfig, read_constraints
from mixopt.constraints import Constraints

DOMAINS = ("web", "code", "tex")


def bounds(**fields):
    return ConstraintsConfig(**fields).bounds_of(DOMAINS)


def test_a_glob_is_of_every_domain_that_no_name_overrides():
    found = bounds(bounds={"*": [0.05, 1], "tex": [0, 0.2]})
    assert found == {"web": (0.05, 1), "code": (0.05, 1), "tex": (0, 0.2)}


def test_a_dropped_domain_gets_nothing():
    config = ConstraintsConfig(bounds={"*": [0.05, 1]}, drop=["tex"])
    allowed = Constraints.from_config(config, dict.fromkeys(DOMAINS, 10))
    assert allowed.upper_D.tolist() == [1.0, 1.0, 0.0]
    assert allowed.lower_D.tolist() == [0.05, 0.05, 0.0]


def test_changes_keep_the_other_limits_of_the_run():
    own = ConstraintsConfig(max_epochs=4, guardrails="natural", bounds={"web": [0, 0.3]})
    found = own.with_changes(ConstraintsConfig(bounds={"*": [0.05, 1]}), DOMAINS)
    assert (found.max_epochs, found.guardrails) == ({"*": 4}, own.guardrails)
    assert found.bounds == {"web": (0.05, 0.3), "code": (0.05, 1), "tex": (0.05, 1)}


def test_a_bound_that_is_named_replaces_the_one_of_the_run():
    own = ConstraintsConfig(bounds={"web": [0, 0.3]}, max_epochs=4)
    changes = ConstraintsConfig(bounds={"web": [0.2, 0.8]}, max_epochs=8)
    found = own.with_changes(changes, DOMAINS)
    assert (found.bounds, found.max_epochs) == ({"web": (0.2, 0.8)}, {"*": 8})


def test_a_file_may_have_its_limits_below_the_section_s_name(tmp_path):
    path = tmp_path / "limits.yaml"
    path.write_text("constraints: {bounds: {'*': [0.05, 1]}}\n")
    assert read_constraints(path) == ConstraintsConfig(bounds={"*": [0.05, 1]})
