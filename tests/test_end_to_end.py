"""The whole job on real text: run it, run it again, kill it, get its configuration wrong."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

import mixopt
from mixopt.system import only_one, read_json, write_sealed

STEPS = ["prepare", "design", "sweep", "fit", "propose", "validate", "report"]


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "mixopt", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def default_fit(experiment):
    """The experiment with the regressor that one has without asking."""
    return experiment.replace("fit: {regressors: [linear]", "fit: {regressors: [auto]")


@pytest.fixture(scope="module")
def finished(default_fit, tmp_path_factory):
    """A run that nothing disturbed: its configuration, its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    config = folder / "tiny.yaml"
    config.write_text(default_fit)
    ended = command("run", config, "--out", folder / "run")
    assert ended.returncode == 0, ended.stderr
    return config, folder / "run", ended.stdout


@pytest.fixture
def copy_of_run(finished, tmp_path):
    config, run, _ = finished
    shutil.copytree(run, tmp_path / "run")
    shutil.copy(config, tmp_path / "tiny.yaml")
    return tmp_path / "tiny.yaml", tmp_path / "run"


def tables(run: Path) -> dict[str, pl.DataFrame]:
    """What a run found, without how long it took."""
    names = ("design.parquet", "trials.parquet", "validation.parquet")
    return {name: pl.read_parquet(run / name).drop("seconds", strict=False) for name in names}


def test_a_run_leaves_what_it_promises(finished):
    _, run, printed = finished
    tables = ("design.parquet", "trials.parquet", "validation.parquet")
    for name in (*tables, "config.yaml", "proposal.yaml", "recommendation.yaml", "report.html"):
        assert (run / name).stat().st_size > 0
    assert printed.startswith("Recommendation: ")
    assert ", bits per byte (above 0 is better)" in printed
    assert list(read_json(run / "steps.json")["steps"]) == STEPS


def test_a_second_run_does_no_work_and_prints_the_same(finished):
    config, run, printed = finished
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    again = command("run", config, "--out", run)
    assert again.stdout == printed
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_second_run_loads_neither_torch_nor_mlflow_nor_a_regressor(finished):
    config, run, _ = finished
    code = (
        "import sys, mixopt; from mixopt.reporting.terminal import run_summary, summary_text;"
        f"summary_text(mixopt.run({str(config)!r}, {str(run)!r}));"
        "print([m for m in ('torch', 'mlflow', 'lightgbm', 'datasets') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_proposal_and_recommendation_are_mixtures_that_a_bare_install_reads(finished):
    _, run, _ = finished
    for name in ("proposal.yaml", "recommendation.yaml"):
        assert set(mixopt.Mixture.from_file(run / name)) == {"code", "prose"}


def test_the_run_can_be_looked_at_from_python(finished):
    run = mixopt.load_run(finished[1])
    assert run.trials.table.height == 8 + 2 + 2
    assert run.proposal.mixture.domains == ("code", "prose")
    assert run.fit.report.height > 0


def test_the_proposal_leans_to_the_domain_that_the_target_is_like(finished):
    """The target is docstrings; prose is other docstrings, code is not."""
    run = mixopt.load_run(finished[1])
    assert run.proposal.mixture["prose"] > run.natural["prose"]


@pytest.mark.nightly  # tests/faults/test_killed_steps.py does the same to each step
@pytest.mark.parametrize("when", ["sweep", "validate"])
def test_a_killed_run_goes_on_to_the_same_tables_and_trains_nothing_twice(
    finished, tmp_path, when, default_fit
):
    folder = {"sweep": "trials", "validate": "validation"}[when]
    config = tmp_path / "tiny.yaml"
    config.write_text(default_fit)
    run = tmp_path / "run"
    kill_after(2, run / folder, [sys.executable, "-m", "mixopt", "run", config, "--out", run])
    kept = {path: path.read_text() for path in trial_files(run / folder)}
    assert kept

    ended = command("run", config, "--out", run)

    assert ended.returncode == 0, ended.stderr
    # The file of a trial holds how long it took: trained again, it would differ.
    assert {path: path.read_text() for path in kept} == kept
    undisturbed = tables(finished[1])
    for name, table in tables(run).items():
        assert table.equals(undisturbed[name]), name
    proposals = [(path / "proposal.yaml").read_text() for path in (run, finished[1])]
    assert proposals[0] == proposals[1]


def kill_after(count: int, folder: Path, arguments: list) -> None:
    """Start a command in a process group of its own, and kill all of it by SIGKILL."""
    process = subprocess.Popen(
        list(map(str, arguments)), stderr=subprocess.DEVNULL, start_new_session=True
    )
    while len(trial_files(folder)) < count:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def trial_files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("[!.]*.json") if path.name != "groups.json"]


