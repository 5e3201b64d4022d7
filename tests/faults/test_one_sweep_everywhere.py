"""One small sweep gives one table: on this machine, on two nodes of Ray, on two nodes of Slurm.

With a proxy of ours and with a script of the user's own, and an owner and a node killed in the
middle.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from fault_runs import command, mixopt, variables
from ray_nodes import QUIET, ended, started
from slurm_cluster import SlurmCluster, why_not

pytestmark = QUIET
TRAINER = """
import json, sys, time
from pathlib import Path
import numpy as np
import yaml

mixture, corpus, tokens, seed, out = sys.argv[1:]
rng, corpus = np.random.default_rng(int(seed)), Path(corpus)


def text(domain, split):
    files = sorted((corpus / domain / split).glob("*.bin"))
    return np.concatenate([np.fromfile(file, np.uint16) for file in files])


counts = np.ones(1 << 16)  # a model of single tokens
for domain, weight in yaml.safe_load(Path(mixture).read_text())["weights"].items():
    drawn = rng.choice(text(domain, "train"), int(weight * int(tokens)))
    counts += np.bincount(drawn, minlength=len(counts))
losses = -np.log(counts / counts.sum())
found = {d.parent.name: losses[text(d.parent.name, "validation")].mean().item()
         for d in sorted(corpus.glob("*/validation"))}
time.sleep(0.5)
Path(out, "metrics.json").write_text(json.dumps({"seed": int(seed), "loss": found}))
"""
PROXIES = {
    "ngram": "{name: ngram, tokens: 400_000, eval_tokens: 4096}",
    "command": f"""
  name: command
  run: >-
    {sys.executable} FOLDER/train.py {{mixture}} {{corpus}} {{tokens}} {{seed}} {{out}}
  result: metrics.json
  losses: loss.{{domain}}
  tokens: 20_000""",
}


@pytest.fixture(scope="module")
def ray_nodes():
    cluster = started()
    yield cluster
    ended(cluster)


@pytest.fixture(scope="module")
def slurm_nodes(tmp_path_factory):
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.end()


class EverywhereSweep:
    """An experiment, run on one executor after the other."""

    def __init__(self, folder: Path, text: dict[str, Path], proxy: str) -> None:
        self.folder = folder
        (folder / "train.py").write_text(TRAINER)
        self.config = folder / "everywhere.yaml"
        self.config.write_text(f"""\
corpus:
  domains: {{code: {{path: {text["code"]}}}, prose: {{path: {text["prose"]}}}}}
evaluation: {{help: {{path: {text["help"]}}}}}
design: {{trials: 8, replicates: 2, max_usage: null}}
proxy: {PROXIES[proxy].replace("FOLDER", str(folder))}
objective: {{target: help}}
tracking: {{enabled: false}}
""")

    def start(self, name: str, *overrides: str, **environment: str) -> subprocess.Popen[str]:
        """Start the sweep."""
        asked = (self.config, "--out", self.folder / name)
        assert mixopt("design", *asked).returncode == 0
        given = [part for one in overrides for part in ("--set", one)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        words = command("sweep", *asked, *given)
        return subprocess.Popen(words, env=variables(environment), **pipes)

    def wait_for_a_trial(self, name: str, owner: subprocess.Popen[str]) -> None:
        """Wait until some trial, and not the last, has a result."""
        while not list((self.folder / name / "trials").glob("t[0-9]*.json")):
            assert owner.poll() is None, owner.communicate()[0]
            time.sleep(0.02)
        assert not (self.folder / name / "trials.parquet").exists(), "it has ended already"

    def table(self, name: str, owner: subprocess.Popen[str]) -> pl.DataFrame:
        """Return the table of trials, once the sweep has ended."""
        said = owner.communicate(timeout=400)[0]
        assert owner.returncode == 0, said
        return pl.read_parquet(self.folder / name / "trials.parquet").drop("seconds")


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_same_sweep_gives_the_same_table_everywhere(
    ray_nodes, slurm_nodes, text_files, tmp_path, proxy
):
    sweep = EverywhereSweep(tmp_path, text_files, proxy)
    here = sweep.table("local", sweep.start("local", "sweep.workers=2"))
    assert here["status"].to_list() == ["finished"] * 12

    on_ray = ("ray", "sweep.executor=ray", f"sweep.options.address={ray_nodes.address}")
    owner = sweep.start(*on_ray)
    sweep.wait_for_a_trial("ray", owner)
    owner.kill()
    owner.communicate()
    owner = sweep.start(*on_ray)
    ray_nodes.kill(ray_nodes.last)
    ray_nodes.last = ray_nodes.add()
    assert sweep.table("ray", owner).equals(here)

    owner = sweep.start(
        "slurm", "sweep.executor=slurm", "sweep.workers=2", **slurm_nodes.environment
    )
    sweep.wait_for_a_trial("slurm", owner)
    slurm_nodes.kill_node("n2")
    slurm_nodes.start_node("n2")
    assert sweep.table("slurm", owner).equals(here)
    slurm_nodes.wait_for_nodes()
