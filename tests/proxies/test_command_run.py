"""A whole run by a command, with domains and targets whose text is nowhere here."""

import sys

import pytest

from mixopt import run
from mixopt.config import load_config
from mixopt.errors import RunError
from mixopt.run_directory import open_run

pytestmark = pytest.mark.nightly

TRAINER = """\
import json, math, os, sys
import random
told = json.load(open(sys.argv[1] + "/trial.json"))
random.seed(int(sys.argv[2]))
own = {d: 2.0 + math.exp(-4 * w) for d, w in told["weights"].items()}
losses = {**own, "exams": 0.7 * own["web"] + 0.3 * own["code"]}
noisy = {d: loss + random.gauss(0, 1e-3) for d, loss in losses.items()}
json.dump({"eval": noisy, "other": noisy, "seed": told["seed"]}, open("metrics.json", "w"))
"""
CONFIG = """\
name: own
corpus:
  domains: {{web: {{tokens: 1.2e12}}, code: {{tokens: 4e11}}, books: {{tokens: 2e11}}}}
evaluation: {{exams: {{}}}}
design: {{trials: 8, replicates: 2}}
proxy:
  name: command
  run: {python} {script} {{out}} {{seed}}
  result: metrics.json
  losses: eval.{{domain}}
  tokens: 1e9
sweep: {{workers: 2}}
objective: {{target: exams, unit: nats_per_token}}
tracking: {{enabled: false}}
"""


def test_where_losses_are_may_change_without_training_again(tmp_path):
    path, out, script = tmp_path / "own.yaml", tmp_path / "run", tmp_path / "train.py"
    script.write_text(TRAINER)
    text = CONFIG.format(python=sys.executable, script=script)
    path.write_text(text)
    run(path, out, until="sweep")
    path.write_text(text.replace("eval.{domain}", "other.{domain}"))
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
