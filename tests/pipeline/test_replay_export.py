"""Exports of a run with replay have the parts in its place, with its corpus and without."""

import shutil

import pytest
import yaml
from command_line import mixopt

from mixopt.errors import RunError
from mixopt.pipeline import run as run_experiment
from mixopt.pipeline.from_fit import parts_of
from mixopt.run_directory import load_run

SHARES = {"prose": 0.75, "help": 0.25}


@pytest.fixture(scope="module")
def whole(text_files, experiment, tmp_path_factory):
    """A finished run of one domain of text and one of replay."""
    folder = tmp_path_factory.mktemp("replay")
    content = yaml.safe_load(experiment) | {"fit": {"folds": 3, "regressors": ["linear"]}}
    content.pop("evaluation")
    parts = {name: {"path": str(text_files[name])} for name in SHARES}
    replay = {"mixed": {"domains": parts, "mixture": SHARES}}
    content["corpus"]["domains"] = {"code": {"path": str(text_files["code"])}, "replay": replay}
    (folder / "run.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    run_experiment(folder / "run.yaml", folder / "run")
    return folder / "run"


@pytest.fixture
def bare(whole, tmp_path):
    """A copy of the run without its corpus."""
    return shutil.copytree(whole, tmp_path / "run", ignore=shutil.ignore_patterns("corpus"))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["", "proposal.yaml", "recommendation.yaml"])
def test_an_answer_has_the_parts_of_replay_also_without_validation_and_corpus(whole, bare, name):
    load_run(bare).log.discard("validate")
    ended = mixopt("export", whole / name if name else bare, "--to", "levanter")
    assert ended.code == 0, ended.error
    weights = yaml.safe_load(ended.out)["data"]["train_weights"]
    assert set(weights) == {"code", "prose", "help"}
    replay = weights["prose"] + weights["help"]
    assert weights["prose"] == pytest.approx(0.75 * replay, abs=0.03)
    run = load_run(whole)
    answer = run.recommendation if name.startswith("r") else run.proposal
    assert weights["code"] == pytest.approx(answer.mixture["code"])
    note = "the proposal is not validated against baselines yet: mixopt "
    said = [note in text for text in (ended.error, ended.out.splitlines()[0])]
    assert said == [name == ""] * 2


def test_a_tool_that_needs_sizes_asks_for_them_where_the_corpus_is_gone(bare, tmp_path):
    args = ("export", bare, "--to", "axolotl", "--tokens", "1e6", "--sample-tokens", "100")
    refused = mixopt(*args)
    assert refused.code == 2
    assert "axolotl: needs the tokens of domain 'code'; give them in" in refused.error
    (tmp_path / "sizes.yaml").write_text("{code: 4e5, prose: 3e5, help: 1e5}")
    assert mixopt(*args, "--inventory", tmp_path / "sizes.yaml").code == 0


def test_shares_of_parts_that_no_file_has_are_one_line(bare):
    for name in ("proposal.yaml", "recommendation.yaml"):
        (bare / name).unlink()
    with pytest.raises(RunError, match="missing, so the shares of the parts of replay are unk"):
        parts_of(load_run(bare))
