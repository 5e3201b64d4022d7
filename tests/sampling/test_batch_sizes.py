"""Steps whose batches differ in size, over the order of one sampler."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from mixopt import Mixture, MixtureSampler, SamplerError
from mixopt.sampling import BatchSizes, Schedule, Stage, simulate_schedule

WEB, CODE = Mixture({"web": 0.75, "code": 0.25}), Mixture({"web": 0.25, "code": 0.75})
PARTS = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 60)), min_size=1, max_size=5)


@given(PARTS)
def test_samples_are_the_sum_of_the_batches(parts):
    sizes = BatchSizes.of(parts)
    batches = [batch for steps, batch in parts for _ in range(steps)]
    assert sizes.steps == len(batches)
    assert [sizes.batch_at(step) for step in range(sizes.steps)] == batches
    before = [0, *np.cumsum(batches).tolist()]
    assert [sizes.samples_before(step) for step in range(sizes.steps + 1)] == before


@given(PARTS, st.integers(0, 10_000))
def test_each_sample_is_of_the_step_that_takes_it(parts, sample):
    sizes = BatchSizes.of(parts)
    sample %= sizes.samples_before(sizes.steps)
    step = sizes.step_of(sample)
    assert sizes.samples_before(step) <= sample < sizes.samples_before(step + 1)


@given(PARTS)
def test_each_step_is_whole_units(parts):
    sizes = BatchSizes.of(parts)
    for step in range(sizes.steps + 1):
        assert sizes.units_before(step) * sizes.unit == sizes.samples_before(step)


def test_neighbours_of_one_size_are_one_span():
    assert BatchSizes.of([(3, 8), (2, 8)]).is_constant
    assert not BatchSizes.of([(3, 8), (2, 16)]).is_constant


@pytest.fixture
def ramped():
    stages = (
        Stage(WEB, steps=10, batch=16),
        Stage(WEB, steps=10, to=CODE, batch=24),
        Stage(CODE, tokens=32 * 40 * 4, sequence_length=4),
    )
    return Schedule(stages, batch=40, sequence_length=2)


def test_tokens_of_a_schedule_are_those_of_its_batches(ramped):
    assert ramped.tokens == 10 * 16 * 2 + 10 * 24 * 2 + 32 * 40 * 4
    assert ramped.steps == 52
    assert ramped.tokens_before(12) == 10 * 16 * 2 + 2 * 24 * 2
    assert Schedule.from_content(ramped.to_json(), "here") == ramped


def test_a_sampler_of_unit_batches_draws_the_shares_of_each_stage(ramped):
    sizes = ramped.batch_sizes
    assert sizes.unit == 8
    entries = ramped.unit_entries
    sampler = MixtureSampler(
        {"web": 5000, "code": 5000}, WEB, batch_size=8, rank=0, world_size=1, schedule=entries
    )
    counts = [sampler.counts(sizes.samples_before(step))["web"] for step in (0, 10, 20, 52)]
    assert counts == pytest.approx([0, 120, 120 + 120, 240 + 320], abs=2)
    assert sampler.mixture_at(sizes.units_before(9)) == WEB
    assert sampler.mixture_at(sizes.units_before(52))["web"] == pytest.approx(0.25)


def test_a_simulation_draws_what_the_stages_take(ramped):
    found = simulate_schedule(ramped, inventory={"web": 4000, "code": 4000})
    assert [stage.tokens for stage in found.stages] == [320, 480, 5120]
    assert [sum(stage.drawn.values()) for stage in found.stages] == [320, 480, 5120]
    assert found.stages[0].shares["web"] == pytest.approx(0.75, abs=0.02)
    before = 0.25 * 320 + 0.5 * 480  # tokens of the first two stages; 120 a step in the last
    assert found.runs_out["code"].step == 20 + int((4000 - before) / 120)


def test_a_sampler_of_one_batch_names_what_does_it(ramped):
    alike = Schedule(ramped.stages[:2], batch=16, sequence_length=2)
    with pytest.raises(SamplerError, match="goes from batches of 16 to 24: mixopt pretrain does"):
        MixtureSampler({"web": 500, "code": 500}, schedule=alike, seed=0, rank=0, world_size=1)


def test_a_batch_of_a_stage_that_cannot_be_is_named():
    with pytest.raises(SamplerError, match=r"stages\.0\.batch: 0 is not a whole number from 1"):
        Schedule((Stage(WEB, steps=1, batch=0),), batch=8, sequence_length=2)


@given(PARTS, st.integers(1, 120))
def test_sizes_until_a_step_are_those_of_the_steps_before_it(parts, step):
    sizes = BatchSizes.of(parts)
    until = sizes.until(step)
    assert until.steps == step
    assert [until.batch_at(k) for k in range(step)] == [sizes.batch_at(k) for k in range(step)]
    assert BatchSizes.of(until.parts) == until
