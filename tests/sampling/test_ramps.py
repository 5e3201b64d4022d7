"""Stages in which shares go linearly: exact at every prefix, any position by itself, resumable."""

from __future__ import annotations

import json
import pickle
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mixopt import Mixture, SamplerError
from mixopt.sampling import MixtureSampler, SampleOrder
from mixopt.sampling.order import UNIT, RampEnd, ShareChange, whole_shares
from mixopt.sampling.sample_order import StreamLayout

BOUND = 2.5  # samples
WEIGHTS, OTHER = [0.7, 0.3, 0.0], [0.0, 0.1, 0.9]
NAMES = ("a", "b", "c")


def shares_of(weights):
    return tuple(whole_shares(list(weights)))


def ramp(start, weights, stop, others):
    return ShareChange(start, shares_of(weights), RampEnd(stop, shares_of(others)))


def layout(domains, *, limits=None, stops=False, size=1000):
    names = tuple(f"d{k}" for k in range(domains))
    return StreamLayout(names, (size,) * domains, 0, 8, limits or (None,) * domains, stops)


def due(changes, stop):
    """Return the exact integral of the shares before each position, shape (stop + 1, D)."""
    rates = np.zeros((stop, len(changes[0].shares)))
    for change in changes:
        rates[change.position :] = np.array(change.shares) / UNIT
        if change.end is not None:
            first, last = (np.array(s) / UNIT for s in (change.shares, change.end.shares))
            length = change.end.position - change.position
            gone = np.minimum((np.arange(stop - change.position) + 0.5) / length, 1)
            rates[change.position :] = first + gone[:, None] * (last - first)
            rates[change.end.position :] = last
    return np.concatenate([np.zeros((1, rates.shape[1])), rates.cumsum(axis=0)])


def drawn(order, stop):
    domains = order.planned(0, stop)
    count = np.zeros((stop + 1, len(order.layout.names)))
    count[np.arange(1, stop + 1), domains] = 1
    return count.cumsum(axis=0)


@st.composite
def logs(draw, most=16):
    """Changes, ramps among them that the next one cuts off, and the position after the last."""
    domains = draw(st.integers(1, most))
    number = st.one_of(st.floats(1e-6, 1.0), st.just(0.0), st.floats(1e-6, 1e-3))
    weights = st.lists(number, min_size=domains, max_size=domains).filter(any)
    changes, position = [], 0
    for _ in range(draw(st.integers(1, 8))):
        length = 8 * draw(st.integers(1, 60))
        if draw(st.booleans()):
            stop = position + draw(st.integers(1, 2 * length))
            changes.append(ramp(position, draw(weights), stop, draw(weights)))
        else:
            changes.append(ShareChange(position, shares_of(draw(weights))))
        position += length
    return changes, position


@given(log=logs())
@settings(max_examples=80, deadline=None)
def test_every_prefix_is_near_the_integral_over_ramps_and_changes(log):
    changes, stop = log
    order = SampleOrder(layout(len(changes[0].shares)), changes)
    assert np.abs(drawn(order, stop) - due(changes, stop)).max() < BOUND


@given(log=logs(), data=st.data())
@settings(max_examples=50, deadline=None)
def test_any_part_of_a_ramp_can_be_located_by_itself(log, data):
    changes, stop = log
    whole = SampleOrder(layout(len(changes[0].shares)), changes)
    domain, row = whole.locate(0, stop)
    counts = drawn(whole, stop)
    fresh = pickle.loads(pickle.dumps(SampleOrder(layout(len(changes[0].shares)), changes)))
    for _ in range(3):
        start = data.draw(st.integers(0, stop))
        last = data.draw(st.integers(start, stop))
        part = fresh.locate(start, last)
        assert np.array_equal(part[0], domain[start:last])
        assert np.array_equal(part[1], row[start:last])
        assert fresh.planned_counts(start).tolist() == counts[start].tolist()


