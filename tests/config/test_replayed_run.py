"""The mean mixture of a base is over its tokens, however these are spread over its steps."""

from __future__ import annotations

import json

import pytest

from mixopt.config.replayed_run import _last_step, _ramps, _Record, mean_mixture
from mixopt.errors import MixoptError
from mixopt.sampling import Schedule
from mixopt.system import checked_as

WEB, CODE = {"web": 1.0, "code": 0.0}, {"web": 0.0, "code": 1.0}
HALF = {"web": 0.5, "code": 0.5}
NAMES = ["web", "code"]


def mean_of(folder, changes, until=None, **config):
    """The share of web in a run that changed its mixture at some steps."""
    lines = [{"step": step, "weights": weights, **dict(more)} for step, weights, *more in changes]
    (folder / "mixture_log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    record = checked_as(_Record, config, "config.yaml")
    return mean_mixture(folder, record, NAMES, until)["web"]


def schedule_of(*stages):
    return {"batch": 4, "sequence_length": 16, "stages": list(stages)}


def test_where_all_steps_have_the_same_tokens_it_is_over_steps(tmp_path):
    training = {"steps": 10, "batch": 4, "sequence_length": 16}
    assert mean_of(tmp_path, [(1, WEB), (4, CODE)], training=training) == pytest.approx(0.3)


def test_stages_of_a_schedule_count_by_their_steps(tmp_path):
    plan = schedule_of({"steps": 6, "mixture": WEB}, {"steps": 3, "mixture": CODE})
    found = mean_of(tmp_path, [(1, WEB), (7, CODE)], training={"steps": 9}, schedule=plan)
    assert found == pytest.approx(6 / 9)


def test_a_stage_that_goes_to_a_mixture_linearly_counts_half_of_either_end(tmp_path):
    plan = schedule_of({"steps": 4, "mixture": WEB, "to": HALF}, {"steps": 4, "mixture": HALF})
    found = mean_of(tmp_path, [(1, WEB), (5, HALF)], training={"steps": 8}, schedule=plan)
    assert found == pytest.approx((0.75 + 0.5) / 2)


def test_what_would_have_been_done_in_the_shadow_does_not_count(tmp_path):
    training = {"steps": 10, "batch": 4, "sequence_length": 16}
    changes = [(1, HALF), (4, CODE, ("shadow", True)), (8, WEB, ("shadow", True))]
    assert mean_of(tmp_path, changes, training=training) == pytest.approx(0.5)


def test_steps_after_the_checkpoint_do_not_count(tmp_path):
    training = {"steps": 10, "batch": 4, "sequence_length": 16}
    changes = [(1, WEB), (4, CODE), (7, WEB)]
    assert mean_of(tmp_path, changes, 5, training=training) == pytest.approx(3 / 5)
    assert mean_of(tmp_path, changes, 6, training=training) == pytest.approx(3 / 6)


@pytest.mark.parametrize("until", [1, 3, 5, 8, 9])
def test_of_a_linear_stage_it_is_the_mean_of_what_the_schedule_held_so_far(tmp_path, until):
    plan = schedule_of(
        {"steps": 2, "mixture": HALF},
        {"steps": 6, "mixture": WEB, "to": CODE},
        {"steps": 3, "mixture": CODE},
    )
    schedule = Schedule.from_content(plan, "here")
    sizes = [schedule.step_tokens for k in range(until)]
    held = [schedule.mixture_at(k)["web"] for k in range(until)]
    mean = sum(size * share for size, share in zip(sizes, held, strict=True)) / sum(sizes)
    changes = [(1, HALF), (3, WEB), (9, CODE)]
    found = mean_of(tmp_path, changes, until, training={"steps": 11}, schedule=plan)
    assert found == pytest.approx(mean)


@pytest.mark.parametrize(("named", "share"), [("", 3 / 8), ("checkpoints/step-00000004", 3 / 4)])
def test_the_checkpoint_that_is_meant_is_the_newest_or_the_one_that_is_named(
    tmp_path, named, share
):
    for step in (4, 8):
        (tmp_path / f"checkpoints/step-{step:08d}").mkdir(parents=True)
    (tmp_path / "checkpoints/.step-00000009.tmp").mkdir()
    until = _last_step(tmp_path / named)
    found = mean_of(tmp_path, [(1, WEB), (4, CODE)], until, training={"steps": 10})
    assert found == pytest.approx(share)


def test_a_log_without_a_mixture_that_was_trained_on_is_one_line(tmp_path):
    training = {"steps": 4, "batch": 4, "sequence_length": 16}
    with pytest.raises(MixoptError, match="mixture_log.jsonl: has no mixture up to step 4"):
        mean_of(tmp_path, [(1, WEB, ("shadow", True))], training=training)


def test_stages_begin_where_those_of_the_schedule_itself_do():
    content = schedule_of(
        {"tokens": 1_000, "mixture": WEB}, {"tokens": 999, "mixture": CODE},
        {"steps": 3, "mixture": HALF}, {"tokens": 500, "mixture": WEB},
    )  # fmt: skip
    schedule = Schedule.from_content(content, "here")
    record = checked_as(_Record, {"training": {"steps": 1}, "schedule": schedule.to_json()}, "here")
    lengths = [steps for steps, _ in _ramps(record.schedule).values()]
    starts = list(_ramps(record.schedule))
    assert sum(lengths) == schedule.steps
    for start, mixture in zip(starts, (WEB, CODE, HALF, WEB), strict=True):
        assert dict(schedule.mixture_at(start - 1)) == mixture


def test_a_record_that_is_damaged_is_one_line(tmp_path):
    with pytest.raises(MixoptError, match=r"config.yaml: training.steps: .*'four'") as caught:
        mean_of(tmp_path, [(1, WEB)], training={"steps": "four"})
    assert "\n" not in str(caught.value)
