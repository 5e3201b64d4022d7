"""The commands of docs/slurm.md, run as written on a real Slurm."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster, why_not

PAGE = Path(__file__).parents[2] / "docs" / "slurm.md"


@pytest.mark.nightly
@pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
def test_each_command_of_the_page_runs_as_written(config_path, tmp_path, tmp_path_factory):
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    config_path.rename(tmp_path / "web.yaml")
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.S)
    commands = [line for block in blocks for line in block.splitlines()]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **cluster.environment, "PATH": path, "OMP_NUM_THREADS": "1"}
    try:
        for command in commands:
            how = {"cwd": tmp_path, "env": environment, "timeout": 120}
            subprocess.run(command, shell=True, check=True, **how)
    finally:
        cluster.end()
    assert (tmp_path / "runs/web/trials.parquet").is_file()
