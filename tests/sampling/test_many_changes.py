"""Ten thousand changes of weights: no slower by batch, old orders stay valid, states stay small."""

from __future__ import annotations

import json
import pickle
from itertools import islice

import numpy as np
import pytest
from counted_work import allocated, calls
from hypothesis import given, settings, strategies as st

from mixopt import SamplerError
from mixopt.mixture import Mixture
from mixopt.sampling import MixtureSampler, SampleOrder
from mixopt.sampling.order import ShareChange, whole_shares
from mixopt.sampling.sample_order import StreamLayout

NAMES = [f"domain_{k}" for k in range(8)]
LAYOUT = StreamLayout(("a", "b", "c"), (40, 70, 90), 0, 8, (None, 300, None))


def mixtures(count, domains=8, seed=0):
    rng = np.random.default_rng(seed)
    names = [f"domain_{k}" for k in range(domains)]
    return [Mixture.from_array(names, w) for w in rng.dirichlet([1.0] * domains, size=count)]


def sampler(schedule=(), domains=8, **options):
    sizes = {f"domain_{k}": 10**6 for k in range(domains)}
    weights = [1 / domains] * domains
    options = {"batch_size": 64, "rank": 0, "world_size": 1, **options}
    return MixtureSampler(sizes, weights, schedule=schedule, **options)


def plain_change(position, weights):
    return ShareChange(position, tuple(whole_shares(weights)))


@pytest.fixture(scope="module")
def thousands():
    """Return a schedule of a change at each of 20,000 batches, of 50 mixtures."""
    some = mixtures(50)
    return [(batch, some[batch % 50]) for batch in range(1, 20_001)]


def test_a_batch_after_thousands_of_changes_costs_what_one_after_a_few_does():
    one, some = sampler(), mixtures(50)

    def change_and_draw():
        one.set_weights(some[one.batch % 50])
        one.rows(one.batch)
        one.mixture_at(one.batch)
        one.received(one.batch + 1)

    spent = [calls(change_and_draw) for _ in range(1500)]
    assert np.mean(spent[-100:]) < 1.5 * np.mean(spent[50:150])


def test_a_change_before_thousands_to_come_copies_few_of_them(thousands):
    one, some = sampler(thousands), mixtures(50, seed=1)
    few = sampler(thousands[:100])

    def change(to):
        to.set_weights(some[to.batch % 50])
        to.received(to.batch + 1)

    spent = np.array([[calls(lambda to=to: change(to)) for to in (few, one)] for _ in range(99)])
    assert np.median(spent[:, 1]) < 2 * np.median(spent[:, 0])
    assert allocated(lambda: change(one)) < 2 * len(thousands), "a reference takes 8 bytes"


@pytest.mark.parametrize("measured", [calls, allocated])
def test_a_schedule_is_read_at_the_cost_of_its_length(thousands, measured):
    short, long = (measured(lambda n=n: sampler(thousands[:n])) for n in (1000, 10_000))
    assert long < 12 * short