def test_another_configuration_is_refused_and_named(copy_of_run):
    config, run = copy_of_run
    ended = command("run", config, "--out", run, "--set", "design.trials=9")
    assert ended.returncode == 2
    assert "'design' was made from another configuration" in ended.stderr
    assert "design.trials is 8 there and 9 here" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_trials_of_another_configuration_are_refused_where_the_manifest_is_lost(copy_of_run):
    config, run = copy_of_run
    (run / "steps.json").unlink()
    ended = command("run", config, "--out", run, "--set", "proxy.tokens=10000")
    assert ended.returncode == 2
    assert re.search(r"trials/\S+\.json: was trained by another configuration", ended.stderr)
    checked = json.loads(command("verify", run, "--json").stdout)
    assert "trials/t0000.json" in str(checked)


def test_trials_of_this_configuration_are_kept_where_the_manifest_is_lost(copy_of_run):
    config, run = copy_of_run
    kept = {path: path.read_text() for path in trial_files(run / "trials")}
    before = tables(run)
    (run / "steps.json").unlink()
    assert command("run", config, "--out", run).returncode == 0
    assert {path: path.read_text() for path in kept} == kept
    assert all(table.equals(before[name]) for name, table in tables(run).items())


def test_an_interrupted_sweep_does_not_go_on_with_another_configuration(experiment, tmp_path):
    config, run = tmp_path / "tiny.yaml", tmp_path / "run"
    config.write_text(experiment)
    kill_after(2, run / "trials", [sys.executable, "-m", "mixopt", "run", config, "--out", run])
    kept = {path: path.read_text() for path in trial_files(run / "trials")}
    status = json.loads(command("status", run, "--json").stdout)
    assert status["steps"]["sweep"]["state"] == "interrupted"
    ended = command("run", config, "--out", run, "--set", "proxy.tokens=10000")
    assert ended.returncode == 2
    assert "proxy.tokens is 20000 there and 10000 here" in ended.stderr
    assert {path: path.read_text() for path in kept} == kept


def test_a_first_mistake_can_be_mended_in_the_same_directory(experiment, tmp_path):
    config, run = tmp_path / "tiny.yaml", tmp_path / "run"
    config.write_text(experiment.replace("corpus:", "corpus:\n  on_bad_document: skip"))
    ended = command(
        "run", config, "--out", run, "--set", "corpus.domains.code.column=txt", "--until", "prepare"
    )
    assert (ended.returncode, "no column 'txt'" in ended.stderr) == (2, True)
    assert command("run", config, "--out", run, "--until", "prepare").returncode == 0


def test_nothing_is_deleted_where_a_redo_cannot_be_done(copy_of_run):
    config, run = copy_of_run
    ended = command("run", config, "--out", run, "--from", "validate", "--set", "design.trials=9")
    assert ended.returncode == 2
    assert (run / "validation.parquet").exists()


