"""`schedule: FILE`: a run takes lengths, mixtures and learning rate from a schedule's file."""

from __future__ import annotations

import json
from itertools import chain

import numpy as np
import pytest
import yaml
from pretrain_runs import (
    CONFIG,
    Job,
    assert_goes_on,
    assert_same_weights,
    checkpoints,
    finished,
    log_of,
    metrics_of,
    weights_of,
)

from mixopt import ConfigError, Corpus, MixtureError, MixtureSampler, pretrain
from mixopt.loading import schedule_watch
from mixopt.pretraining import load_pretraining
from mixopt.sampling import Schedule
from mixopt.testing import tiny_corpus

pytestmark = pytest.mark.usefixtures("one_thread")
STAGES = """\
batch: 8
sequence_length: 32
stages:
- {name: warm-up, steps: 3, mixture: {code: 0.7, manual: 0.3}}
- {name: main, tokens: 1792}
- {steps: 5, mixture: {code: 0.5, manual: 0.5}}
- {name: last, steps: 9, mixture: {code: 0.1, manual: 0.9}}
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return tiny_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def config(corpus, tmp_path):
    return written(tmp_path, corpus)


def written(folder, corpus, stages=STAGES, training=None, **parts):
    """Write a run's file beside its schedule's; the schedule says how long it is."""
    (folder / "schedule.yaml").write_text(stages)
    kept = {n: v for n, v in CONFIG["training"].items() if n in {"micro_batch", "lr", "precision"}}
    content = {n: v for n, v in CONFIG.items() if n != "mixture"}
    content |= {"prepared_corpus": str(corpus.path), "schedule": str(folder / "schedule.yaml")}
    content |= {"training": {**kept, **(training or {})}, "metrics": {"every": 1}}
    (folder / "run.yaml").write_text(yaml.safe_dump({**content, **parts}))
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def whole(context, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return finished(context, written(folder, corpus), folder / "run")


def test_rows_and_mixtures_are_those_of_the_stages(whole, corpus):
    from pretrain_job import zlib

    schedule = Schedule.from_content(yaml.safe_load(STAGES), "here")
    length, expected = schedule.sequence_length, []
    sizes = {d.name: d.train.tokens // (length + 1) for d in corpus.domains}
    starts = np.cumsum([0, *sizes.values()])
    for row in chain(*MixtureSampler(sizes, schedule=schedule)):
        domain = int(np.searchsorted(starts, row, side="right")) - 1
        at = [(row - int(starts[domain])) * (length + 1)]
        tokens = corpus.domains[domain].train.rows(at, length)[0]
        expected.append(zlib.crc32(tokens.astype("int64").tobytes()))
    assert list(chain(*whole.batches())) == expected
    lines = [json.loads(line) for line in log_of(whole.out).splitlines()]
    assert [(line["batch"], line["why"]) for line in lines] == [
        (0, "schedule: warm-up"),
        (3, "schedule: main"),
        (10, "schedule: 2"),
        (15, "schedule: last"),
    ]


def test_tokens_are_those_of_the_schedule(whole):
    schedule = Schedule.from_content(yaml.safe_load(STAGES), "here")
    lines = [line for line in metrics_of(whole.out) if "loss" in line]
    assert [line["tokens"] for line in lines] == [k * schedule.step_tokens for k in range(1, 25)]


@pytest.mark.parametrize("passes", [22, pytest.param(35, marks=pytest.mark.nightly)])
def test_a_run_that_was_killed_resumes_in_its_stage(whole, context, corpus, tmp_path, passes):
    config = written(tmp_path, corpus)
    first = Job(context, config, tmp_path / "run", 1)
    first.until(passes)
    first.kill()
    last = int(checkpoints(tmp_path / "run")[-1].name[5:])
    assert last in {10, 15}
    second = finished(context, config, tmp_path / "run", ranks=2)
    assert_goes_on(first, second, whole)
    assert log_of(second.out) == log_of(whole.out)
    assert_same_weights(weights_of(second.out), weights_of(whole.out))


def test_what_was_begun_does_not_hang_on_the_file(corpus, tmp_path):
    config = written(tmp_path, corpus)
    loaded = load_pretraining(config)
    (tmp_path / "schedule.yaml").unlink()
    assert loaded.plan.steps == loaded.training.steps == 24
    assert loaded.row_length == 33


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"training": {"steps": 25}},
            "training.steps: 25, and the schedule ends before, after 24; leave it out",
        ),
        ({"training": {"steps": 20}}, "training.steps: 20, and the schedule has 24; leave it out"),
        ({"training": {"sequence_length": 16}}, "16, and the schedule has 32; leave it out"),
        (
            {"stages": STAGES.replace("- {steps: 5,", "- {steps: 5, start: 9,")},
            "stages.2.start: 9 steps, and the stages before it have 10: an overlap of 1",
        ),
        (
            {"mixture": {"anchor": "uniform"}},
            "mixture: the schedule has the mixtures; leave it out",
        ),
        ({"estimator": {"name": "odm"}}, "schedule: an estimator plans the mixture"),
        (
            {"stages": STAGES.replace("steps: 5", "phase: decay, steps: 5")},
            "schedule.yaml:6: stages.2.phase: unknown field",
        ),
        ({"schedule": "none.yaml"}, "schedule: none.yaml: not found"),
    ],
)
def test_what_does_not_go_with_the_schedule_is_one_line(corpus, tmp_path, parts, message):
    with pytest.raises(ConfigError) as raised:
        load_pretraining(written(tmp_path, corpus, **parts))
    assert message in str(raised.value)


def test_a_schedule_for_other_domains_and_too_many_epochs_end_before_training(corpus, tmp_path):
    other = written(tmp_path, corpus, STAGES.replace("manual", "manuals"))
    with pytest.raises(
        MixtureError, match="stages.0.mixture: unknown domain 'manuals'; did you mean"
    ):
        pretrain(other, tmp_path / "other")
    many = written(tmp_path, corpus, STAGES.replace("stages:", "max_epochs: 0.01\nstages:"))
    with pytest.raises(Exception, match="max_epochs is 0.01. Lower its share to"):
        pretrain(many, tmp_path / "many")


PLAIN = """\
batch: 8
sequence_length: 32
stages:
- {name: main, steps: 40, mixture: {code: 0.7, manual: 0.3}}
- {name: last, steps: 20, mixture: {code: 0.1, manual: 0.9}}
"""


def test_a_running_job_follows_another_file_and_its_log_says_so(corpus, tmp_path, monkeypatch):
    defaults = schedule_watch.ScheduleWatch.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "seconds", 0.0)
    watched = tmp_path / "watched.yaml"
    config = written(tmp_path, corpus, PLAIN, watch=str(watched), metrics={"every": 10})
    watched.write_text(PLAIN.replace("steps: 40", "steps: 30").replace("steps: 20", "steps: 30"))
    pretrain(config, tmp_path / "run")
    lines = [json.loads(line) for line in log_of(tmp_path / "run").splitlines()]
    assert [(line["batch"], line["why"]) for line in lines] == [
        (0, "schedule: main"),
        (30, "watch: another schedule"),
    ]
    assert lines[1]["weights"]["manual"] == 0.9


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "watch: goes with one sequence length, and the schedule has several"),
        ({"stages": PLAIN, "estimator": {"name": "odm"}}, "watch: an estimator plans the mixture"),
    ],
)
def test_what_cannot_be_watched_is_one_line(corpus, tmp_path, parts, message):
    with pytest.raises(ConfigError) as raised:
        load_pretraining(written(tmp_path, corpus, watch="other.yaml", **parts))
    assert message in str(raised.value)
