"""Pretraining on real processes: a run that was killed, stopped or moved comes to the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from itertools import chain
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mixopt import Corpus, Mixture, MixtureSampler, pretrain
from mixopt.errors import RunError
from mixopt.testing import tiny_corpus

HERE = Path(__file__).parent
STEPS, BATCH, LENGTH = 24, 8, 32
WEIGHTS = {"code": 0.7, "manual": 0.3}
CONFIG = {
    "model": {"name": "pretrain_job:Recording"},
    "training": {
        "steps": STEPS,
        "batch": BATCH,
        "micro_batch": 4,
        "sequence_length": LENGTH,
        "lr": 3e-3,
        "precision": "float32",
    },
    "mixture": {"weights": WEIGHTS},
    "held_out": {"every": 12, "tokens": 512},
    "checkpoint": {"every": 5},
    "metrics": {"every": 4},
    "tracking": {"enabled": False},
}
SCHEDULE = "schedule=[{step: 7, anchor: uniform}, {step: 16, weights: {code: 0.1, manual: 0.9}}]"
ODM = "estimator={name: odm, observe_every: 2, options: {warmup_steps: 2}}"
AIOLI = (
    "estimator={name: aioli, options: {update_steps: 12, sweeps: 1, sweep_steps: 2, one_hot: 0.8}}"
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return tiny_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def config(corpus, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "run.yaml"
    path.write_text(yaml.safe_dump({"prepared_corpus": str(corpus.path), **CONFIG}))
    return path


@pytest.fixture(scope="module", autouse=True)
def models():
    """Let models be named by a module of this folder; the forked ranks have the same path."""
    sys.path.insert(0, str(HERE))
    yield
    sys.path.remove(str(HERE))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def context(models):
    """Processes that have torch already when they are forked."""
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(
        ["mixopt.pretraining.run", "mixopt_proxies.causal_lm", "torch._dynamo"]
    )
    return forked


class Job:
    """Ranks of one run, as processes."""

    def __init__(self, context, config, out, ranks, overrides=()):
        from pretrain_job import run_rank

        out.parent.mkdir(parents=True, exist_ok=True)
        self.order = out.with_name(f"{out.name}.{time.monotonic_ns()}.order")
        self.errors = out.with_name(f"{self.order.name}.error")
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        self.out, self.ranks = out, ranks
        self.processes = [
            context.Process(
                target=run_rank,
                args=(r, ranks, port, config, out, list(overrides), self.order, self.errors),
            )
            for r in range(ranks)
        ]
        for process in self.processes:
            process.start()

    def wait(self) -> list[int | None]:
        for process in self.processes:
            process.join(120)
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        return codes

    def until(self, passes: int) -> None:
        """Wait until rank 0 has begun so many passes."""
        log = Path(f"{self.order}.0")
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if log.exists() and log.read_text().count("\n") >= passes:
                return
            assert any(p.is_alive() for p in self.processes), self.error
            time.sleep(0.001)
        raise AssertionError(f"no {passes} passes in time")

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
        self.wait()

    @property
    def error(self) -> str:
        return self.errors.read_text() if self.errors.exists() else ""

    def batches(self) -> list[list[int]]:
        """Return the sequences of each global batch that all ranks have seen."""
        seen = []
        for rank in range(self.ranks):
            lines = Path(f"{self.order}.{rank}").read_text().splitlines(keepends=True)
            passes = [json.loads(line) for line in lines if line.endswith("\n")]
            flat = [one for part in passes for one in part]
            size = BATCH // self.ranks
            seen.append([flat[k : k + size] for k in range(0, len(flat) - size + 1, size)])
        return [list(chain(*parts)) for parts in zip(*seen, strict=False)]


def finished(context, config, out, ranks=1, overrides=()):
    job = Job(context, config, out, ranks, overrides)
    assert job.wait() == [0] * ranks, job.error
    return job


def log_of(out):
    return (out / "mixture_log.jsonl").read_text()


def metrics_of(out, *, timed=("time", "tokens_per_second")):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: v for name, v in line.items() if name not in timed} for line in lines]


def step_of(out):
    return max(int(path.name.removeprefix("step-")) for path in checkpoints(out))


def checkpoints(out):
    return sorted((out / "checkpoints").glob("step-*"))


def weights_of(out):
    found = {}
    for shard in checkpoints(out)[-1].glob("*.safetensors"):
        found |= load_file(shard)
    return found


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def assert_goes_on(first: Job, second: Job, whole: Job):
    """The batches of a run that was cut and went on are those of one that was not."""
    expected, before, after = whole.batches(), first.batches(), second.batches()
    assert before == expected[: len(before)]
    assert after == expected[len(expected) - len(after) :]
    assert len(before) + len(after) >= len(expected)


@pytest.fixture(scope="module")
def scheduled(context, config, tmp_path_factory):
    """An undisturbed run with a schedule."""
    out = tmp_path_factory.mktemp("scheduled") / "run"
    return finished(context, config, out, overrides=[SCHEDULE])


@pytest.fixture(scope="module")
def steered(context, config, tmp_path_factory):
    """An undisturbed run that an estimator steers with sweeps and held-out losses."""
    out = tmp_path_factory.mktemp("steered") / "run"
    return finished(context, config, out, overrides=[AIOLI])


# --- One process --------------------------------------------------------------------------------


def test_batches_are_those_of_the_sampler_with_changes_at_the_stated_steps(scheduled, corpus):
    from pretrain_job import zlib

    sizes = {d.name: d.train.tokens // (LENGTH + 1) for d in corpus.domains}
    changes = [(7, Mixture.uniform(list(sizes))), (16, {"code": 0.1, "manual": 0.9})]
    order = MixtureSampler(sizes, WEIGHTS, batch_size=BATCH, rank=0, world_size=1, schedule=changes)
    names, rows = order.locate(0, STEPS * BATCH)
    expected = []
    for domain, row in zip(names.tolist(), rows.tolist(), strict=True):
        tokens = corpus.domains[domain].train.rows([row * (LENGTH + 1)], LENGTH)[0]
        expected.append(zlib.crc32(tokens.astype("int64").tobytes()))
    assert list(chain(*scheduled.batches())) == expected
    lines = [json.loads(line) for line in log_of(scheduled.out).splitlines()]
    assert [(line["batch"], line["why"]) for line in lines] == [
        (0, "start: weights"),
        (7, "schedule: uniform"),
        (16, "schedule: weights"),
    ]
    assert [line["weights"]["code"] for line in lines] == [0.7, 0.5, 0.1]


def test_losses_fall_and_are_kept_by_domain(scheduled):
    lines = metrics_of(scheduled.out)
    train = [line for line in lines if "loss" in line]
    assert [line["step"] for line in train] == list(range(4, STEPS + 1, 4))
    assert train[-1]["loss"] < train[0]["loss"] - 0.3
    assert set(train[0]["train_loss"]) == {"code", "manual"}
    assert train[-1]["tokens"] == STEPS * BATCH * LENGTH
    held_out = [line for line in lines if "held_out_loss" in line]
    assert [line["step"] for line in held_out] == [12, 24]
    assert set(held_out[0]["held_out_loss"]) == {"code", "manual", "other_code"}
    assert held_out[1]["held_out_loss"]["code"] < held_out[0]["held_out_loss"]["code"]


def test_a_finished_run_does_no_work(scheduled, config):
    def stamps():
        files = (p for p in scheduled.out.rglob("*") if p.is_file() and p.name != ".lock")
        return {path: path.stat().st_mtime_ns for path in files}

    before = stamps()
    result = pretrain(config, scheduled.out, [SCHEDULE, "metrics.every=1"])
    after = stamps()
    after.pop(scheduled.out / "config.yaml"), before.pop(scheduled.out / "config.yaml")
    assert after == before
    assert (result.is_finished, result.step, result.skipped) == (True, STEPS, 0)
    assert set(result.losses) == {"code", "manual", "other_code"}
    assert result.weights == {"code": 0.1, "manual": 0.9}


def test_only_the_last_checkpoints_are_kept(scheduled):
    assert [path.name for path in checkpoints(scheduled.out)] == ["step-00000020", "step-00000024"]


# --- Killed, stopped, moved ---------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "overrides"), [("scheduled", [SCHEDULE]), ("steered", [AIOLI])])
def test_a_run_killed_at_a_random_step_goes_on_as_if_it_was_not(
    kind, overrides, request, context, config, tmp_path
):
    whole = request.getfixturevalue(kind)
    first = Job(context, config, tmp_path / "run", 1, overrides)
    passes = random.randrange(2, 2 * STEPS - 4)
    first.until(passes)
    first.kill()
    second = finished(context, config, tmp_path / "run", overrides=overrides)
    assert_goes_on(first, second, whole)
    assert log_of(tmp_path / "run") == log_of(whole.out), passes
    assert metrics_of(tmp_path / "run") == metrics_of(whole.out), passes
    assert_same_weights(weights_of(tmp_path / "run"), weights_of(whole.out))


def test_the_log_of_an_estimator_has_each_change_and_why(steered):
    lines = [json.loads(line) for line in log_of(steered.out).splitlines()]
    assert lines[0]["why"] == "start"
    assert lines[0]["weights"] == WEIGHTS
    assert len({line["why"] for line in lines}) > 3
    batches = [line["batch"] for line in lines]
    assert batches == sorted(batches)


def test_two_ranks_are_one(context, config, steered, tmp_path):
    job = finished(context, config, tmp_path / "run", ranks=2, overrides=[AIOLI])
    assert job.batches() == steered.batches()
    assert log_of(job.out) == log_of(steered.out)
    assert_same_weights(weights_of(job.out), weights_of(steered.out))


def test_two_killed_ranks_go_on_as_one(context, config, steered, tmp_path):
    first = Job(context, config, tmp_path / "run", 2, [AIOLI])
    passes = random.randrange(7, STEPS - 2)
    first.until(passes)
    first.kill()
    second = finished(context, config, tmp_path / "run", overrides=[AIOLI])
    assert_goes_on(first, second, steered)
    assert log_of(tmp_path / "run") == log_of(steered.out), passes
    assert_same_weights(weights_of(tmp_path / "run"), weights_of(steered.out))


def test_sigterm_to_one_rank_stops_all_after_the_same_step_with_a_checkpoint(
    context, config, scheduled, tmp_path
):
    first = Job(context, config, tmp_path / "run", 2, [SCHEDULE])
    first.until(8)
    os.kill(first.processes[1].pid, signal.SIGTERM)
    assert first.wait() == [0, 0]
    stopped = step_of(tmp_path / "run")
    assert 8 <= stopped < STEPS
    assert len(first.batches()) == stopped
    second = finished(context, config, tmp_path / "run", ranks=2, overrides=[SCHEDULE])
    assert first.batches() + second.batches() == scheduled.batches()
    assert log_of(tmp_path / "run") == log_of(scheduled.out)
    assert_same_weights(weights_of(tmp_path / "run"), weights_of(scheduled.out))


def test_dropout_goes_on_where_it_was(context, config, tmp_path):
    overrides = ["model.name=pretrain_job:Dropping", "training.steps=8", "checkpoint.every=3"]
    whole = finished(context, config, tmp_path / "whole", overrides=overrides)
    first = Job(context, config, tmp_path / "run", 1, overrides)
    first.until(9)
    first.kill()
    finished(context, config, tmp_path / "run", overrides=overrides)
    assert_same_weights(weights_of(tmp_path / "run"), weights_of(whole.out))


def test_what_a_killed_save_left_is_no_checkpoint(context, config, scheduled, tmp_path):
    first = Job(context, config, tmp_path / "run", 1, [SCHEDULE])
    first.until(2 * 12)
    first.kill()
    unfinished = tmp_path / "run" / "checkpoints" / ".step-00000099.tmp"
    unfinished.mkdir()
    (unfinished / "state.json").write_text("{")
    finished(context, config, tmp_path / "run", overrides=[SCHEDULE])
    assert log_of(tmp_path / "run") == log_of(scheduled.out)
    assert not unfinished.exists()


def test_a_damaged_checkpoint_is_named(context, config, tmp_path):
    overrides = ["training.steps=6"]
    job = Job(context, config, tmp_path / "run", 1, [*overrides, "checkpoint.every=3"])
    job.until(9)
    job.kill()
    shard = next(checkpoints(tmp_path / "run")[-1].glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(RunError, match=r"safetensors: has \d+ bytes, not \d+; remove .*step-"):
        pretrain(config, tmp_path / "run", overrides)


# --- Sharded ------------------------------------------------------------------------------------


def test_sharded_ranks_train_as_replicated_ones_and_go_on_as_one(context, config, tmp_path):
    overrides = [SCHEDULE, "parallel=fsdp"]
    whole = finished(context, config, tmp_path / "whole", overrides=[SCHEDULE, "parallel=none"])
    first = Job(context, config, tmp_path / "run", 2, overrides)
    first.until(17)
    first.kill()
    second = finished(context, config, tmp_path / "run", overrides=[SCHEDULE, "parallel=none"])
    assert_goes_on(first, second, whole)
    assert log_of(tmp_path / "run") == log_of(whole.out)
    for name, value in weights_of(whole.out).items():
        torch.testing.assert_close(weights_of(tmp_path / "run")[name], value, rtol=1e-3, atol=1e-4)


# --- Steps that are not finite ------------------------------------------------------------------


def test_a_step_that_is_not_finite_on_one_rank_is_skipped_on_all(context, config, tmp_path):
    broken = ["model={name: 'pretrain_job:Broken', options: {first: 3, last: 5}}", SCHEDULE]
    job = finished(context, config, tmp_path / "run", ranks=2, overrides=broken)
    lines = [line for line in metrics_of(job.out) if "loss" in line]
    assert [line["skipped"] for line in lines] == [1, 2, 2, 2, 2, 2]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert all(torch.isfinite(value).all() for value in weights_of(job.out).values())
    taken = weights_of(job.out)["optimizer.state.embedding.step"]
    assert int(taken) == STEPS - 2


def test_too_many_such_steps_end_the_run_with_one_line(context, config, tmp_path):
    broken = ["model={name: 'pretrain_job:Broken', options: {first: 3, last: 99}}"]
    limit = ["training.max_skipped=2", ODM, "estimator.observe_every=1"]
    job = Job(context, config, tmp_path / "run", 2, broken + limit)
    assert job.wait() == [2, 2]
    assert job.error.startswith("step 6: the loss or the gradient was not finite in 3 steps, more")
    assert "\n" not in job.error
