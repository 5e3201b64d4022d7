"""`mixopt experts DIR` says what a run recorded of its experts, and draws it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import mixopt as command
from made_experts import counted

import mixopt
from mixopt.errors import RoutingError
from mixopt.mixture import Mixture
from mixopt.routing import ExpertCounts, ExpertRecord
from mixopt.sweeps import result_to_json, trial_to_json
from mixopt.system import write_sealed
from mixopt.trials import Losses, Trial, TrialResult

EVEN = np.full((2, 4), 1000)
ONE = np.tile([3997, 1, 1, 1], (2, 1))


def renamed(counts_LDE):
    return replace(counted(counts_LDE), domains=("web", "code"))


def windows(path: Path, *contents) -> Path:
    """Write a window of ten steps of each of these counts; return the run."""
    record = ExpertRecord(path / "experts")
    for number, assignments in enumerate(contents):
        record.write_window(10 * number, 10 * number + 10, assignments)
    return path


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory) -> Path:
    """A run whose second layer collapses in the second half."""
    even, collapsed = renamed([EVEN, EVEN]), renamed([EVEN, ONE])
    return windows(tmp_path_factory.mktemp("runs") / "olmoe", even, even, collapsed, collapsed)


def written(path: Path, name: str, counts_LDE) -> None:
    """Write the file of a trial that has experts."""
    trial = Trial(name, Mixture({"web": 0.5, "code": 0.5}), seed=1)
    losses = Losses(10, {"web": 2.0}, {"web": 1.0})
    counts = ExpertCounts(renamed(counts_LDE), renamed(counts_LDE))
    result = TrialResult(name, "finished", 10, 10, 0.1, losses, experts=counts)
    entry = {"made_by": "", "trial": trial_to_json(trial), "result": result_to_json(result)}
    write_sealed(path / "trials" / f"{name}.json", entry)


def test_a_pretraining_is_told_by_layer_and_domain_with_what_is_wrong(pretraining):
    assert mixopt.experts(pretraining).train.tokens_D.sum() == 2 * EVEN.sum()
    ran = command("experts", pretraining)
    assert ran.code == 0, ran.error
    assert ran.out.startswith("steps 21 to 40: 2 routers: 0  1")
    assert "layer 1: collapse: expert 0 has 4.0 times the even load" in ran.out
    assert "balance the router, no mixture fixes this" in ran.out
    for name in ("load", "domains", "over_time"):
        file = pretraining / f"figures/experts_{name}.svg"
        assert file.read_text().startswith("<?xml")
        assert str(file) in ran.error
    found = json.loads(command("experts", pretraining, "--json").out)
    assert (found["kind"], found["steps"], found["collapsed"]) == ("pretraining", [20, 40], True)
    assert [diagnosis["layer"] for diagnosis in found["diagnoses"]] == [1]
    assert found["layers"][1]["max_violation"] == pytest.approx(4 * 0.99925 - 1)
    assert len(found["figures"]) == 3


def test_after_a_change_of_domains_only_what_came_then_is_told_and_one_of_experts_is_named(
    tmp_path,
):
    found = mixopt.experts(windows(tmp_path / "a", counted([EVEN, EVEN]), renamed([EVEN, EVEN])))
    assert [window.end for window in found.windows] == [20]
    assert found.train.domains == ("web", "code")
    with pytest.raises(RoutingError, match="an earlier window is of other experts: layer 1"):
        mixopt.experts(windows(tmp_path / "b", renamed([EVEN]), renamed([EVEN, EVEN])))


def test_a_sweep_is_told_by_trial_and_one_of_them_in_full(tmp_path):
    sweep = tmp_path / "sweep"
    written(sweep, "t0000", [EVEN, EVEN])
    written(sweep, "t0001", [EVEN, ONE])
    ran = command("experts", sweep)
    assert ran.code == 0, ran.error
    lines = ran.out.splitlines()
    assert lines[0] == "experts collapsed in 1 of 2 trials"
    assert lines[2].split()[0] == "t0001"
    assert "layer 1: collapse: expert 0 has 4.0 times the even load" in lines[2]
    assert lines[3].split()[0] == "t0000"
    assert "collapse" not in lines[3]
    assert "trial t0000: 2 routers" in ran.out
    assert lines[-1] == "held-out text: specialisation by layer: 0: 0.000  1: 0.000"
    assert (sweep / "figures/experts_load.svg").exists()
    found = json.loads(command("experts", sweep, "--json").out)
    assert (found["kind"], found["collapsed"], found["shown"]) == ("sweep", ["t0001"], "t0000")
    assert [trial["collapse"] is None for trial in found["trials"]] == [True, False]


def test_trials_that_collapsed_are_listed_before_those_of_a_less_even_load(tmp_path):
    uneven = np.tile([2000, 1000, 500, 450], (2, 1))
    crowded = np.tile([2550, 490, 480, 480], (2, 1))
    for number in range(12):
        written(tmp_path, f"t{number:04d}", [uneven])
    written(tmp_path, "t0012", [crowded])
    lines = str(mixopt.experts(tmp_path)).splitlines()
    assert lines[0] == "experts collapsed in 1 of 13 trials"
    assert lines[2].startswith("t0012 ")
    assert lines[14] == "and 1 more, in experts.parquet"


@pytest.mark.parametrize("there", [True, False])
def test_a_directory_without_experts_is_one_line(there, tmp_path):
    path = tmp_path / "run"
    if there:
        path.mkdir()
    ran = command("experts", path)
    assert ran.code == 2
    said = "nothing is recorded about experts" if there else "no such directory"
    assert ran.error.startswith(f"mixopt: {path}: {said}")
    assert ran.error.count("\n") == 1
