"""Examples for other schedulers: the files parse, name commands that exist, and the loop runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mixopt import pipeline
from mixopt.sweeps import work_tasks

HERE = Path(__file__).parents[2] / "experiments" / "cluster"
FILES = ("kubernetes_job.yaml", "skypilot.yaml", "kuberay_job.yaml")
OPTIONS = {"--task", "--trust", "--wait", "--out", "--executor"}


@pytest.mark.parametrize("name", FILES)
def test_an_example_parses_and_its_command_has_options_that_exist(name):
    text = (HERE / name).read_text()
    assert isinstance(yaml.safe_load(text), dict)
    (command,) = re.findall(r"mixopt (?:work|run) .*", text)
    assert set(re.findall(r"--[a-z]+", command)) <= OPTIONS


def test_a_job_of_kubernetes_has_as_many_tasks_as_its_command_says():
    job = yaml.safe_load((HERE / "kubernetes_job.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert job["spec"]["completionMode"] == "Indexed"
    assert f'"$JOB_COMPLETION_INDEX/{job["spec"]["completions"]}"' in container["args"][0]


def test_the_loop_trains_a_designed_sweep(config_path, tmp_path):
    run = tmp_path / "run"
    pipeline.prepare(config_path, run)
    pipeline.design(config_path, run)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["sh", str(HERE / "loop.sh"), str(run), "2"],
        check=True,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert {task.share for task in work_tasks(run / "trials")} == {"0/2", "1/2"}
    pipeline.sweep(config_path, run)
    assert (run / "trials.parquet").is_file()
