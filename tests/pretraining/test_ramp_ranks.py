"""Batches that grow, on real ranks: estimators, the halves of experts' counts, and the message."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from pretrain_runs import (
    CONFIG,
    LENGTH,
    Job,
    assert_same_weights,
    finished,
    log_of,
    metrics_of,
    step_of,
    weights_of,
    write_config,
)

from mixopt import Corpus, MixtureSampler, pretrain
from mixopt.routing import ExpertRecord
from mixopt.testing import tiny_corpus

pytestmark = pytest.mark.usefixtures("one_thread")
# 6 steps of 4, 4 of 8, 10 of 12: units of 4, which four ranks divide.
BATCHES = [4] * 6 + [8] * 4 + [12] * 10
RAMP = {
    "steps": 20,
    "batch": 12,
    "micro_batch": 1,
    "batch_ramp": [{"steps": 6, "batch": 4}, {"steps": 4, "batch": 8}],
}
# The second round sweeps two steps of 8 sequences and two of 12.
AIOLI = {"update_steps": 8, "sweeps": 1, "sweep_steps": 2, "one_hot": 0.8}
ESTIMATORS = {
    "aioli": {"options": AIOLI},
    "odm": {"observe_every": 2, "options": {"warmup_steps": 2}},
    "ado": {"observe_every": 2, "options": {"warmup_steps": 2, "fit_steps": 5}},
    "skill_it": {"options": {"update_steps": 4, "eta": 0.5}},
    "robust": {"options": {"eta": 0.5}, "objective": {"other_code": 1}},
}
DEFAULT = ("aioli", "odm")
EACH = [
    name if name in DEFAULT else pytest.param(name, marks=pytest.mark.nightly)
    for name in ESTIMATORS
]
UNIT = 1e-4  # of a share that is planned


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return tiny_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def config_of(corpus, tmp_path_factory):
    """Write the configuration of a ramp."""

    def write(ramp=RAMP, **parts):
        return write_config(
            tmp_path_factory.mktemp("config"),
            prepared_corpus=str(corpus.path),
            training={**CONFIG["training"], **ramp},
            metrics={"every": 1},
            checkpoint={"every": 3, "asynchronous": False},
            **parts,
        )

    return write


@pytest.fixture(scope="module")
def steered(context, config_of, tmp_path_factory):
    """Return the undisturbed run of an estimator on one rank, and its configuration."""
    made = {}

    def run(name):
        if name not in made:
            config = config_of(estimator={"name": name, **ESTIMATORS[name]})
            out = tmp_path_factory.mktemp(name) / "run"
            made[name] = config, finished(context, config, out)
        return made[name]

    return run


def log_lines(out):
    return [json.loads(line) for line in log_of(out).splitlines()]


def assert_same_run(run, whole):
    """Record and weights are those of other sums of the same numbers."""
    lines, expected = log_lines(run.out), log_lines(whole.out)
    # In so short a run `robust` may have no cause to move.
    assert len(expected) > 2 or "robust" in str(whole.out)
    for line, other in zip(lines, expected, strict=True):
        assert {**line, "weights": 0} == {**other, "weights": 0}
        assert line["weights"] == pytest.approx(other["weights"], abs=1.5 * UNIT)
    for one, other in zip(metrics_of(run.out), metrics_of(whole.out), strict=True):
        assert one.get("tokens") == other.get("tokens")
        assert one.get("realised") == other.get("realised")
        assert one.get("loss") == pytest.approx(other.get("loss"), abs=1e-4)
    found = weights_of(run.out)
    for name, value in weights_of(whole.out).items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", EACH)
def test_an_estimator_on_a_ramp_is_the_same_on_any_number_of_ranks(
    name, ranks, steered, context, tmp_path
):
    config, whole = steered(name)
    assert_same_run(finished(context, config, tmp_path / "run", ranks=ranks), whole)


@pytest.mark.parametrize("name", EACH)
def test_an_estimator_that_was_killed_in_a_ramp_goes_on_as_if_it_was_not(
    name, steered, context, tmp_path
):
    config, whole = steered(name)
    first = Job(context, config, tmp_path / "run", 1)
    passes = random.randrange(20, 50)  # of 56 in the ramp
    first.until(passes)
    first.kill()
    assert 3 <= step_of(tmp_path / "run") < 10, passes
    second = finished(context, config, tmp_path / "run")
    assert log_of(second.out) == log_of(whole.out), passes
    assert metrics_of(second.out) == metrics_of(whole.out), passes
    assert_same_weights(weights_of(second.out), weights_of(whole.out))


@pytest.mark.parametrize(
    "name", [*EACH[:1], pytest.param("odm", marks=pytest.mark.nightly), *EACH[2:]]
)
def test_four_ranks_that_were_killed_in_a_ramp_go_on_as_two(name, steered, context, tmp_path):
    config, whole = steered(name)
    first = Job(context, config, tmp_path / "run", 4)
    first.until(random.randrange(6, 13))  # of 14 in the ramp
    first.kill()
    assert 3 <= step_of(tmp_path / "run") < 10
    assert_same_run(finished(context, config, tmp_path / "run", ranks=2), whole)


def test_plans_hold_for_whole_steps_of_any_size_and_draw_their_shares(steered, corpus):
    _, whole = steered("aioli")
    lines = log_lines(whole.out)
    assert [line["step"] for line in lines if "sweep" in line["why"]][:2] == [1, 3]
    assert all(line["batch"] == line["step"] - 1 for line in lines)
    metrics = {line["step"]: line for line in metrics_of(whole.out) if "loss" in line}
    ends = [line["step"] for line in lines[1:]] + [21]
    sampler = MixtureSampler(
        {d.name: d.train.tokens // (LENGTH + 1) for d in corpus.domains},
        CONFIG["mixture"]["weights"],
        batch_size=4,
        schedule=[(sum(BATCHES[: line["step"] - 1]) // 4, line["weights"]) for line in lines],
    )
    for line, end in zip(lines, ends, strict=True):
        for step in range(line["step"], end):
            start, stop = sum(BATCHES[: step - 1]), sum(BATCHES[:step])
            drawn = sampler.counts(stop)["code"] - sampler.counts(start)["code"]
            assert metrics[step]["weight"] == pytest.approx(line["weights"], abs=1e-6)
            assert metrics[step]["realised"]["code"] == pytest.approx(drawn / (stop - start))


def test_an_estimator_on_a_ramp_of_streams_is_the_same_on_two_ranks_that_were_killed(
    context, text_files, tmp_path
):
    domains = {name: {"path": str(text_files[name])} for name in ("code", "prose")}
    config = write_config(
        tmp_path,
        stream={"domains": domains, "max_validation_bytes": 5_000, "buffer": 2},
        mixture={"weights": {"code": 0.7, "prose": 0.3}},
        training={**CONFIG["training"], **RAMP},
        metrics={"every": 1},
        checkpoint={"every": 3, "asynchronous": False},
        estimator={"name": "odm", **ESTIMATORS["odm"]},
    )
    whole = finished(context, config, tmp_path / "whole")
    first = Job(context, config, tmp_path / "run", 2)
    first.until(random.randrange(10, 25))  # of 28 in the ramp
    first.kill()
    assert 3 <= step_of(tmp_path / "run") < 10
    assert_same_run(finished(context, config, tmp_path / "run", ranks=2), whole)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_halves_of_counts_are_by_the_places_of_sequences_in_the_stream(
    ranks, config_of, corpus, context, tmp_path
):
    config = config_of(
        {**RAMP, "micro_batch": None},
        model={"name": "experts_job:TinyExperts"},
        experts={"every": 10, "probe": 64},
    )
    out = finished(context, config, tmp_path / "run", ranks=ranks).out
    windows = ExpertRecord(out / "experts").windows()
    sampler = MixtureSampler(
        {d.name: d.train.tokens // (LENGTH + 1) for d in corpus.domains},
        CONFIG["mixture"]["weights"],
        batch_size=4,
    )
    assert [(w.start, w.end) for w in windows] == [(0, 10), (10, 20)]
    for window in windows:
        start, stop = sum(BATCHES[: window.start]), sum(BATCHES[: window.end])
        domain = sampler.locate(start, stop)[0]
        odd = np.array([place.bit_count() % 2 for place in range(start, stop)])
        sequences = [np.bincount(domain[odd == half], minlength=2) for half in (0, 1)]
        for layer in window.assignments.layers:
            assert (layer.counts_HDE.sum(-1) == np.array(sequences) * LENGTH * 2).all()


STAGES = """\
batch: 12
sequence_length: 32
stages:
- {name: small, steps: 6, mixture: {code: 0.7, manual: 0.3}, phase: warmup, batch: 8}
- {name: main, steps: 6, phase: stable}
"""


@pytest.mark.parametrize(
    ("ranks", "batch", "message"),
    [
        (4, 6, "training.batch_ramp.0.batch: 6 sequences over all ranks: 4 ranks do not divide it"),
        (3, 6, "training.batch: 8 sequences over all ranks: 3 ranks do not divide it; use 6 or 9"),
    ],
)
def test_the_batch_that_ranks_do_not_divide_is_the_one_that_was_asked_for(
    ranks, batch, message, config_of, context, tmp_path
):
    ramp = {"steps": 20, "batch": 8, "batch_ramp": [{"steps": 6, "batch": batch}]}
    job = Job(context, config_of(ramp | {"micro_batch": 1}), tmp_path / "run", ranks)
    assert job.wait() == [2] * ranks
    assert job.error.startswith(message)


def test_the_batch_of_a_stage_that_ranks_do_not_divide_is_named(config_of, context, tmp_path):
    (tmp_path / "schedule.yaml").write_text(STAGES)
    training = {n: CONFIG["training"][n] for n in ("lr", "precision")}
    config = write_config(
        tmp_path,
        prepared_corpus=str(tiny_corpus(tmp_path / "corpus").path),
        training=training,
        mixture={"anchor": "natural"},
        schedule=str(tmp_path / "schedule.yaml"),
    )
    job = Job(context, config, tmp_path / "run", 3)
    assert job.wait() == [2] * 3
    assert job.error.startswith("schedule: stages.0.batch: 8 sequences over all ranks: 3 ranks")


@pytest.mark.parametrize("name", ["doremi", "doge"])
def test_what_pretraining_cannot_tell_an_estimator_is_refused_with_a_ramp_too(
    name, config_of, tmp_path
):
    with pytest.raises(Exception, match=r"needs (the losses of a reference|inner products)"):
        pretrain(config_of(estimator={"name": name}), tmp_path / "run")
