"""A sweep on a real Slurm of two nodes: equal to one on this machine, whatever is killed."""

import re
import subprocess
from pathlib import Path

import pytest
from doc_pages import blocks_of
from fake_commands import fake_commands
from fault_runs import variables
from refusals import refuses
from work_runs import output_of

from mixopt import pipeline
from mixopt.config import SweepConfig
from mixopt.errors import ConfigError, RunError
from mixopt.mixture import Mixture
from mixopt.sweeps import (
    Ended,
    Job,
    Site,
    SlurmExecutor,
    Training,
    cancel_submitted,
    run_trials,
    slurm,
)
from mixopt.trials import Trial

JOB = Job("ngram", {}, Path("corpus"), Training(1000, device="cpu"))


def script(tmp_path, *, groups=8, device="cpu", workers=None, gpus=None, **options) -> str:
    """Return the script of a sweep in a folder."""
    site = Site(tmp_path / "trials", device, workers, gpus)
    return SlurmExecutor(site, **options).script(groups)


def test_a_killed_owner_is_taken_up_again_and_nothing_is_trained_twice(
    slurm_cluster, work_run, local_table
):
    run = work_run(executor="slurm", size=1, seconds=1)
    owner = run.owner()
    run.wait_for("ended", 2)
    owner.kill()
    text = output_of(run.owner())
    assert "submitted" not in text
    assert run.table() == local_table
    assert sorted(run.notes("ended")) == sorted(local_table["trial"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sbatch": {"partition": "nope"}}, "refused by sbatch: .*invalid partition"),
        (
            {"sbatch": {"partition": "small", "time": "3:00:00"}},
            "tasks would .* PartitionTimeLimit",
        ),
    ],
)
def test_what_slurm_refuses_is_one_line(slurm_cluster, work_run, options, message):
    run = work_run(executor="slurm", choices=options)
    with pytest.raises(ConfigError, match=f"sweep.options: {message}"):
        pipeline.run(run.config, run.path, until="sweep")
    run.wait_until(lambda: slurm_cluster.run("squeue", "--noheader").stdout == "")


def test_a_path_with_blanks_quotes_and_shell_signs_is_a_path(slurm_cluster, work_run, local_table):
    run = work_run(executor="slurm")
    odd = run.path.with_name("a 'b\" $(touch hit) `c` ;e&")
    run.path = run.path.rename(odd)
    output_of(run.owner())
    assert run.table() == local_table
    assert list((odd / "trials/logs").glob("*.log"))
    assert not Path("hit").exists()


def test_nodes_whose_python_has_no_mixopt_are_said_with_the_last_words(slurm_cluster, work_run):
    run = work_run(executor="slurm", choices={"python": "/usr/bin/nothing-of-the-kind"})
    text = output_of(run.owner(), 2)
    assert "the worker ended with exit code 127; tune-" in text
    assert "nothing-of-the-kind: No such file" in text


def test_each_command_of_the_page_runs_as_written(slurm_cluster, config_path, tmp_path):
    config_path.rename(tmp_path / "web.yaml")
    for command in "".join(blocks_of("slurm", "sh")).splitlines():
        how = {"cwd": tmp_path, "env": variables({}), "timeout": 120}
        subprocess.run(command, shell=True, check=True, **how)
    assert (tmp_path / "runs/web/trials.parquet").is_file()


def test_the_script_is_what_the_options_ask_for(tmp_path):
    text = script(
        tmp_path,
        gpus=2,
        workers=4,
        sbatch={"partition": "gpu", "time": "4:00:00", "cpus-per-task": 6, "job-name": "mine"},
        setup=["module load cuda/12.4", "export A=1"],
        python="srun --container-image='a b' python -X utf8",
    )
    lines = text.splitlines()
    for line in ("array=0-7%4", "gpus-per-node=2", "partition=gpu", "time=4:00:00"):
        assert f"#SBATCH --{line}" in lines
    assert "#SBATCH --cpus-per-task=6" in lines
    assert "job-name=mine" not in text  # by it, its own jobs are known
    assert lines.index("module load cuda/12.4") + 1 == lines.index("export A=1")
    python = "srun '--container-image=a b' python -X utf8"
    assert f'{python} -P -m mixopt.sweeps.train_group "$folder" &' in lines


THREADS, GPUS = "export OMP_NUM_THREADS=1 ", "#SBATCH --gpus"


