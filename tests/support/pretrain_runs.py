"""Runs of `mixopt pretrain` on real ranks, and what they leave behind, for the tests of it."""

import json
import time
from itertools import chain
from pathlib import Path

import pretrain_job
import torch
import yaml
from ranks import kill, start_ranks
from safetensors.torch import load_file

STEPS, BATCH, LENGTH = 24, 8, 32
CONFIG = yaml.safe_load(f"""
model: {{name: pretrain_job:Recording}}
training: {{steps: {STEPS}, batch: {BATCH}, micro_batch: 4, sequence_length: {LENGTH}, lr: 0.003,
  precision: float32}}
mixture: {{weights: {{code: 0.7, manual: 0.3}}}}
held_out: {{every: 12, tokens: 512}}
# A run that is killed after so many passes has the checkpoint that was due.
checkpoint: {{every: 5}}
metrics: {{every: 4}}
tracking: {{enabled: false}}
""")
DECODER = {"name": "decoder", "options": {"layers": 1, "width": 32, "heads": 2, "ff": 48}}


def write_config(folder, **parts):
    """Write the configuration with some of its parts replaced."""
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **parts}))
    return path


class Job:
    """Ranks of one run, as processes."""

    def __init__(self, context, config, out, ranks, overrides=()):
        out.parent.mkdir(parents=True, exist_ok=True)
        self.order = out.with_name(f"{out.name}.{time.monotonic_ns()}.order")
        self.out, self.ranks = out, ranks
        given = (config, out, list(overrides), self.order)
        self._ranks = start_ranks(ranks, pretrain_job.__file__, "trained", *given, group=None)
        self.processes = [rank.process for rank in self._ranks]

    def wait(self):
        for process in self.processes:
            process.join(120)
        codes = [process.exitcode for process in self.processes]
        self.kill()
        return codes

    def until(self, passes):
        log = Path(f"{self.order}.0")
        self.until_true(lambda: log.exists() and log.read_text().count("\n") >= passes)

    def until_true(self, reached):
        end = time.monotonic() + 120
        while not reached():
            assert any(p.is_alive() for p in self.processes), self.error
            assert time.monotonic() < end, "not reached in time"
            time.sleep(0.001)

    def kill(self):
        kill(self._ranks)

    @property
    def error(self):
        return [rank.said.recv() for rank in self._ranks if rank.process.exitcode == 1]

    def batches(self):
        """Return the sequences of each global batch that all ranks have seen."""
        seen = []
        for rank in range(self.ranks):
            lines = Path(f"{self.order}.{rank}").read_text().splitlines(keepends=True)
            flat = [item for line in lines if line.endswith("\n") for item in json.loads(line)]
            size = BATCH // self.ranks
            seen.append([flat[k : k + size] for k in range(0, len(flat) - size + 1, size)])
        return [list(chain(*parts)) for parts in zip(*seen, strict=False)]


def finished(context, config, out, ranks=1, overrides=()):
    job = Job(context, config, out, ranks, overrides)
    assert job.wait() == [0] * ranks, job.error
    return job


def log_of(out):
    return (out / "mixture_log.jsonl").read_text()


def lines_of(file):
    """Return lines of JSON without what is measured by a clock."""
    timed = {"time", "tokens_per_second"}
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [{name: v for name, v in line.items() if name not in timed} for line in lines]


def metrics_of(out):
    return lines_of(out / "metrics.jsonl")


def step_of(out):
    return max(int(path.name.removeprefix("step-")) for path in checkpoints(out))


def checkpoints(out):
    return sorted((out / "checkpoints").glob("step-*"))


def weights_of(out):
    found = {}
    for shard in checkpoints(out)[-1].glob("*.safetensors"):
        found |= load_file(shard)
    return found


def assert_same_weights(first, other):
    assert first.keys() == other.keys()
    for name, value in first.items():
        assert torch.equal(value, other[name]), name


def assert_equal_runs(first, other):
    assert_same_weights(weights_of(first), weights_of(other))
    assert log_of(first) == log_of(other)
    assert metrics_of(first) == metrics_of(other)


def assert_goes_on(first, second, whole):
    """Check that a run that was cut and resumed saw the batches of an undisturbed one."""
    expected, before, after = whole.batches(), first.batches(), second.batches()
    assert before == expected[: len(before)]
    assert after == expected[len(expected) - len(after) :]
    assert len(before) + len(after) >= len(expected)
