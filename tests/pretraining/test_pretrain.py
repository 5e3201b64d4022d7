"""Pretraining on real processes: a killed, stopped or moved run has the same results."""

import json
import os
import random
import shutil
import signal
from itertools import chain
from pathlib import Path

import pytest
import torch
from pretrain_runs import (
    BATCH,
    CONFIG,
    LENGTH,
    STEPS,
    Job,
    assert_equal_runs,
    assert_goes_on,
    assert_same_weights,
    checkpoints,
    finished,
    log_of,
    metrics_of,
    step_of,
    weights_of,
    write_config,
)
from sampler_rows import located

from mixopt import Mixture, MixtureSampler, pretrain
from mixopt.errors import RunError

pytestmark = pytest.mark.usefixtures("one_thread")
WEIGHTS = CONFIG["mixture"]["weights"]
EVEN, LATE = {"code": 0.5, "manual": 0.5}, {"code": 0.1, "manual": 0.9}
STAGES = [(7, WEIGHTS), (9, EVEN), (STEPS - 16, LATE)]
SCHEDULE = "schedule=" + json.dumps(
    {
        "batch": BATCH,
        "sequence_length": LENGTH,
        "stages": [{"steps": steps, "mixture": weights} for steps, weights in STAGES],
    }
)
SCHEDULED = [SCHEDULE, "mixture={anchor: natural}"]
ODM = "estimator={name: odm, observe_every: 1, options: {warmup_steps: 2}}"
AIOLI = (
    "estimator={name: aioli, options: {update_steps: 12, sweeps: 1, sweep_steps: 2, one_hot: 0.8}}"
)


@pytest.fixture(scope="module")
def config(corpus, tmp_path_factory) -> Path:
    return write_config(tmp_path_factory.mktemp("config"), corpus=str(corpus.path))


@pytest.fixture(scope="module")
def scheduled(context, config, tmp_path_factory):
    """An undisturbed run with a schedule."""
    out = tmp_path_factory.mktemp("scheduled") / "run"
    return finished(context, config, out, overrides=SCHEDULED)


@pytest.fixture(scope="module")
def steered(context, config, tmp_path_factory):
    """An undisturbed run that an estimator steers with sweeps and held-out losses."""
    out = tmp_path_factory.mktemp("steered") / "run"
    return finished(context, config, out, overrides=[AIOLI])


