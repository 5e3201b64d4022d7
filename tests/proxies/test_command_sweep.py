"""A command in a sweep's worker: alive while it runs, run again when its worker dies, read anew."""

from dataclasses import replace

import pytest
import yaml
from own_trainers import TRIAL, WRITE_GOOD, attempts, script

from mixopt import run
from mixopt.config import SweepConfig, load_config
from mixopt.errors import RunError
from mixopt.run_directory import open_run
from mixopt.sweeps import Job, Training, run_trials, trial_paths

ALONE = SweepConfig(workers=1)


@pytest.fixture
def swept(corpus, tmp_path):
    """Run trials whose command is a script; return their results."""

    def run_script(code, trials=(TRIAL,), sweep=ALONE):
        given = {"run": script(tmp_path, code), "result": "metrics.json"}
        job = Job("command", given, corpus.path, Training(1_000, device="cpu"))
        return run_trials(list(trials), job, tmp_path / "trials", sweep=sweep)

    return run_script


def test_a_command_that_runs_longer_than_the_patience_is_let_run(swept, tmp_path):
    config = SweepConfig(workers=1, patience=1.0)
    (result,) = swept(f"time.sleep(2.5); {WRITE_GOOD}", sweep=config)
    assert result.status == "finished"
    assert attempts(tmp_path / "trials" / "files") == ["attempt-1"]


def test_a_broken_trainer_fails_on_the_first_trial_and_starts_no_other(swept, tmp_path):
    trials = [replace(TRIAL, name=f"t{number}") for number in range(4)]
    with pytest.raises(RunError, match=r"the first trial failed, .*exit code 1 .*no such flag"):
        swept("sys.exit('no such flag')", trials, SweepConfig())
    assert [path.name for path in (tmp_path / "trials" / "files").iterdir()] == ["short-trial"]
    assert trial_paths(tmp_path / "trials") == []


@pytest.mark.parametrize("least", [pytest.param(0, marks=pytest.mark.nightly), 100])
def test_one_short_trial_is_trained_first_or_a_whole_one_where_that_is_too_short(
    swept, tmp_path, least
):
    code = f"""
        tokens = int(os.environ["MIXOPT_TOKENS"])
        open({str(tmp_path / "tokens")!r}, "a").write(f"{{tokens}} ")
        assert tokens > {least}
        {WRITE_GOOD}
    """
    swept(code)
    assert (tmp_path / "tokens").read_text() == ("50 1000 1000 " if least else "50 1000 ")


def test_three_failures_alike_stop_a_sweep(swept, tmp_path):
    code = f"""
        if os.environ["MIXOPT_TRIAL"] != "short-trial":
            sys.exit(f"no luck with {{os.environ['MIXOPT_TRIAL']}}")
        {WRITE_GOOD}
    """
    trials = [replace(TRIAL, name=f"t{number}") for number in range(6)]
    with pytest.raises(RunError, match=r"stopped: 3 groups failed with the same error.*with t2\)"):
        swept(code, trials)
    assert len(trial_paths(tmp_path / "trials")) == 3


def test_where_losses_are_may_change_without_training_again(tmp_path):
    code = """
        losses = dict.fromkeys(json.load(open("trial.json"))["evaluation"], 2.0)
        json.dump({"eval": losses, "other": losses}, open("metrics.json", "w"))
    """
    config = {
        "corpus": {"domains": {"web": {"tokens": 1.2e12}, "code": {"tokens": 4e11}}},
        "evaluation": {"exams": {}},
        "design": {"trials": 4, "replicates": 0},
        "proxy": {
            "name": "command",
            "run": script(tmp_path, code),
            "result": "metrics.json",
            "losses": "eval.{domain}",
        },
        "sweep": {"workers": 2},
        "objective": {"target": "exams", "unit": "nats_per_token"},
        "tracking": {"enabled": False},
    }
    path, out = tmp_path / "own.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(config))
    run(path, out, until="sweep")
    config["proxy"]["losses"] = "other.{domain}"
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(RunError, match="proxy.losses is eval.{domain} there and other.{domain} he"):
        run(path, out, until="sweep")

    def trained_anew():
        done = out / "trials" / "files" / "natural" / "done.json"
        before = done.stat().st_mtime_ns
        open_run(load_config(path), out, redo="sweep")
        assert set(run(path, out, until="sweep").trials.table["status"]) == {"finished"}
        return done.stat().st_mtime_ns != before

    assert not trained_anew()
    assert trained_anew(), "a sweep that is redone as it was trains"
