"""A run that the quickest proxy does, the state before each of its steps, and what it comes to."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import polars as pl
import yaml

STEPS = ("prepare", "design", "sweep", "fit", "propose", "validate", "report")
NUMBERS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
NUMBERS |= {"terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
SIGNALS = tuple(NUMBERS)
OURS = 70  # the exit code of a defect of ours
KINDS = int(os.environ.get("MIXOPT_FAULTS", "0"))  # of each kind so many; 0: a part of one of each

# An experiment that an n-gram proxy does in seconds.
EXPERIMENT = """\
name: tiny
corpus:
  domains:
    code: {{path: {folder}/code.jsonl}}
    prose: {{path: {folder}/prose.jsonl}}
evaluation:
  help: {{path: {folder}/help.jsonl}}
design: {{trials: 8, replicates: 2, max_usage: null}}
proxy:
  name: ngram
  tokens: 20000
  eval_tokens: 4096
sweep: {{workers: 2}}
fit: {{regressors: [linear], folds: 3}}
objective: {{target: help}}
propose: {{samples: 2000, bootstrap: 3}}
validate: {{max_seeds: 3, rounds: 1}}
tracking: {{enabled: false}}
"""


def quick_config(texts):
    """Return a quicker experiment on the short texts of a folder."""
    config = yaml.safe_load(EXPERIMENT.format(folder=texts))
    config["corpus"]["validation_fraction"] = 0.2
    return config | {
        "tasks": {"sets": {"words": f"{texts}/words.jsonl"}, "items": 12},
        "design": {"trials": 6, "replicates": 2, "max_usage": None},
        "proxy": {"name": "ngram", "tokens": 4000, "eval_tokens": 2048},
        "propose": {"samples": 500, "bootstrap": 3},
        "validate": {"max_seeds": 5},
    }


def mixopt(*arguments, cwd=None, **environment):
    """Run a command to its end; it may take two minutes."""
    given = {"cwd": cwd, "capture_output": True, "text": True, "env": variables(environment)}
    return subprocess.run(command(*arguments), check=False, timeout=120, **given)


def command(*arguments):
    """Return a command; the name of a step before a configuration is a run until there."""
    words = list(map(str, arguments))
    if words[0] in STEPS and words[1].endswith(".yaml"):
        words = ["run", *words[1:], "--until", words[0]]
    return [sys.executable, "-m", "mixopt", *words]


def variables(more):
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing disturbed: its directory before each step, and each command's seconds."""

    config: Path
    states: dict[str, Path]
    seconds: dict[str, float]

    def before(self, step, to):
        return shutil.copytree(self.states[step], to)

    def after(self, step):
        return self.states[(*STEPS, "end")[STEPS.index(step) + 1]]


def undisturbed(folder, texts):
    """Do a whole run on some texts, a step at a time."""
    config, run = folder / "faults.yaml", folder / "run"
    config.write_text(yaml.safe_dump(quick_config(texts)))
    run.mkdir()
    states, seconds = {}, {}
    for step in STEPS:
        states[step] = shutil.copytree(run, folder / "states" / step)
        begun = time.monotonic()
        ended = mixopt(step, config, "--out", run)
        assert ended.returncode == 0, ended.stderr
        seconds[step] = time.monotonic() - begun
    states["end"] = shutil.copytree(run, folder / "states" / "end")
    return Undisturbed(config, states, seconds)


def results(run):
    """Return what a run found: tables without what clocks say, tokens, and the proposal."""
    found = {p: p.read_bytes() for p in run.rglob("*") if p.suffix in {".bin", ".yaml"}}
    for path in run.rglob("*.parquet"):
        found[path] = pl.read_parquet(path).drop("seconds", strict=False).to_dict(as_series=False)
    return {str(path.relative_to(run)): content for path, content in found.items()}


def disturb(commands, kind, after):
    """Start commands, each with its environment, as one group; signal it after some seconds.

    `kind` is one of `NUMBERS` or `none`; a group that is stopped is killed while it stands.
    Return the exit codes.
    """
    first = _start(*commands[0], group=0)
    group = [first] + [_start(*item, group=first.pid) for item in commands[1:]]
    time.sleep(after)
    if kind != "none":
        _send(first.pid, NUMBERS[kind])
    if kind == "stop":
        time.sleep(0.2)
        _send(first.pid, signal.SIGKILL)
    codes = [process.wait(400) for process in group]
    _send(first.pid, signal.SIGKILL)  # processes that those have left
    return codes


def moment(seconds, *seed):
    """Draw a moment of a command that takes so many seconds."""
    return Random(repr(seed)).uniform(0.05, 0.95) * seconds


def _start(arguments, environment, group):
    null = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(arguments, env=variables(environment), process_group=group, **null)


def _send(group, number):
    with suppress(ProcessLookupError):
        os.killpg(group, number)