@pytest.mark.parametrize(
    ("options", "there", "absent"),
    [
        ({}, ["--array=0-7%64\n", THREADS], GPUS),
        ({"groups": 1000, "workers": 5}, ["--array=0-999%5\n"], GPUS),
        ({"gpus": 1}, [f"{GPUS}-per-node=1"], THREADS),
        ({"device": "cuda"}, [f"{GPUS}-per-node=1"], THREADS),
    ],
)
def test_a_task_a_group_has_one_thread_or_its_gpus(tmp_path, options, there, absent):
    text = script(tmp_path, **options)
    assert all(line in text for line in there)
    assert absent not in text


NASTY = "a;touch hit\n#SBATCH --wrap=x"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sbatch", {"account": NASTY}, "account: has control characters"),
        ("sbatch", {NASTY: "a"}, ""),
        ("sbatch", ["--qos=a"], "should be a valid dictionary"),
        ("setup", [NASTY], "0: has control characters"),
        ("python", "python\n\x1b[2J", "has control characters"),
        ("python", "", "is empty"),
    ],
)
def test_a_value_that_is_more_than_a_value_is_refused(tmp_path, field, value, message):
    refuses(ConfigError, f"sweep.options.{field}: {message}", script, tmp_path, **{field: value})


def test_a_host_without_sbatch_and_a_fraction_of_a_gpu_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    trial = Trial("a", Mixture({"code": 1.0}), seed=0)
    means = SweepConfig(executor="slurm")
    with pytest.raises(ConfigError, match="No such file .*: start mixopt on a login node"):
        run_trials([trial], JOB, tmp_path / "trials", sweep=means)
    refuses(ConfigError, "sweep.gpus: 0.5: Slurm gives whole GPUs", script, tmp_path, gpus=0.5)


def test_squeue_that_fails_for_a_while_is_waited_out(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "ASK_EVERY", 0)
    script = "echo 'slurm_load_jobs error: Socket timed out' >&2\nexit 1"
    fake_commands(tmp_path / "bin", monkeypatch, squeue=script)
    lines: list[str] = []
    executor = SlurmExecutor(Site(tmp_path / "trials", say=lines.append))
    handle = f"1_0 {tmp_path}"
    assert executor.states([handle]) == {handle: "waiting"}, "patience is for what was seen to run"
    fake_commands(tmp_path / "bin", monkeypatch, squeue="echo '1_0|RUNNING|None'")
    assert executor.states([handle]) == {handle: "running"}
    fake_commands(tmp_path / "bin", monkeypatch, squeue=script)
    assert executor.states([handle]) == {handle: "running"}
    assert lines == [
        "squeue: slurm_load_jobs error: Socket timed out; tasks continue, and squeue is asked again"
    ]


def test_a_job_that_is_not_called_as_this_sweep_is_not_cancelled(tmp_path, monkeypatch):
    """A folder may name any job; squeue, which is asked by the sweep's name, has none of it."""
    scripts = {"squeue": "exit 0", "scancel": f"touch {tmp_path}/cancelled"}
    fake_commands(tmp_path, monkeypatch, **scripts)
    assert cancel_submitted(SweepConfig(executor="slurm"), tmp_path / "trials") == []
    folder = tmp_path / "trials" / "work" / "a.0"
    folder.mkdir(parents=True)
    (folder / "handle").write_text(f"77_0 {folder}")
    said = cancel_submitted(SweepConfig(executor="slurm"), tmp_path / "trials")
    assert said == ["slurm: 1 groups were stopped"]
    assert not (tmp_path / "cancelled").exists()


def test_exit_codes_of_tasks_say_how_they_ended(tmp_path, monkeypatch):
    fake_commands(tmp_path, monkeypatch, squeue="exit 0")
    executor, handle = SlurmExecutor(Site(tmp_path / "trials")), f"1_0 {tmp_path}"
    faults = {}
    for code in ("", "3", "137", "143"):
        (tmp_path / "exit").write_text(code)
        faults[code] = executor.states([handle])[handle].fault
    assert faults == {"": "lost", "3": "died", "137": "memory", "143": "lost"}


