"""A sweep on a real Slurm of two nodes: equal to one on this machine, whatever is killed."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster, why_not
from work_runs import said

from mixopt.errors import ConfigError, PluginError
from mixopt.mixture import Mixture
from mixopt.pipeline import sweep_script
from mixopt.sweeps import Job, Means, Site, SlurmExecutor, make_executor, run_trials, work_tasks
from mixopt.trials import Training, Trial

needs_slurm = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
JOB = Job("ngram", {}, Path("corpus"), Training(1000, device="cpu"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The cluster, whose commands find it."""
    made = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(made.conf))
        yield made
        made.end()


def script(tmp_path, *, trials=8, trust=True, workers=None, gpus=None, nodes=1, **options) -> str:
    """Return the script of a sweep in a folder."""
    site = Site(tmp_path / "trials", workers, gpus=gpus, nodes=nodes, trust=trust)
    return SlurmExecutor(JOB, site, **options).script(trials)


@needs_slurm
def test_a_sweep_on_two_nodes_is_that_of_this_machine(cluster, work_run, local_table):
    run = work_run(executor="slurm", size=2, seconds=1)
    text = said(run.owner())
    assert "submitted to Slurm as job " in text
    assert run.table() == local_table
    assert sorted(run.notes("ended")) == sorted(local_table["trial"])
    tasks = work_tasks(run.path / "trials")
    assert {task.job.partition("_")[2] for task in tasks} == {"0", "1"}
    assert (run.path / "trials/work/array.sh").read_text().startswith("#!/bin/bash")


@needs_slurm
def test_what_a_killed_node_had_is_trained_elsewhere(cluster, work_run, local_table):
    run = work_run(executor="slurm", size=2, seconds=2)
    owner = run.owner()
    run.wait_for("began", 4)
    cluster.kill_node("n2")
    try:
        text = said(owner)
        assert "retrying" in text
        assert run.table() == local_table
        assert len(run.notes("ended")) == 6
    finally:
        cluster.start_node("n2")
        cluster.wait_for_nodes()


@needs_slurm
def test_a_killed_owner_is_taken_up_again_and_nothing_is_trained_twice(
    cluster, work_run, local_table
):
    run = work_run(executor="slurm", size=1, seconds=1)
    owner = run.owner()
    run.wait_for("ended", 2)
    owner.kill()
    text = said(run.owner())
    assert "submitted again" not in text
    assert run.table() == local_table
    assert sorted(run.notes("ended")) == sorted(local_table["trial"])


@needs_slurm
@pytest.mark.parametrize(
    ("asked", "more", "message"),
    [
        ("partition: nope", [], "sweep.options.partition: refused by sbatch: invalid partition"),
        ("memory: 99G", [], "sweep.options.memory: refused by sbatch: Memory specification"),
        ("time: soon", [], "sweep.options.time: refused by sbatch: Invalid --time"),
        ("cpus: 5", [], "sweep.options.cpus: refused by sbatch: CPU count per node"),
        ("", ["--set", "sweep.gpus=1"], "sweep.gpus: refused by sbatch: Invalid generic resource"),
        ('partition: small, time: "3:00:00"', [], "sweep.options.time: job .* PartitionTimeLimit"),
    ],
)
def test_what_slurm_refuses_is_one_line_with_the_field(cluster, work_run, asked, more, message):
    run = work_run(executor="slurm", asked=asked)
    with pytest.raises(ConfigError, match=message):
        _sweep_here(run, more)
    run.wait_until(lambda: cluster.run("squeue", "--noheader").stdout == "")


def _sweep_here(run, more):
    from mixopt import pipeline

    pipeline.sweep(run.config, run.path, overrides=more[1::2])


@needs_slurm
def test_a_path_with_blanks_quotes_and_shell_signs_is_a_path(cluster, work_run, local_table):
    run = work_run(executor="slurm")
    odd = run.path.with_name("a 'b\" $(touch hit) %j `c` ;e&")
    run.path = run.path.rename(odd)
    said(run.owner())
    assert run.table() == local_table
    assert len(list((odd / "trials/work/logs").glob("slurm-*_*.out"))) == 2
    assert not Path("hit").exists()


@needs_slurm
def test_nodes_whose_python_has_no_mixopt_are_said_with_the_last_words(cluster, work_run):
    run = work_run(executor="slurm", asked="python: /usr/bin/nothing-of-the-kind")
    text = said(run.owner(), 2)
    assert "ended before they could read" in text
    assert "nothing-of-the-kind: No such file" in text
    assert "sweep.options.python" in text


