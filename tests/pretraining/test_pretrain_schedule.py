"""`schedule: FILE`: a run takes its length and its mixtures from a schedule's file."""

import json

import pytest
from pretrain_runs import log_of, metrics_of, write_config

from mixopt import ConfigError, MixtureError, pretrain
from mixopt.pretraining import load_pretraining

pytestmark = pytest.mark.usefixtures("one_thread")
STAGES = """\
batch: 8
sequence_length: 32
stages:
- {name: warm-up, steps: 3, mixture: {code: 0.7, manual: 0.3}}
- {name: main, tokens: 1792, mixture: {code: 0.7, manual: 0.3}, to: {code: 0.5, manual: 0.5}}
- {steps: 5, mixture: {code: 0.5, manual: 0.5}}
- {name: last, steps: 9, mixture: {code: 0.1, manual: 0.9}}
"""


def written(folder, corpus, stages=STAGES):
    """Write a run's file beside its schedule's, which says how long it is."""
    (folder / "schedule.yaml").write_text(stages)
    training = {"micro_batch": 4, "lr": 3e-3, "precision": "float32"}
    parts = {"training": training, "mixture": {"anchor": "natural"}, "metrics": {"every": 1}}
    place = {"corpus": str(corpus.path), "schedule": str(folder / "schedule.yaml")}
    return write_config(folder, **place, **parts)


def test_the_mixtures_are_those_of_the_stages_and_their_ramps(corpus, tmp_path):
    pretrain(written(tmp_path, corpus), tmp_path / "run")
    lines = [json.loads(line) for line in log_of(tmp_path / "run").splitlines()]
    shown = [(line["batch"], line["step"], line["why"], line["weights"]["code"]) for line in lines]
    assert shown == [
        (0, 1, "schedule: warm-up", 0.7),
        (3, 4, "schedule: main, linearly to its end", 0.7),
        (10, 11, "schedule: 2", 0.5),
        (15, 16, "schedule: last", 0.1),
    ]
    code = [line["weight"]["code"] for line in metrics_of(tmp_path / "run") if "loss" in line]
    assert code[:3] == [0.7] * 3
    assert 0.7 > code[3] > code[6] > code[9] > 0.5
    assert code[10:15] == [0.5] * 5
    assert code[15:] == [0.1] * 9


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.steps=25", "training.steps: 25, and the schedule has 24; leave"),
        ("training.sequence_length=16", "length: 16, and the schedule has 32; leave it out"),
        ("mixture={anchor: uniform}", "mixture: the schedule has the mixtures; leave it out"),
        ("estimator={name: odm}", "schedule: an estimator plans the mixture: leave one of them"),
    ],
)
def test_what_does_not_go_with_the_schedule_is_one_line(corpus, tmp_path, override, message):
    with pytest.raises(ConfigError) as raised:
        load_pretraining(written(tmp_path, corpus), [override])
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
