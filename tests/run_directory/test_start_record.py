"""`start.json`: what trials begin with, whole or refused in a line."""

import pytest
from flips import flips
from places import SUPPORT

from mixopt.config import load_config
from mixopt.errors import ConfigError, RunError
from mixopt.pipeline import check, experiment_check, sweep
from mixopt.pipeline.experiment_check import with_start_hash
from mixopt.run_directory import Run, StartRecord, trial_records
from mixopt.run_directory.steps import START_FILE
from mixopt.sweeps import Job, Training
from mixopt.trials import Losses

LOSSES = Losses(0, {"web": 2.5, "law": 1.5}, {"web": 1.1, "law": 0.7}, {"task/a/accuracy": 0.25})


@pytest.fixture
def folder(tmp_path):
    StartRecord.of("ab" * 32, 4096, LOSSES).write(tmp_path)
    return tmp_path


def test_what_was_written_is_read_in_a_unit_with_tasks_and_no_loss_that_is_no_number(folder):
    found = StartRecord.read(folder)
    assert found == StartRecord.of("ab" * 32, 4096, LOSSES)
    assert found.losses("bits_per_byte") == {"web": 1.1, "law": 0.7, "task/a/accuracy": 0.25}
    assert found.losses("nats_per_token")["web"] == 2.5
    bad = Losses(0, {"web": float("nan")}, {"web": 1.0})
    with pytest.raises(RunError, match="nats_per_token.web"):
        StartRecord.of("ab" * 32, 4096, bad)


BEGUN = """
from mixopt.errors import ConfigError
from mixopt.trials import Losses

class Begun:
    def __init__(self, start, start_hash=None):
        self.start = start

    def group_size(self, corpus, training):
        return 1

    def train(self, trials, corpus, training, report):
        return []

    def start_hash(self):
        return "ab" * 32

    def check_tokenizer(self, name):
        raise ConfigError(f"corpus.tokenizer: {name} is not that of the checkpoint")

    def base_losses(self, corpus, training):
        return Losses(0, dict.fromkeys(corpus.inventory, 2.5), {"web": training.eval_tokens / 4096})
"""


def test_what_trials_begin_with_is_hashed_checked_and_measured_once(
    config_path, corpus, tmp_path, monkeypatch
):
    (tmp_path / "begun_proxy.py").write_text(BEGUN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(trial_records, "in_processes", lambda call, jobs, *_, **__: map(call, jobs))
    given = ["proxy.name=begun_proxy:Begun", f"proxy.from={tmp_path}", "proxy.eval_tokens=2048"]
    (problem,) = check(load_config(config_path, given)).problems
    assert str(problem) == "corpus.tokenizer: bytes is not that of the checkpoint"
    config, said = with_start_hash(load_config(config_path, given)), []
    assert config.proxy.start_hash == "ab" * 32
    run = Run(tmp_path / "run", config)
    run.path.mkdir()
    options = config.proxy.all_options
    assert options["start"] == str(tmp_path)
    job = Job(config.proxy.name, options, corpus.path, Training(20_000, eval_tokens=2048))
    for _ in range(2):
        sweep._record_start(run, job, said.append)
    assert said == [f"sweep: trials begin with {tmp_path} (weights {'ab' * 6})"]
    record = StartRecord.read(run.path)
    assert record.nats_per_token == dict.fromkeys(corpus.inventory, 2.5)
    assert (record.bits_per_byte, record.eval_tokens) == ({"web": 0.5}, 2048)


def test_a_proxy_of_ones_own_that_begins_with_nothing_is_refused(monkeypatch):
    monkeypatch.syspath_prepend(str(SUPPORT))
    name, options = "faulty_proxy:Faulty", {"log": "a"}
    with pytest.raises(ConfigError, match="its trials begin with random weights, no checkpoint"):
        trial_records._measured((name, options, None, None))
    with pytest.raises(ConfigError, match="from: trials of proxy 'a:B' begin with no checkpoint"):
        experiment_check._with_start(object(), "a:B")


def test_every_changed_byte_is_refused_in_a_line(folder):
    for _ in flips(folder / START_FILE, step=56):
        with pytest.raises(RunError) as caught:
            StartRecord.read(folder)
        assert "\n" not in str(caught.value)
