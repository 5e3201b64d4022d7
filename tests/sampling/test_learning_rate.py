"""The learning rate by name: the same numbers as schedulers of other libraries, and as phases."""

import math

import pytest
import torch
import transformers
from hypothesis import given, strategies as st
from refusals import refusal

from mixopt.errors import SamplerError
from mixopt.sampling import RATE_CURVES, RateCurve

STEPS, WARMUP, DECAY = 100, 10, 30


def rates_of(make, steps=STEPS):
    """Return what a scheduler of torch gives, step by step."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


def curve(schedule, **options):
    made = RateCurve(schedule, STEPS, WARMUP, **options)
    return [made.rate(step) for step in range(STEPS)]


def wsd(shape):
    """Return transformers' schedule with a decay of this shape."""
    return lambda optimizer: transformers.get_wsd_schedule(
        optimizer, WARMUP, DECAY, num_training_steps=STEPS, decay_type=shape, min_lr_ratio=0.1
    )


def cosine(optimizer):
    return transformers.get_cosine_schedule_with_warmup(optimizer, WARMUP, STEPS)


@pytest.mark.parametrize(
    ("theirs", "schedule", "options"),
    [
        (wsd("linear"), "wsd", {"lr_decay": DECAY, "lr_decay_shape": "linear"}),
        (wsd("cosine"), "wsd", {"lr_decay": DECAY, "lr_decay_shape": "cosine"}),
        (wsd("1-sqrt"), "wsd", {"lr_decay": DECAY, "lr_decay_shape": "sqrt"}),
        (cosine, "cosine", {"floor": 0.0}),
        (lambda o: transformers.get_inverse_sqrt_schedule(o, WARMUP), "inverse_sqrt", {}),
    ],
)
def test_after_the_warm_up_a_rate_is_that_of_transformers(theirs, schedule, options):
    assert curve(schedule, **options)[WARMUP:] == pytest.approx(rates_of(theirs)[WARMUP:])


def test_a_linear_decay_is_that_of_torch():
    decay = torch.optim.lr_scheduler.LinearLR
    theirs = rates_of(lambda o: decay(o, 1.0, 0.1, total_iters=STEPS - WARMUP))
    assert curve("linear")[WARMUP:] == pytest.approx(theirs[: STEPS - WARMUP])


def test_a_warm_up_is_linear_from_its_first_step_and_a_decay_part_leaves_the_peak_before_it():
    rates = curve("cosine", lr_decay=DECAY)
    assert rates[:WARMUP] == pytest.approx([(k + 1) / (WARMUP + 1) for k in range(WARMUP)])
    assert rates[WARMUP : STEPS - DECAY + 1] == [1.0] * (STEPS - DECAY - WARMUP + 1)
    assert rates[-1] < 0.2


@given(st.sampled_from(RATE_CURVES), st.integers(1, 300), st.floats(0.01, 400))
def test_no_rate_is_above_the_peak_or_below_the_least(schedule, steps, warmup):
    curve = RateCurve(schedule, steps, warmup, peak=3.0, floor=0.3)
    rates = [curve.rate(step) for step in range(steps)]
    assert min(rates) > 0
    assert max(rates) <= 3.0
    length = warmup if warmup >= 1 else warmup * steps
    assert all(rate >= 0.3 - 1e-12 for step, rate in enumerate(rates) if step >= length)


SQRT = {"lr_decay_shape": "sqrt"}


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        ("cosin", {}, "schedule: 'cosin' is not a known schedule; did you mean 'cosine'?"),
        ("constant", {"lr_decay": 5}, "lr_decay: a constant rate has no decay; give schedule: wsd"),
        ("inverse_sqrt", {"warmup": 0}, "warmup: 0, but the decay of inverse_sqrt is scaled by"),
        ("inverse_sqrt", SQRT, "lr_decay_shape: 'sqrt' has no effect without lr_decay"),
        ("linear", SQRT, "lr_decay_shape: 'sqrt' differs from schedule: linear; use schedule:"),
    ],
)
def test_what_does_not_go_together_is_named(schedule, options, message):
    assert message in refusal(RateCurve, schedule, STEPS, **{"warmup": WARMUP, **options})


def test_a_run_that_is_too_short_for_its_parts_is_named():
    with pytest.raises(SamplerError, match="lr_decay: 50 steps of decay after 60 of warm-up are"):
        RateCurve("wsd", 100, 60, lr_decay=0.5).check_lengths()
    with pytest.raises(SamplerError, match="lr_decay: 20 steps of decay after 81 of warm-up are"):
        RateCurve("wsd", 100, 81).check_lengths()
    for fits in (RateCurve("wsd", 100, 80), RateCurve("cosine", 100, 100)):
        fits.check_lengths()
    with pytest.raises(SamplerError, match=r"warmup: 0.2 steps, but the decay of inverse_sqrt"):
        RateCurve("inverse_sqrt", 20, 0.01).check_lengths()


def test_an_inverse_square_root_with_a_decay_ends_at_the_floor():
    curve = RateCurve("inverse_sqrt", STEPS, WARMUP, lr_decay=0.2, floor=0.05)
    rates = [curve.rate(step) for step in range(STEPS + 1)]
    assert rates[80] == pytest.approx(math.sqrt(WARMUP / 80))
    assert rates[90] == pytest.approx((rates[80] + 0.05) / 2)
    assert rates[100] == pytest.approx(0.05)