def test_folders_are_submitted_as_arrays_of_tasks_which_are_handles(tmp_path, monkeypatch):
    fake_commands(tmp_path / "bin", monkeypatch, sbatch="echo '12;cluster'", squeue="exit 0")
    monkeypatch.setattr(slurm, "MAX_ARRAY", 2)
    lines: list[str] = []
    executor = SlurmExecutor(Site(tmp_path / "trials", say=lines.append))
    work = tmp_path / "trials" / "work"
    folders = [work / name for name in "abc"]
    assert executor.slots == 64
    assert executor.start(folders) == [f"12_0 {work}/a", f"12_1 {work}/b", f"12_0 {work}/c"]
    assert (work / "array-1/folders.txt").read_text() == f"{work}/a\n{work}/b\n"
    assert "#SBATCH --array=0-1%64\n" in (work / "array-1/array.sh").read_text()
    assert "#SBATCH --array=0-0%64\n" in (work / "array-2/array.sh").read_text()
    assert lines == [
        f"submitted to Slurm as job 12: {work}/array-1/array.sh",
        f"submitted again to Slurm as job 12: {work}/array-2/array.sh",
    ]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo 'sbatch: error: no\n\nsbatch: error: account' >&2; exit 1", "no; account"),
        ("echo 12; echo late >&2; exit 1", "late"),
        (r"printf 'caf\351' >&2; exit 1", "caf\N{REPLACEMENT CHARACTER}"),
        ("exit 0", "no reason given"),
    ],
)
def test_what_sbatch_refuses_is_one_line(tmp_path, monkeypatch, command, message):
    fake_commands(tmp_path / "bin", monkeypatch, sbatch=command)
    with pytest.raises(ConfigError) as error:
        SlurmExecutor(Site(tmp_path / "trials")).start([tmp_path / "a"])
    assert str(error.value) == f"sweep.options: refused by sbatch: {message}"


def test_tasks_that_wait_say_why_once_or_are_refused_where_they_would_forever(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(slurm, "ASK_EVERY", 0)
    rows = r"1_0|PENDING|Priority\n1_1|CONFIGURING|None\n1_2|COMPLETED|None\nodd\n"
    fake_commands(tmp_path / "bin", monkeypatch, squeue=f"printf '{rows}'")
    lines: list[str] = []
    executor = SlurmExecutor(Site(tmp_path / "trials", say=lines.append))
    for _ in range(2):
        waiting = executor.states(["1_0 /a", "1_1 /b"])
        assert waiting == {"1_0 /a": "waiting", "1_1 /b": "waiting"}
    gone = executor.states(["1_0 /a", "1_2 /c"])["1_2 /c"]
    assert gone == Ended("the task 1_2 is gone from Slurm's queue", "lost")
    assert lines == ["tasks wait in Slurm's queue: None, Priority"]
    fake_commands(tmp_path / "bin", monkeypatch, squeue="echo '1_0|PENDING|InvalidQOS'")
    with pytest.raises(ConfigError, match="tasks would wait forever: InvalidQOS; cancelled$"):
        executor.states(["1_0 /a"])


def test_tasks_of_this_sweep_are_cancelled_by_their_name(tmp_path, monkeypatch):
    log = tmp_path / "log"
    squeue, note = r"printf '1_0|RUNNING|None\n1_2|PENDING|None\n'", f'echo "$@" >> {log}'
    fake_commands(tmp_path / "bin", monkeypatch, squeue=squeue, scancel=note)
    executor = SlurmExecutor(Site(tmp_path / "my runs" / "trials"))
    executor.cancel([])
    executor.cancel(["1_0 /a", "1_1 /b", "1_2 /c"])
    (name,) = re.findall("--job-name=(mixopt-my_runs-.*)", executor.script(1))
    assert log.read_text() == f"--quiet --name={name} 1_0 1_2\n"
    gone = "echo 'scancel: error: Invalid job id 1' >&2; exit 1"
    fake_commands(tmp_path / "bin", monkeypatch, squeue=squeue, scancel=gone)
    executor.cancel(["1_0 /a"])
    fake_commands(tmp_path / "bin", monkeypatch, squeue=squeue, scancel="echo down >&2; exit 1")
    with pytest.raises(RunError) as error:
        executor.cancel(["1_0 /a"])
    assert str(error.value) == f"scancel: down; cancel them with: scancel --name={name}"


def test_commands_of_slurm_have_a_deadline_and_are_named_where_they_cannot_start(
    tmp_path, monkeypatch
):
    executor = SlurmExecutor(Site(tmp_path / "trials"))
    monkeypatch.setattr(slurm, "DEADLINE", 0.2)
    fake_commands(tmp_path / "bin", monkeypatch, squeue="exec sleep 9")
    refuses(RunError, r"^squeue: no answer within 0\.2 s$", executor.cancel, ["1_0 /a"])
    (tmp_path / "bin" / "squeue").write_text("#!/no/such/shell\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ConfigError, match="^squeue: cannot be started: No such file or directory"):
        executor.cancel(["1_0 /a"])
