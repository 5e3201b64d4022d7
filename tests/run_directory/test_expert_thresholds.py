"""Thresholds of the YAML say which trials' experts collapsed: in tables, reports and guardrails."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_experts import counted

import mixopt
from mixopt.config import dump_config, load_config
from mixopt.config.experiment import ThresholdsConfig
from mixopt.errors import ConfigError
from mixopt.mixture import Mixture
from mixopt.reporting import ExpertOptions
from mixopt.routing import ExpertCounts, Thresholds
from mixopt.run_directory import TrialExperts, collapsed_trials, write_experts
from mixopt.sweeps import TrialFolder
from mixopt.trials import Losses, Trial, TrialResult

EXPERIMENT = {
    "corpus": {"domains": {"d0": {"path": "a.txt"}, "d1": {"path": "b.txt"}}},
    "objective": {"target": "d0"},
}
STRICT = {"busiest": 1.4}


def loaded(tmp_path: Path, **experts):
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump({**EXPERIMENT, **({"experts": experts} if experts else {})}))
    return load_config(path)


def result_of(name: str, busiest: float) -> TrialResult:
    """Return a trial whose busiest expert of four has so many times the even load."""
    load_E = np.array([busiest, *[(4 - busiest) / 3] * 3])
    train = counted([np.stack([2000 * load_E] * 2).round().astype(int)])
    each = {"d0": 1.0, "d1": 1.0}
    losses = Losses(1000, each, each)
    return TrialResult(name, "finished", 1000, 42, 2.0, losses, experts=ExpertCounts(train, train))


@pytest.fixture
def run(tmp_path) -> Path:
    """A directory with trials at 1.1, 1.5 and 4 times the even load, and their table of before."""
    results = [result_of("t0", 1.1), result_of("t1", 1.5), result_of("t2", 4.0)]
    trials = [Trial(one.trial, Mixture({"d0": 0.5, "d1": 0.5}), seed=7) for one in results]
    path = tmp_path / "run"
    TrialFolder(path / "trials").write(trials, results)
    write_experts(results, path / "experts.parquet")
    return path


def test_thresholds_of_the_yaml_are_those_that_there_are():
    assert list(ThresholdsConfig.model_fields) == [field.name for field in fields(Thresholds)]


def test_thresholds_that_are_not_given_leave_no_trace_in_the_configuration(tmp_path):
    assert "experts" not in dump_config(loaded(tmp_path))
    given = loaded(tmp_path, thresholds=STRICT)
    assert given.expert_thresholds == STRICT
    assert dump_config(given)["experts"] == {"thresholds": STRICT}


@pytest.mark.parametrize(
    ("thresholds", "said"),
    [
        ({"busyest": 2}, "experts.thresholds.busyest: unknown field; did you mean 'busiest'?"),
        ({"dead": 1.5}, "experts.thresholds.dead: "),
        ({"busiest": 0.5}, "experts.thresholds.busiest: "),
        ({"busiest": True}, "experts.thresholds.busiest: "),
        ({"assignments": -1}, "experts.thresholds.assignments: "),
    ],
)
def test_a_threshold_that_cannot_be_is_an_error_before_anything_is_trained(
    tmp_path, thresholds, said
):
    with pytest.raises(ConfigError) as error:
        loaded(tmp_path, thresholds=thresholds)
    assert said in str(error.value)


def test_a_table_is_by_the_thresholds_that_are_given(tmp_path):
    results = [result_of("t0", 1.1), result_of("t1", 1.5), result_of("t2", 4.0)]
    usual, strict = TrialExperts.of(results), TrialExperts.of(results, Thresholds(**STRICT))
    assert usual is not None
    assert strict is not None
    assert usual.collapsed == ("t2",)
    assert strict.collapsed == ("t1", "t2")


def test_guardrails_keep_away_from_trials_by_the_thresholds_of_now(run):
    assert collapsed_trials(run) == ("t2",)
    assert collapsed_trials(run, STRICT) == ("t1", "t2")


def test_the_experts_of_a_sweep_are_told_by_the_thresholds_of_its_configuration(run):
    assert mixopt.experts(run).as_dict()["collapsed"] == ["t2"]
    (run / "config.yaml").write_text(yaml.safe_dump({"experts": {"thresholds": STRICT}}))
    found = mixopt.experts(run)
    assert found.as_dict()["collapsed"] == ["t1", "t2"]
    assert "experts collapsed in 2 of 3 trials" in str(found)
    lenient = ExpertOptions(thresholds={"busiest": 3.9, "assignments": 10**6})
    assert mixopt.experts(run, lenient).as_dict()["collapsed"] == ["t1", "t2"]
