"""`mixopt export`: files, runs, the way back, and what the command refuses."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from command_line import mixopt
from read_fragments import read_shares

from mixopt import load_run
from mixopt.integrations import EXPORT_TOOLS


def test_the_list_has_every_tool_with_its_unit_and_needs():
    listed = mixopt("export", "--list").out
    for tool in EXPORT_TOOLS.values():
        (line,) = [line for line in listed.splitlines() if line.split()[:1] == [tool.name]]
        assert tool.unit.name in line
        assert all(need in line for need in tool.unit.needs)
    found = json.loads(mixopt("export", "--list", "--json").out)["tools"]
    assert [tool["name"] for tool in found] == list(EXPORT_TOOLS)


UNITS = {tool.unit.name: tool.name for tool in EXPORT_TOOLS.values()}


@pytest.mark.parametrize("tool", UNITS.values())
def test_a_run_gives_its_recommendation_with_all_that_units_need(run, tool, tmp_path):
    out = tmp_path / "fragment"
    ended = mixopt("export", run, "--to", tool, "--out", out)
    assert ended.code == 0, ended.error
    found = load_run(run)
    weights = read_shares(
        out.read_text(), tool, inventory=found.inventory, sample_tokens=documents(found)
    )
    assert weights == pytest.approx(dict(found.recommendation.mixture), abs=1e-3)


def documents(run):
    """Mean tokens of a document of each domain."""
    trained = {d.name: d.train for d in run.corpus.domains if d.train is not None}
    return {name: train.tokens / train.documents for name, train in trained.items()}


@pytest.mark.filterwarnings("default")
def test_a_run_without_validation_gives_its_proposal_and_says_so(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    proposal = load_run(run).proposal.mixture
    load_run(copy).log.discard("validate")
    ended = mixopt("export", copy, "--to", "levanter")
    assert ended.code == 0, ended.error
    note = "the proposal is not validated against baselines yet: mixopt "
    assert note in ended.error
    assert note in ended.out.splitlines()[0]
    weights = yaml.safe_load(ended.out)["data"]["train_weights"]
    assert weights == pytest.approx(dict(proposal))


def test_the_length_of_the_full_run_is_that_of_the_configuration(run, tmp_path):
    def swift(*more):
        return mixopt("export", run, "--to", "swift", *more).out

    assert swift().splitlines()[2:] == swift("--tokens", "25e9").splitlines()[2:]
    answer = json.loads(swift("--json"))
    assert (answer["tool"], answer["fragment"].strip()) == ("swift", swift().strip())
    path = tmp_path / "mix.json"
    assert json.loads(swift("--json", "--out", path)) == {"tool": "swift", "files": [str(path)]}
    assert path.read_text().splitlines()[2:] == swift().splitlines()[2:]