@given(
    places=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40)), min_size=1, max_size=80),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_every_order_on_the_way_stays_what_it_was(places, seed):
    rng = np.random.default_rng(seed)
    order = SampleOrder(LAYOUT, [plain_change(0, [0.3, 0.3, 0.4])])
    orders = [order]
    for place, looked_at in places:
        order.planned_counts(order.reach(looked_at * 8))
        order = order.changed(plain_change(place * 8, rng.dirichlet([0.5] * 3).tolist()))
        orders.append(order)
    for kept in orders[:: max(len(orders) // 10, 1)]:
        fresh = SampleOrder(LAYOUT, kept.changes)
        again = pickle.loads(pickle.dumps(kept))
        end = fresh.reach(600)
        assert kept.reach(600) == end
        assert kept.exhausted(end) == fresh.exhausted(end)
        for one, other, third in zip(
            *(o.locate(0, end) for o in (fresh, kept, again)), strict=True
        ):
            assert np.array_equal(one, other)
            assert np.array_equal(one, third)


def test_an_order_of_thousands_of_changes_can_be_sent_to_another_process(thousands):
    order = sampler(thousands[:1500]).order
    order.planned_counts(1500 * 64)
    again = pickle.loads(pickle.dumps(order))
    assert np.array_equal(again.locate(6400, 12_800)[1], order.locate(6400, 12_800)[1])


def size(state):
    return len(json.dumps(state))


def test_ten_thousand_changes_past_and_to_come_are_a_state_of_a_hundred_kilobytes(thousands):
    one = sampler(thousands)
    one.received(10_000)
    one.set_weights(mixtures(1, seed=5)[0], batch=10_007)
    state = one.state_dict()
    assert size(state) <= 100_000
    other = sampler(thousands)
    other.load_state_dict(json.loads(json.dumps(state)))
    for batch in (10_000, 10_006, 10_007, 10_008):
        assert np.array_equal(other.rows(batch), one.rows(batch))
    assert other.order.changes[-9990:] == one.order.changes[-9990:]
    assert other.state_dict() == state


def test_changes_made_while_it_runs_are_a_small_state_that_says_all():
    one, some = sampler(), mixtures(50)
    for _ in range(700):
        one.set_weights(some[one.batch % 50])
        one.received(one.batch + 1)
    one.set_weights(some[0], batch=one.batch + 7)
    state = one.state_dict()
    assert size(state) < 40_000
    other = sampler()
    other.load_state_dict(json.loads(json.dumps(state)))
    for batch in range(700, 710):
        assert np.array_equal(other.rows(batch), one.rows(batch))
    assert len(other.log) > 100
    assert other.log[-1].batch == 707


def test_at_a_thousand_domains_changes_add_64_kilobytes_at_most():
    some = mixtures(4, domains=1000)
    schedule = [(batch, some[batch % 4]) for batch in range(1, 60)]
    bare, one = sampler(domains=1000), sampler(schedule, domains=1000)
    one.received(30)
    state = one.state_dict()
    assert size(state) - size(bare.state_dict()) <= 1 << 16
    other = sampler(schedule, domains=1000)
    other.load_state_dict(state)
    for batch in (30, 31, 59):
        assert np.array_equal(other.rows(batch), one.rows(batch))


def test_a_state_that_knows_its_schedule_by_a_hash_refuses_another_schedule(thousands):
    one = sampler(thousands[:1000])
    one.received(10)
    changed = [(1, mixtures(1, seed=9)[0]), *thousands[1:1000]]
    for schedule in ((), thousands[:999], changed):
        other = sampler(schedule)
        before = other.state_dict()
        with pytest.raises(SamplerError, match="another schedule: .* make this sampler with the"):
            other.load_state_dict(one.state_dict())
        assert other.state_dict() == before


def test_a_state_that_has_all_its_changes_loads_without_the_schedule(thousands):
    one = sampler(thousands[:100])
    one.received(3)
    assert one.state_dict()["schedule"] is None
    for other in (sampler(), sampler(thousands)):
        other.load_state_dict(one.state_dict())
        assert np.array_equal(other.rows(500), one.rows(500))
        other.received(500)
        assert other.state_dict()["schedule"] is None


def test_a_state_by_hash_loads_where_another_state_was_loaded_before(thousands):
    one, other = (sampler(thousands[:1000]) for _ in range(2))
    other.load_state_dict(sampler(thousands[:3]).state_dict())
    other.load_state_dict(one.state_dict())
    assert np.array_equal(other.rows(500), one.rows(500))


def test_a_state_of_before_there_were_schedules_in_it_loads():
    one = sampler([(batch, mixture) for batch, mixture in enumerate(mixtures(600), 1)])
    one.received(20)
    state = {**sampler().state_dict(), "format": "mixopt-sampler/1", "position": 20 * 64}
    state["changes"] = [[change.position, list(change.shares)] for change in one.order.changes]
    del state["schedule"]
    other = sampler()
    other.load_state_dict(json.loads(json.dumps(state)))
    for batch in (20, 300, 700):
        assert np.array_equal(other.rows(batch), one.rows(batch))


def test_a_map_of_domains_takes_the_schedule_that_is_here(thousands):
    one, other, again = (sampler(thousands[:1000]) for _ in range(3))
    one.received(50)
    other.load_state_dict(one.state_dict(), map_domains={})
    assert np.array_equal(other.rows(500), one.rows(500))
    again.load_state_dict(other.state_dict())
    assert np.array_equal(again.rows(500), one.rows(500))


def test_the_log_has_each_change_once(thousands):
    one = sampler(thousands[:5000])
    assert [entry.batch for entry in islice(one.log, 5)] == [0, 1, 2, 3, 4]
    assert len(one.log) == 5001