def test_the_script_is_what_the_options_ask_for(tmp_path):
    text = script(
        tmp_path,
        gpus=2,
        nodes=3,
        workers=4,
        tasks=8,
        partition="gpu",
        account="lab",
        qos="high",
        time="4:00:00",
        cpus=6,
        memory="32G",
        modules=["cuda/12.4"],
        setup=["export A=1"],
        sbatch=["--constraint=h100"],
        python="/opt/python -X utf8",
    )
    lines = text.splitlines()
    for line in (
        "--array=0-7%4",
        f"--output={tmp_path}/trials/work/logs/slurm-%A_%a.out",
        "--nodes=3",
        "--gpus-per-node=2",
        "--partition=gpu",
        "--account=lab",
        "--qos=high",
        "--time=4:00:00",
        "--cpus-per-task=6",
        "--mem=32G",
        "--constraint=h100",
    ):
        assert f"#SBATCH {line}" in lines
    assert lines[-3:-1] == ["module load cuda/12.4", "export A=1"]
    assert lines[-1] == (
        f"exec /opt/python -X utf8 -P -m mixopt work {tmp_path} --trust --task"
        ' "$SLURM_ARRAY_TASK_ID/8"'
    )


def test_an_array_has_a_task_a_trial_up_to_64(tmp_path):
    assert "--array=0-7\n" in script(tmp_path)
    assert "--array=0-63\n" in script(tmp_path, trials=1000)
    assert "--array=0-4\n" in script(tmp_path, trials=1000, workers=5)
    assert "--array=0-2\n" in script(tmp_path, trials=3, workers=5)


def test_a_proxy_that_is_told_to_use_cuda_gets_a_gpu(tmp_path):
    job = replace(JOB, training=replace(JOB.training, device="cuda"))
    text = SlurmExecutor(job, Site(tmp_path / "trials")).script(2)
    assert "#SBATCH --gpus-per-node=1" in text
    assert "--gpus" not in script(tmp_path)


def test_a_container_is_started_by_pyxis_or_by_the_words_that_are_given(tmp_path):
    assert "exec srun --container-image=i.sqsh --container-mounts=" in script(
        tmp_path, container="i.sqsh"
    )
    text = script(tmp_path, container="i.sif", container_start=["apptainer", "exec", "--nv"])
    assert "exec apptainer exec --nv i.sif " in text


NASTY = "a;touch hit\n#SBATCH --wrap=x"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("partition", "a b"),
        ("partition", "a;b"),
        ("account", NASTY),
        ("qos", "$(x)"),
        ("time", "`x`"),
        ("memory", "1G'"),
        ("setup", [NASTY]),
        ("modules", [NASTY]),
        ("sbatch", [f"--x={NASTY}"]),
        ("sbatch", ["x"]),
        ("container", NASTY),
        ("python", "python\n\x1b[2J"),
    ],
)
def test_a_value_that_is_more_than_a_value_is_refused(tmp_path, field, value):
    with pytest.raises(ConfigError, match=f"sweep.options.{field}|sweep.options.python"):
        script(tmp_path, **{field: value})


def test_words_of_a_script_are_quoted(tmp_path):
    text = script(
        tmp_path, modules=["a; touch hit"], container="$(touch hit)", container_start=["b c"]
    )
    assert shlex.join(["module", "load", "a; touch hit"]) in text.splitlines()
    assert "exec 'b c' '$(touch hit)' " in text


@pytest.mark.parametrize("field", ["setup", "modules", "sbatch"])
def test_code_that_a_run_records_is_not_given_to_nodes_without_trust(tmp_path, field):
    with pytest.raises(PluginError, match=f"sweep.options.{field}: is code .*add --trust"):
        script(tmp_path, trust=False, **{field: ["--x"]})


def test_a_path_with_a_backslash_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="Slurm cannot write logs to a path with a backslash"):
        script(tmp_path / "a\\b")


def test_a_fraction_of_a_gpu_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="sweep.gpus: 0.5: Slurm gives whole GPUs"):
        script(tmp_path, gpus=0.5)


def test_an_unknown_option_names_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="unknown option 'partion'; did you mean 'partition'"):
        make_executor("slurm", {"partion": "a"}, JOB, Site(tmp_path))


def test_a_dry_run_shows_the_script_and_does_nothing(config_path, tmp_path):
    text = sweep_script(
        config_path, tmp_path / "run", overrides=["sweep.executor=slurm", "sweep.gpus=1"]
    )
    assert "#SBATCH --gpus-per-node=1" in text
    assert f"mixopt work {tmp_path}/run --task" in text
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_what_submits_nothing_is_refused(config_path, tmp_path):
    with pytest.raises(ConfigError, match="sweep.executor: 'local' submits no script"):
        sweep_script(config_path, tmp_path / "run")


def test_a_host_without_sbatch_says_what_is_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    trial = Trial("a", Mixture({"code": 1.0}), seed=0)
    means = Means("slurm")
    with pytest.raises(ConfigError, match="slurm needs s.*, which is not on PATH.*login node"):
        run_trials([trial], JOB, tmp_path / "trials", means=means)


def test_squeue_that_fails_for_a_while_is_waited_out(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    fake = folder / "squeue"
    fake.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Socket timed out' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    lines: list[str] = []
    executor = SlurmExecutor(JOB, Site(tmp_path / "trials", say=lines.append))
    executor._jobs = ["1"]
    executor._tend()
    executor._asked = 0.0
    executor._tend()
    assert lines == [
        "squeue: slurm_load_jobs error: Socket timed out; tasks continue, and squeue is asked again"
    ]