def test_batches_are_those_of_the_sampler_with_changes_at_the_stated_steps(scheduled, corpus):
    from pretrain_job import zlib

    sizes = {d.name: d.train.tokens // (LENGTH + 1) for d in corpus.domains}
    changes = [(7, Mixture.uniform(list(sizes))), (16, {"code": 0.1, "manual": 0.9})]
    order = MixtureSampler(sizes, WEIGHTS, batch_size=BATCH, rank=0, world_size=1, schedule=changes)
    names, rows = located(order, 0, STEPS)
    expected = []
    for domain, row in zip(names.tolist(), rows.tolist(), strict=True):
        tokens = corpus.domains[domain].train.rows([row * (LENGTH + 1)], LENGTH)[0]
        expected.append(zlib.crc32(tokens.astype("int64").tobytes()))
    assert list(chain(*scheduled.batches())) == expected


def test_losses_fall_and_are_kept_by_domain(scheduled, corpus):
    lines = metrics_of(scheduled.out)
    train = [line for line in lines if "loss" in line]
    assert [line["step"] for line in train] == list(range(4, STEPS + 1, 4))
    assert train[-1]["loss"] < train[0]["loss"] - 0.3
    assert set(train[0]["train_loss"]) == {"code", "manual"}
    assert train[0]["realised"]["code"] == pytest.approx(0.7, abs=0.05)
    assert train[-1]["realised"]["code"] == pytest.approx(0.1, abs=0.05)
    assert train[-1]["tokens"] == STEPS * BATCH * LENGTH
    held_out = [line for line in lines if "held_out_loss" in line]
    assert [line["step"] for line in held_out] == [12, 24]
    assert set(held_out[0]["held_out_loss"]) == {"code", "manual", "other_code"}
    assert held_out[1]["held_out_loss"]["code"] < held_out[0]["held_out_loss"]["code"]


def test_a_finished_run_does_no_work(scheduled, config):
    def stamps():
        files = (p for p in scheduled.out.rglob("*") if p.is_file())
        written = {".lock", "config.yaml"}
        return {path: path.stat().st_mtime_ns for path in files if path.name not in written}

    before = stamps()
    result = pretrain(config, scheduled.out, [*SCHEDULED, "metrics.every=1"])
    assert stamps() == before
    assert (result.is_finished, result.step, result.skipped) == (True, STEPS, 0)
    assert set(result.losses) == {"code", "manual", "other_code"}
    assert result.weights == {"code": 0.1, "manual": 0.9}


def test_a_run_killed_at_a_random_step_goes_on_as_if_it_was_not(context, config, steered, tmp_path):
    passes = random.randrange(2, 2 * STEPS - 4)
    first = Job(context, config, tmp_path / f"killed-after-{passes}", 1, [AIOLI])
    first.until(passes)
    first.kill()
    second = finished(context, config, first.out, overrides=[AIOLI])
    assert_goes_on(first, second, steered)
    assert_equal_runs(second.out, steered.out)


def test_two_ranks_are_one(context, config, steered, tmp_path):
    job = finished(context, config, tmp_path / "run", ranks=2, overrides=[AIOLI])
    assert job.batches() == steered.batches()
    assert log_of(job.out) == log_of(steered.out)
    assert_same_weights(weights_of(job.out), weights_of(steered.out))


def test_sigterm_to_one_rank_stops_all_after_the_same_step_with_a_checkpoint(
    context, config, scheduled, tmp_path
):
    first = Job(context, config, tmp_path / "run", 2, SCHEDULED)
    first.until(8)
    os.kill(first.processes[1].pid, signal.SIGTERM)
    assert first.wait() == [0, 0]
    stopped = step_of(tmp_path / "run")
    assert 8 <= stopped < STEPS
    assert len(first.batches()) == stopped
    second = finished(context, config, tmp_path / "run", ranks=2, overrides=SCHEDULED)
    assert first.batches() + second.batches() == scheduled.batches()
    assert log_of(tmp_path / "run") == log_of(scheduled.out)
    assert_same_weights(weights_of(tmp_path / "run"), weights_of(scheduled.out))


def test_dropout_goes_on_where_it_was(config, tmp_path):
    out = tmp_path / "run"
    overrides = ["model.name=pretrain_job:Dropping", "training.steps=6", "checkpoint.every=4"]
    pretrain(config, out, overrides)
    expected = weights_of(out)
    shutil.rmtree(checkpoints(out)[-1])
    pretrain(config, out, overrides)
    assert_same_weights(weights_of(out), expected)


@pytest.mark.nightly
def test_sharded_ranks_train_as_replicated_ones_and_go_on_as_one(context, config, tmp_path):
    overrides = [*SCHEDULED, "parallel=fsdp"]
    whole = finished(context, config, tmp_path / "whole", overrides=[*SCHEDULED, "parallel=ddp"])
    first = Job(context, config, tmp_path / "run", 2, overrides)
    first.until(17)
    first.kill()
    second = finished(context, config, tmp_path / "run", overrides=[*SCHEDULED, "parallel=ddp"])
    assert_goes_on(first, second, whole)
    assert log_of(tmp_path / "run") == log_of(whole.out)
    for name, value in weights_of(whole.out).items():
        torch.testing.assert_close(weights_of(tmp_path / "run")[name], value, rtol=1e-3, atol=1e-4)


def test_a_step_that_is_not_finite_on_one_rank_is_skipped_on_all(context, config, tmp_path):
    broken = ["model={name: 'pretrain_job:Broken', options: {first: 3, last: 5}}", *SCHEDULED]
    job = finished(context, config, tmp_path / "run", ranks=2, overrides=broken)
    lines = [line for line in metrics_of(job.out) if "loss" in line]
    assert [line["skipped"] for line in lines] == [1, 2, 2, 2, 2, 2]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert all(torch.isfinite(value).all() for value in weights_of(job.out).values())
    taken = weights_of(job.out)["optimizer.state.embedding.step"]
    assert int(taken) == STEPS - 2


def test_too_many_such_steps_end_the_run_with_one_line(config, tmp_path):
    broken = "model={name: 'pretrain_job:Broken', options: {first: 3, last: 99}}"
    message = (
        "^step 4: the loss or the gradient was not finite in 3 steps, more than"
        " training.max_skipped: 2; the weights are those before such steps: lower training.lr,"
        " or look at the data$"
    )
    with pytest.raises(RunError, match=message):
        pretrain(config, tmp_path / "run", [broken, "training.max_skipped=2", ODM])
