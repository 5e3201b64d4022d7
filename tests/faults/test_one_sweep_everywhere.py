"""One small sweep gives one table: on this machine, on two nodes of Ray, on two nodes of Slurm.

With a proxy of ours and with a script of the user's own, and an owner and a node killed in the
middle.
"""

import sys

import pytest
from ray_nodes import QUIET
from work_runs import WorkRun, output_of

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
    "ngram": {"name": "ngram", "tokens": 400_000, "eval_tokens": 4096},
    "command": {
        "name": "command",
        "result": "metrics.json",
        "losses": "loss.{domain}",
        "tokens": 20_000,
    },
}


def owner_with_a_trial(run):
    """Start a sweep, and return its owner when some trial, and not the last, has a result."""
    owner = run.owner()
    run.wait_until(lambda: list((run.path / "trials").glob("t[0-9]*.json")))
    assert not (run.path / "trials.parquet").exists(), "it has ended already"
    return owner


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_same_sweep_gives_the_same_table_everywhere(
    ray_nodes, slurm_cluster, short_texts, tmp_path, proxy
):
    trainer = tmp_path / "train.py"
    trainer.write_text(TRAINER)
    kind = dict(PROXIES[proxy])
    if proxy == "command":
        names = "{mixture} {corpus} {tokens} {seed} {out}"
        kind["run"] = f"{sys.executable} {trainer} {names}"
    here = WorkRun(tmp_path / "local", short_texts, kind, trials=12).design()
    on_ray = here.copy(tmp_path / "ray", executor="ray", choices={"address": ray_nodes.address})
    on_slurm = here.copy(tmp_path / "slurm", executor="slurm")
    output_of(here.owner())
    assert here.table()["status"] == ["finished"] * 12

    owner = owner_with_a_trial(on_ray)
    owner.kill()
    owner.communicate()
    owner = on_ray.owner()
    ray_nodes.kill(ray_nodes.last)
    ray_nodes.last = ray_nodes.add()
    output_of(owner)
    assert on_ray.table() == here.table()

    owner = owner_with_a_trial(on_slurm)
    slurm_cluster.kill_node("n2")
    slurm_cluster.start_node("n2")
    output_of(owner)
    assert on_slurm.table() == here.table()
    slurm_cluster.wait_for_nodes()