@given(log=logs(), count=st.integers(1, 40), data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_position_of_a_draw_in_a_ramp_is_the_first_with_that_count(log, count, data):
    changes, stop = log
    order = SampleOrder(layout(len(changes[0].shares)), changes)
    domain = data.draw(st.integers(0, len(changes[0].shares) - 1))
    found = order.when_drawn(domain, count, stop)
    counts = drawn(order, stop)[:, domain]
    assert found == (int(np.argmax(counts >= count)) if counts[-1] >= count else None)


@given(log=logs(most=6), limits=st.lists(st.integers(1, 200), min_size=6, max_size=6))
@settings(max_examples=50, deadline=None)
def test_a_limit_inside_a_ramp_is_reached_exactly(log, limits):
    changes, stop = log
    domains = len(changes[0].shares)
    order = SampleOrder(layout(domains, limits=tuple(limits[:domains])), changes)
    end = order.reach(stop)
    counts = drawn(order, end)
    assert (counts[-1] <= limits[:domains]).all()
    for position, domain in order.exhausted(end):
        assert counts[position, domain] == limits[domain]
        assert set(order.planned(position, end)) <= set(range(domains)) - {domain}


def test_when_a_domain_runs_out_in_a_ramp_the_others_go_on_to_their_own_end():
    change = ramp(0, [0.6, 0.3, 0.1], 4000, [0.2, 0.1, 0.7])
    order = SampleOrder(layout(3, limits=(900, None, None)), [change])
    ((out, domain),) = order.exhausted(order.reach(8000))
    assert domain == 0
    assert 0 < out < 4000
    left = np.array([0.3, 0.1]) + out / 4000 * np.array([-0.2, 0.6])
    changes = [ramp(out, left, 4000, [0.1, 0.7])]
    after = drawn(order, 8000)[out:, 1:] - drawn(order, 8000)[out, 1:]
    before = due([change], out)[out, 1:] - drawn(order, out)[out, 1:]
    expected = due(changes, 8000)[out:] - due(changes, out)[out]
    assert np.abs(after - expected - before).max() < BOUND


def test_a_stream_ends_with_a_ramp_to_a_domain_that_has_run_out():
    order = SampleOrder(layout(2, limits=(None, 50)), [ramp(0, [1, 0], 400, [0, 1])])
    assert order.reach(10**9) == 400
    assert order.planned_counts(400).tolist() == [350, 50]


def test_a_ramp_from_a_domain_that_has_run_out_begins_at_its_end():
    changes = [ShareChange(0, shares_of([0.5, 0.5])), ramp(80, [1, 0], 160, [0, 1])]
    order = SampleOrder(layout(2, limits=(20, None)), changes)
    assert set(order.planned(80, 160)) == {1}
    assert order.shares_at(80) == (0, UNIT)


def test_a_stream_that_stops_ends_inside_a_ramp():
    order = SampleOrder(layout(2, limits=(30, 1000), stops=True), [ramp(0, [1, 0], 80, [0, 1])])
    end = order.reach(10**9)
    assert 30 < end < 80
    assert order.planned_counts(end)[0] == 30


@pytest.mark.parametrize("length", [10**6, 10**12, 1 << 52])
def test_a_long_ramp_is_exact_far_into_it(length):
    order = SampleOrder(layout(3), [ramp(0, WEIGHTS, length, OTHER)])
    for position in (0, length // 3, length - 500):
        counts = order.planned_counts(position)
        first, last = shares_of(WEIGHTS), shares_of(OTHER)
        for d in range(3):
            whole = first[d] * (2 * length * position - position**2) + last[d] * position**2
            assert abs(int(counts[d]) * UNIT * 2 * length - whole) < BOUND * UNIT * 2 * length
        domain = order.planned(position, position + 500)
        after = order.planned_counts(position + 500) - counts
        assert np.bincount(domain, minlength=3).tolist() == after.tolist()


def sampler(schedule=(), **options):
    sizes = dict.fromkeys(NAMES, 500)
    options = {"batch_size": 24, "rank": 0, "world_size": 1, **options}
    return MixtureSampler(sizes, WEIGHTS, schedule=schedule, **options)


RAMP = [(3, WEIGHTS, 23, OTHER)]


def take(one, batches):
    return list(islice(iter(one), batches))


@pytest.mark.parametrize("stop", [1, 3, 7, 22, 23, 30])
def test_a_sampler_resumes_inside_a_ramp_on_other_ranks(stop):
    one = sampler(RAMP)
    take(one, stop)
    state = json.loads(json.dumps(one.state_dict()))
    ranks = [sampler(rank=rank, world_size=2) for rank in range(2)]
    for rank in ranks:
        rank.load_state_dict(state)
    parts = [take(rank, 20) for rank in ranks]
    assert [a + b for a, b in zip(*parts, strict=True)] == take(one, 20)
    assert ranks[0].state_dict() == one.state_dict()


def test_weights_set_inside_a_ramp_hold_until_the_next_stage():
    one = sampler([*RAMP, (40, [0, 1, 0])])
    take(one, 10)
    one.set_weights([0, 0, 1])
    before = one.counts()
    take(one, 30)
    assert one.counts()["c"] - before["c"] >= 30 * 24 - 2
    take(one, 10)
    assert one.counts()["c"] - before["c"] <= 30 * 24 + 2


def test_a_mixture_inside_a_ramp_is_that_of_the_middle_of_a_batch():
    one = sampler(RAMP)
    assert one.mixture_at(2) == Mixture.from_array(NAMES, WEIGHTS)
    assert one.mixture_at(23) == Mixture.from_array(NAMES, OTHER)
    gone = (7 - 3 + 0.5) / 20
    expected = (1 - gone) * np.array(WEIGHTS) + gone * np.array(OTHER)
    assert np.abs(one.mixture_at(7).array - expected).max() < 1e-12


def test_the_log_has_one_entry_for_a_ramp():
    one = sampler(RAMP)
    take(one, 30)
    _, entry = one.log
    assert (entry.batch, entry.end_batch, entry.reason) == (3, 23, "set")
    assert entry.end_mixture == Mixture.from_array(NAMES, OTHER)
    assert one.log[0].end_batch is None


def test_a_map_of_domains_inside_a_ramp_goes_on_to_its_end():
    one, other, known = sampler(RAMP), sampler(RAMP), sampler(RAMP)
    take(one, 10)
    other.load_state_dict(one.state_dict(), map_domains={})
    assert other.counts() == one.counts()
    take(other, 40)
    take(known, 50)
    for name, count in other.counts().items():
        assert abs(count - known.counts()[name]) < 2 * BOUND


def test_an_order_by_tokens_follows_a_ramp_and_resumes_inside_it():
    options = {"unit": "tokens", "lengths": dict.fromkeys(NAMES, 10)}
    one = sampler(RAMP, **options)
    take(one, 12)
    state = json.loads(json.dumps(one.state_dict()))
    other = sampler(**options)
    other.load_state_dict(state)
    assert take(other, 20) == take(one, 20)
    plain = sampler(RAMP)
    take(plain, 32)
    for name, count in plain.counts().items():
        assert abs(count - one.counts()[name]) < 4


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ((3, WEIGHTS, 3, OTHER), "schedule: end_batch 3 is not a whole number >= 4"),
        ((3, WEIGHTS, 9), r"schedule.0: a tuple is neither \(batch, weights\) nor"),
        (5, r"schedule.0: 5 is neither \(batch, weights\) nor"),
        ((-1, WEIGHTS), "schedule: batch -1 is not a whole number >= 0"),
    ],
)
def test_a_stage_that_cannot_be_is_named(stage, message):
    with pytest.raises(SamplerError, match=message):
        sampler([stage])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([0, [UNIT, 0, 0], 0, [UNIT, 0, 0]], "changes.0: end_position: 0 is not a whole number"),
        ([0, [UNIT, 0, 0], 9, [UNIT, 1, 0]], "changes.0: end_shares: add up to"),
        ([0, [UNIT, 0, 0], 9], "changes.0: a list is not a pair of position and shares"),
    ],
)
def test_a_ramp_that_cannot_be_in_a_state_is_named(change, message):
    one = sampler()
    with pytest.raises(SamplerError, match=message):
        one.load_state_dict({**one.state_dict(), "changes": [change]})