def test_another_objective_keeps_the_trials(copy_of_run):
    config, run = copy_of_run
    trials = (run / "trials.parquet").read_bytes()
    changed = ["--set", "objective={target: code}", "--from", "fit"]
    ended = command("run", config, "--out", run, *changed)
    assert ended.returncode == 0, ended.stderr
    assert (run / "trials.parquet").read_bytes() == trials
    assert mixopt.load_run(run).proposal.mixture["code"] > 0.5


def test_a_foreign_directory_is_left_alone(config_path, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("dear")
    ended = command("run", config_path, "--out", tmp_path / "home")
    assert ended.returncode == 2
    assert "is not empty and not a run directory; use another --out" in ended.stderr
    assert os.listdir(tmp_path / "home") == ["thesis.tex"]


def test_two_processes_do_not_work_in_one_directory(copy_of_run):
    config, run = copy_of_run
    with only_one(run):
        ended = command("run", config, "--out", run)
    assert ended.returncode == 2
    assert "another mixopt process is running here" in ended.stderr
    assert command("run", config, "--out", run).returncode == 0


def test_altered_shards_are_made_again_by_prepare_and_the_trials_are_kept(copy_of_run):
    config, run = copy_of_run
    shard = run / "corpus" / "code" / "train" / "00000.bin"
    before = shard.read_bytes()
    shard.write_bytes(before[:-1])
    ended = command("run", config, "--out", run, "--until", "prepare")
    assert ended.returncode == 0, ended.stderr
    assert shard.read_bytes() == before
    assert "all steps are done" in ended.stdout


def test_a_directory_that_cannot_be_written_is_named(config_path, tmp_path):
    (tmp_path / "runs").write_text("a file where a folder should be")
    ended = command("run", config_path, "--out", tmp_path / "runs" / "one")
    assert ended.returncode == 2
    assert "cannot be written" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_altered_shard_is_found_before_it_is_trained_on(copy_of_run):
    config, run = copy_of_run
    shard = run / "corpus" / "code" / "train" / "00000.bin"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    ended = command("run", config, "--out", run, "--from", "sweep")
    assert ended.returncode == 2
    assert "00000.bin" in ended.stderr
    assert "--until prepare" in ended.stderr


def test_single_steps_lead_to_the_next(config_path, tmp_path):
    ended = command("run", config_path, "--out", tmp_path / "run", "--until", "prepare")
    assert ended.returncode == 0, ended.stderr
    again = f"mixopt run {config_path} --out {tmp_path / 'run'} --until design"
    assert f"next: {again}" in ended.stdout


def test_status_and_json(finished):
    config, run, _ = finished
    status = json.loads(command("status", run, "--json").stdout)
    sweep = status["steps"]["sweep"]
    assert [sweep[name] for name in ("state", "trials", "ended", "finished", "failed")] == [
        "done",
        *(12, 12, 12, 0),
    ]
    (node,) = sweep["nodes"]
    assert (node["kind"], node["done"], node["lost"]) == ("cpu", 12, 0)
    answer = json.loads(command("run", config, "--out", run, "--json").stdout)
    assert sum(answer["weights"].values()) == pytest.approx(1)
    assert set(answer["validation"]["differences"]) == {
        *("natural", "uniform", "unimax", "best_trial")
    }
    headline = mixopt.load_run(run).recommendation.headline
    assert status["recommendation"]["headline"] == headline
    assert command("status", run).stdout.splitlines()[0] == headline


def test_a_wrong_field_is_one_line_and_exit_code_2(config_path):
    ended = command("run", config_path, "--set", "design.trails=3")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "unknown field; did you mean 'trials'?" in ended.stderr


def test_failed_trials_are_trained_again_when_asked(copy_of_run):
    config, run = copy_of_run
    path = run / "trials" / "t0003.json"
    content = read_json(path)
    content["result"] |= {"status": "failed", "reason": "out of memory", "losses": None}
    write_sealed(path, content)
    ended = command("run", config, "--out", run, "--retry-failed")
    assert ended.returncode == 0, ended.stderr
    assert read_json(path)["result"]["status"] == "finished"
