"""Batches that grow while a run trains: the samples, tokens and shares of one order, exactly."""

from __future__ import annotations

import json
import random
from itertools import chain
from pathlib import Path

import pytest
import torch
import yaml
from pretrain_runs import (
    CONFIG,
    LENGTH,
    Job,
    assert_same_weights,
    checkpoints,
    finished,
    log_of,
    metrics_of,
    weights_of,
    write_config,
)

from mixopt import ConfigError, Corpus, MixtureSampler, SamplerError, pretrain
from mixopt.pretraining import load_pretraining
from mixopt.testing import tiny_corpus

pytestmark = pytest.mark.usefixtures("one_thread")
# 6 steps of 4, 4 of 8, 10 of 12: units of 4, and 176 sequences.
RAMP = {
    "steps": 20,
    "batch": 12,
    "batch_ramp": [{"steps": 6, "batch": 4}, {"steps": 4, "batch": 8}],
}
BATCHES = [4] * 6 + [8] * 4 + [12] * 10
LATER = {"code": 0.1, "manual": 0.9}
STAGES = """\
batch: 8
sequence_length: 32
stages:
- {name: small, steps: 6, mixture: {code: 0.7, manual: 0.3}, phase: warmup, batch: 4}
- {name: main, tokens: 2048, phase: stable}
- name: long
  steps: 6
  mixture: {code: 0.1, manual: 0.9}
  phase: decay
  sequence_length: 64
  batch: 12
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return tiny_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def config(corpus, tmp_path_factory):
    return write_config(
        tmp_path_factory.mktemp("config"),
        prepared_corpus=str(corpus.path),
        training={**CONFIG["training"], **RAMP, "micro_batch": 2},
        schedule=[{"step": 8, "weights": LATER}],
        metrics={"every": 1},
    )


@pytest.fixture(scope="module")
def whole(context, config, tmp_path_factory):
    return finished(context, config, tmp_path_factory.mktemp("whole") / "run")


def of_stages(folder: Path, corpus: Corpus, stages: str, **training) -> Path:
    """Write a schedule and the run that follows it."""
    (folder / "schedule.yaml").write_text(stages)
    kept = {n: CONFIG["training"][n] for n in ("lr", "precision")}
    content = {n: v for n, v in CONFIG.items() if n != "mixture"}
    content |= {"prepared_corpus": str(corpus.path), "schedule": str(folder / "schedule.yaml")}
    content |= {"training": {**kept, **training}, "metrics": {"every": 1}}
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def staged(corpus, tmp_path_factory):
    return of_stages(tmp_path_factory.mktemp("staged"), corpus, STAGES, micro_batch=2)


def seen(job, rank=0) -> list[int]:
    """Return the sequences that a rank of a job was trained on, in order."""
    lines = Path(f"{job.order}.{rank}").read_text().splitlines(keepends=True)
    return list(chain(*(json.loads(line) for line in lines if line.endswith("\n"))))


def test_samples_are_those_of_a_sampler_of_units_with_changes_between_steps(whole, corpus):
    from pretrain_job import zlib

    sizes = {d.name: d.train.tokens // (LENGTH + 1) for d in corpus.domains}
    change = sum(BATCHES[:8]) // 4
    sampler = MixtureSampler(
        sizes, CONFIG["mixture"]["weights"], batch_size=4, schedule=[(change, LATER)]
    )
    names, rows = sampler.locate(0, sum(BATCHES))
    expected = []
    for domain, row in zip(names.tolist(), rows.tolist(), strict=True):
        tokens = corpus.domains[domain].train.rows([row * (LENGTH + 1)], LENGTH)[0]
        expected.append(zlib.crc32(tokens.astype("int64").tobytes()))
    assert seen(whole) == expected
    drawn = sampler.counts(sum(BATCHES))["code"]
    assert drawn == pytest.approx(0.7 * sum(BATCHES[:8]) + 0.1 * sum(BATCHES[8:]), abs=2)


def test_tokens_are_counted_by_the_batches(whole):
    tokens = [line["tokens"] for line in metrics_of(whole.out) if "loss" in line]
    assert tokens == [LENGTH * sum(BATCHES[: k + 1]) for k in range(20)]
    weights = [line["weight"]["code"] for line in metrics_of(whole.out) if "loss" in line]
    assert weights == [0.7] * 8 + [0.1] * 12
    lines = [json.loads(line) for line in log_of(whole.out).splitlines()]
    assert [line["batch"] for line in lines] == [0, 8]


def test_a_killed_run_goes_on_as_if_it_was_not(whole, context, config, tmp_path):
    first = Job(context, config, tmp_path / "run", 1)
    passes = random.randrange(15, 70)  # of 88
    first.until(passes)
    first.kill()
    assert checkpoints(tmp_path / "run")
    second = finished(context, config, tmp_path / "run")
    assert_same_weights(weights_of(second.out), weights_of(whole.out))
    assert metrics_of(second.out) == metrics_of(whole.out), passes
    assert log_of(second.out) == log_of(whole.out)
    after = seen(second)
    assert after == seen(whole)[-len(after) :]


def test_stages_have_batches_and_longer_sequences_at_once(staged, context, tmp_path):
    whole = finished(context, staged, tmp_path / "whole")
    lines = [line for line in metrics_of(whole.out) if "loss" in line]
    steps = [4 * 32] * 6 + [8 * 32] * 8 + [12 * 64] * 6
    assert [line["tokens"] for line in lines] == [sum(steps[: k + 1]) for k in range(20)]
    assert len(seen(whole)) == 4 * 6 + 8 * 8 + 12 * 6
    first = Job(context, staged, tmp_path / "run", 1)
    first.until(2 * 6 + 4 * 8 + 6 * 3)  # in the long ones
    first.kill()
    second = finished(context, staged, tmp_path / "run", ranks=2)
    after = seen(second, 0) + seen(second, 1)
    assert sorted(after) == sorted(seen(whole)[-len(after) :])
    # Gradients are added up in another order.
    found = weights_of(second.out)
    for name, value in weights_of(whole.out).items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
    for one, other in zip(metrics_of(second.out), metrics_of(whole.out), strict=True):
        assert one.get("realised") == other.get("realised")
        assert one.get("loss") == pytest.approx(other.get("loss"), abs=1e-4)


def test_a_default_that_no_stage_takes_may_be_less_than_the_ranks(corpus, context, tmp_path):
    stages = STAGES.replace("batch: 8", "batch: 1", 1).replace("tokens: 2048", "steps: 2, batch: 8")
    config = of_stages(tmp_path, corpus, stages)
    assert metrics_of(finished(context, config, tmp_path / "run", ranks=2).out)[-1]["step"] == 14


def test_a_run_cannot_resume_with_another_ramp(whole, config):
    with pytest.raises(Exception, match=r"was started with training\.batch_ramp"):
        pretrain(config, whole.out, ["training.batch_ramp=[{steps: 6, batch: 8}]"])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"training": {"batch_ramp": [{"steps": 24, "batch": 4}]}},
            "batch_ramp takes 24 steps, and the run 24; nothing is left for batch 8",
        ),
        ({"training": {"batch_ramp": [{"steps": 0, "batch": 4}]}}, "batch_ramp.0.steps: should be"),
        (
            {"training": {"batch_ramp": [{"steps": 2, "batch": 4}]}, "watch": "schedule.yaml"},
            "training.batch_ramp: watch goes with batches of one size",
        ),
    ],
)
def test_what_cannot_be_right_is_one_line(parts, message, corpus, tmp_path):
    section = {**CONFIG["training"], **parts.pop("training")}
    file = write_config(tmp_path, prepared_corpus=str(corpus.path), training=section, **parts)
    with pytest.raises(ConfigError) as error:
        load_pretraining(file)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_ramp_beside_a_schedule_is_refused(staged):
    with pytest.raises(ConfigError, match="the schedule has the batches: give its stages batch"):
        load_pretraining(staged, ["training.batch_ramp=[{steps: 2, batch: 4}]"])


def test_a_micro_batch_that_does_not_divide_is_named(config, tmp_path):
    with pytest.raises(SamplerError, match=r"micro_batch 3 does not divide the 4 sequences"):
        pretrain(config, tmp_path / "run", ["training.micro_batch=3"])


def test_masked_documents_go_with_a_ramp_and_passes_of_any_size(corpus, tmp_path):
    losses = []
    model = {"name": "decoder", "options": {"layers": 1, "width": 32, "heads": 2, "ff": 48}}
    for micro in (2, 12):
        section = {**CONFIG["training"], **RAMP, "micro_batch": micro, "mask_documents": True}
        (tmp_path / str(micro)).mkdir()
        file = write_config(
            tmp_path / str(micro),
            prepared_corpus=str(corpus.path),
            training=section,
            model=model,
            metrics={"every": 1},
        )
        pretrain(file, tmp_path / str(micro) / "run")
        lines = metrics_of(tmp_path / str(micro) / "run")
        losses.append([line["loss"] for line in lines if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
