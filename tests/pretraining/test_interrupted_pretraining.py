"""Ctrl-C in a pretraining: the first one writes a checkpoint, the second stops at once."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from folder_owner import marker
from pretrain_runs import CONFIG, DECODER, checkpoints, metrics_of, step_of, write_config
from typer.testing import CliRunner

import mixopt.cli.main  # noqa: F401  adds the commands
from mixopt import pretrain
from mixopt.cli.options import app
from mixopt.errors import RunError
from mixopt.pretraining.interruption import Interruption
from mixopt.pretraining.loop import Loop

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def config(corpus, tmp_path_factory):
    training = {**CONFIG["training"], "steps": 4}
    parts = {"model": DECODER, "training": training, "checkpoint": {"every": 0}}
    return write_config(tmp_path_factory.mktemp("config"), corpus=str(corpus.path), **parts)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def after_two(monkeypatch):
    """Do something after the second step: by default, press Ctrl-C once."""
    observe, done = Loop._observe, [press]

    def observing(loop, outcome):
        observe(loop, outcome)
        if loop.step == 2:
            for do in done:
                do()

    monkeypatch.setattr(Loop, "_observe", observing)
    return done


def test_ctrl_c_writes_a_checkpoint_after_the_next_step_and_the_run_resumes(
    config, after_two, tmp_path, capfd
):
    before = signal.getsignal(signal.SIGINT)
    found = pretrain(config, tmp_path / "run")
    assert (found.step, found.interrupted) == (3, True)
    assert step_of(tmp_path / "run") == 3
    assert (
        "stops after the next step, with a checkpoint; Ctrl-C again: at once"
        in capfd.readouterr().err
    )
    assert signal.getsignal(signal.SIGINT) is before
    assert pretrain(config, tmp_path / "run").is_finished


def test_the_second_ctrl_c_stops_at_once(config, after_two, tmp_path):
    after_two.append(press)
    with pytest.raises(KeyboardInterrupt):
        pretrain(config, tmp_path / "run")
    assert checkpoints(tmp_path / "run") == []
    (tmp_path / "run" / "metrics.jsonl").write_text("of a run that came to no checkpoint")
    after_two.clear()
    assert pretrain(config, tmp_path / "run").is_finished
    assert {line["step"] for line in metrics_of(tmp_path / "run")} == {4}


def test_a_run_whose_directory_another_process_took_over_writes_nothing_more(
    config, after_two, tmp_path
):
    lock = tmp_path / "run" / ".lock"
    after_two[:0] = [lock.unlink, lambda: lock.write_text(marker(1, "n7"))]
    with pytest.raises((KeyboardInterrupt, RunError)):
        pretrain(config, tmp_path / "run")
    assert checkpoints(tmp_path / "run") == []


def listening():
    with Interruption().listening(lambda: True):
        return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


def test_what_is_ignored_stays_so_and_other_threads_take_no_signals():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(listening).result() == before
    assert not set(listening()) & set(before)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert listening()[1] is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before[1])


def test_the_command_ends_as_an_interrupted_one_with_what_is_saved(config, after_two, tmp_path):
    ended = CliRunner().invoke(app, ["pretrain", str(config), "--out", str(tmp_path / "run")])
    assert ended.exit_code == 130
    assert "pretrain: step 3 is saved: " in ended.stderr
