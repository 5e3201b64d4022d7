"""Midtraining from end to end: a base, replay, guardrails on the base, and a decision."""

import shutil

import pytest
import yaml
from command_line import mixopt
from made_base import make_base

from mixopt.errors import RunError
from mixopt.pipeline import run
from mixopt.run_directory import StartRecord, load_run

pytestmark = pytest.mark.nightly


EXPERIMENT = """
name: midtraining
design: {trials: 5, replicates: 0, max_usage: null}
proxy:
  name: continued
  from: START
  tokens: 4096
  eval_tokens: 1024
  device: cpu
  options: {precision: float32, compile: false}
sweep: {workers: 1}
fit: {folds: 3, regressors: [linear]}
objective: {target: help}
constraints: {guardrails: {reference: base, margin: 0.3}}
propose: {samples: 500, bootstrap: 2}
validate: {max_seeds: 3, rounds: 1}
tracking: {enabled: false}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, text_files, one_thread):
    """A base, and a run from it."""
    folder = tmp_path_factory.mktemp("midtraining")
    texts = {name: text_files[name] for name in ("code", "prose")}
    base = make_base(folder, texts)
    parts = {name: {"path": str(file)} for name, file in texts.items()}
    replay = {"domains": parts, "mixture": {"code": 0.5, "prose": 0.5}}
    content = yaml.safe_load(EXPERIMENT.replace("START", str(base)))
    domains = {"help": {"path": str(text_files["help"])}, "replay": {"mixed": replay}}
    run(write(folder / "run.yaml", content | {"corpus": {"domains": domains}}), folder / "run")
    return folder


def write(path, content):
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def begun_elsewhere(folder, base, tmp_path):
    """Run a copy of the run from another base; return what was said."""
    content, lines = yaml.safe_load((folder / "run.yaml").read_text()), []
    content["proxy"]["from"] = str(base)
    shutil.copytree(folder / "run", tmp_path / "run")
    run(write(tmp_path / "run.yaml", content), tmp_path / "run", say=lines.append)
    return lines


def test_a_run_from_a_checkpoint_measures_it_once_and_ends_in_a_decision(folder):
    done, record = load_run(folder / "run"), StartRecord.read(folder / "run")
    assert set(done.recommendation.mixture) == {"help", "replay"}
    assert record.nats_per_token.keys() == {"help", "replay", "code", "prose"}
    assert record.nats_per_token["help"] > done.trials.losses("nats_per_token")[:, 0].min()
    assert done.constraints.guardrails.base == record.losses("bits_per_byte")
    assert "before: the checkpoint" in (folder / "run" / "report.html").read_text()
    lines = []
    run(folder / "run.yaml", folder / "run", say=lines.append)
    assert not [line for line in lines if "done in" in line]


def test_another_checkpoint_makes_the_trials_stale(folder, text_files, tmp_path):
    texts = {name: text_files[name] for name in ("code", "prose")}
    base = make_base(tmp_path, texts, steps=10)
    said = r"'sweep' was made from another .*: proxy.options.start_hash is .* redo"
    with pytest.raises(RunError, match=said):
        begun_elsewhere(folder, base, tmp_path)


def test_a_checkpoint_that_was_moved_is_the_same_one(folder, tmp_path):
    base = shutil.copytree(folder / "base", tmp_path / "elsewhere")
    lines = begun_elsewhere(folder, base, tmp_path)
    assert not [line for line in lines if line.startswith("sweep")]


def test_the_record_of_somebody_elses_run_reads_no_checkpoint(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "trials")
    (tmp_path / "run" / "trials.parquet").unlink()
    ended = mixopt("run", tmp_path / "run" / "config.yaml", "--out", tmp_path / "run")
    assert ended.code == 2
    assert "if you trust whoever made this directory, add --trust" in ended.error
