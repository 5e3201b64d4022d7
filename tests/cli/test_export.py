"""`mixopt export`: files, runs, the way back, and what the command refuses."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from command_line import mixopt
from read_fragments import read_shares

from mixopt import load_run
from mixopt.exports import EXPORT_TOOLS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A mixture, and what may be known of its domains."""
    path = tmp_path_factory.mktemp("export")
    contents = {
        "mixture": {"weights": {"web": 0.6, "code": 0.3, "books": 0.1}},
        "inventory": {"web": "1.2e3", "code": 400, "books": 25},
        "samples": {"web": 10, "code": 20, "books": 5},
        "paths": {"web": ["/d/web 0.jsonl", "/d/web 1.jsonl"], "code": "/d/code", "books": "b"},
    }
    for name, content in contents.items():
        (path / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def known(folder, *names):
    options = {"inventory": "--inventory", "samples": "--sample-tokens", "paths": "--paths"}
    return [word for name in names for word in (options[name], folder / f"{name}.yaml")]


def test_a_file_is_exported_in_the_tool_s_unit(folder):
    ended = mixopt(
        "export", folder / "mixture.yaml", "--to", "megatron-bridge-sft", "--tokens", "1e3",
        *known(folder, "inventory"),
    )  # fmt: skip
    assert ended.code == 0
    assert yaml.safe_load(ended.out)["dataset"]["source_weights"] == [0.5, 0.75, 4.0]


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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("recommendation.yaml", "recommendation.yaml: has "),
        ("proposal.yaml", "is for another mixture than proposal.yaml"),
    ],
)
def test_a_damaged_or_outdated_recommendation_is_not_exported(run, tmp_path, name, said):
    copy = shutil.copytree(run, tmp_path / "run")
    text = (copy / name).read_text()
    (copy / name).write_text(text.replace("weights:", "weights: # mine", 1))
    ended = mixopt("export", copy, "--to", "levanter")
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.error
    assert "mixopt run " in ended.error


def test_the_length_of_the_full_run_is_that_of_the_configuration(run):
    ended = mixopt("export", run, "--to", "swift")
    assert ended.out.splitlines()[2:] == swift(run, "25e9").out.splitlines()[2:], ended.error


def swift(run, tokens):
    return mixopt("export", run, "--to", "swift", "--tokens", tokens)


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("--paths", "[1]", "expected a path, or a list of paths, for each domain, one line each"),
        ("--paths", "{wbe: x}", "unknown domain 'wbe'; did you mean 'web'?"),
        ("--inventory", "{web: 3}", "domain 'code' is missing; give its tokens"),
    ],
)
def test_a_file_that_cannot_be_is_named(folder, tmp_path, option, content, message):
    path = tmp_path / "given.yaml"
    path.write_text(content)
    ended = mixopt("export", folder / "mixture.yaml", "--to", "nemo", option, path)
    assert ended.code == 2
    assert ended.error == f"mixopt: {path}: {message}\n"
