"""The order of samples: within a sample of the integral, rows once an epoch, limits, ramps."""

import json
from itertools import islice

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st
from refusals import refuses

from mixopt import MixtureSampler
from mixopt.errors import SamplerError
from mixopt.sampling import RowOrder, domain_key, window_order
from mixopt.sampling.shares import UNIT, spread, whole_shares

weights = st.lists(st.just(0.0) | st.floats(1e-9, 1), min_size=1, max_size=24).filter(any)


def sampler_of(sizes, mixture, batch_size=8, **options):
    shares = np.array(mixture) / np.sum(mixture)
    place = {"rank": 0, "world_size": 1}
    return MixtureSampler(sizes, shares, batch_size=batch_size, **place, **options)


def lengths_of(sizes, seed=0):
    rng = np.random.default_rng(seed)
    means = rng.uniform(2, 400, len(sizes))
    return {
        str(d): np.maximum(1, mean * rng.lognormal(0, 1, rows)).astype(np.int64)
        for d, (mean, rows) in enumerate(zip(means, sizes, strict=True))
    }


def worst_error(sampler, batches):
    """Return how far any domain is from its integral at the end of any batch, in the unit."""
    due, worst = np.zeros(len(sampler.domains)), 0.0
    for batch in range(batches):
        before = sum(sampler.tokens(batch).values())
        had = np.array(list(sampler.tokens(batch + 1).values()))
        due += sampler.mixture_at(batch).array * (had.sum() - before)
        worst = max(worst, np.abs(had - due).max())
        sampler.received(batch + 1)
    return worst


@example(weights=[1.0, 1e-20, 1e-20], more=9)  # each has a share nevertheless
@given(weights=weights, more=st.integers(-99, 1 << 90))
def test_shares_are_whole_numbers_that_add_up_and_spread_is_proportional(weights, more):
    shares = whole_shares(weights)
    assert sum(shares) == UNIT
    assert all((share > 0) == (weight > 0) for share, weight in zip(shares, weights, strict=True))
    total = sum(weights)
    assert max(abs(s / UNIT - w / total) for s, w in zip(shares, weights, strict=True)) < 1e-12
    parts = spread(shares, more)
    assert sum(parts) == more
    assert max(abs(p * UNIT - s * more) for p, s in zip(parts, shares, strict=True)) < UNIT
    assert spread([1, 1, 1], 10) == [3, 3, 4]


# Whoever is owed most is not who is due first: by that rule these are off by up to 1.43.
@example(mixture=[1.0] * 5 + [0.0175] * 10, batch_size=4)
@example(mixture=[1.0] + [0.0175] * 30, batch_size=2)
@settings(max_examples=60)
@given(mixture=weights, batch_size=st.sampled_from([1, 3, 8, 64, 500]))
def test_at_the_end_of_a_batch_a_domain_is_within_a_sample_of_its_share(mixture, batch_size):
    sampler = sampler_of([1000 + d for d in range(len(mixture))], mixture, batch_size)
    assert worst_error(sampler, 150) < 1 + 1e-6


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    unit=st.sampled_from(["samples", "tokens"]),
    cuts=st.lists(st.integers(1, 30), max_size=6),
)
def test_batches_do_not_depend_on_how_many_are_laid_out_at_once(seed, unit, cuts):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(5, 80, 4).tolist()
    how = {} if unit == "samples" else {"unit": unit, "lengths": lengths_of(sizes, seed)}
    samplers = [sampler_of(sizes, [4, 3, 2, 1], seed=seed, max_epochs=9, **how) for _ in range(3)]
    whole = samplers[0].order.rows(0, 300)
    assert (np.concatenate([samplers[1].order.rows(b) for b in range(len(whole))]) == whole).all()
    batch = 0
    for count in cuts:
        some = samplers[2].batch_rows(batch, count)
        assert (some == whole[batch : batch + len(some)]).all()
        batch += len(some)


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    batch_size=st.sampled_from([1, 4, 7]),
    unit=st.sampled_from(["samples", "tokens"]),
)
def test_everything_is_drawn_before_a_stream_with_limits_ends(sizes, batch_size, unit):
    how = {} if unit == "samples" else {"unit": unit, "lengths": lengths_of(sizes)}
    sampler = sampler_of(sizes, [1] * len(sizes), batch_size, max_epochs=2, **how)
    batches = list(sampler)
    times = np.bincount([row for rows in batches for row in rows], minlength=sum(sizes))
    assert len(batches) == len(sampler) == 2 * sum(sizes) // batch_size
    assert times.max(initial=0) <= 2
    names = [entry.reason for entry in sampler.log]
    assert len(names) == len(set(names))


def test_when_a_domain_runs_out_in_a_ramp_the_others_keep_their_proportion():
    ramp = [(0, [0.6, 0.3, 0.1], 100, [0.0, 0.5, 0.5])]
    sampler = sampler_of(
        [100, 4000, 4000], [0.6, 0.3, 0.1], schedule=ramp, max_epochs={"0": 1, "1": 2}
    )
    list(islice(sampler, 100))
    assert sampler.counts()["0"] == 100
    assert [entry.reason for entry in sampler.log] == ["start", "exhausted: 0"]
    end = sampler.log[1].batch
    assert sampler.counts(end)["0"] < 100 == sampler.counts(end + 1)["0"]
    left, given = sampler.log[1].mixture, sampler.mixture_at(end)
    assert left["0"] == 0
    assert left["1"] / left["2"] == pytest.approx(given["1"] / given["2"])
    sampler.set_weights([1, 0, 0])
    assert next(iter(sampler), None) is None, "only what has run out has a share"


def test_weights_set_inside_a_ramp_hold_until_the_next_stage_and_the_log_says_its_end():
    sampler = sampler_of(
        [500, 500], [0.5, 0.5], schedule=[(2, [1, 0], 20, [0, 1]), (30, [0.5, 0.5])]
    )
    sampler.set_weights([0.25, 0.75], 10)
    assert [(e.batch, e.mixture["0"], e.end_batch) for e in sampler.log] == [
        (0, 0.5, None), (2, 1.0, 20), (10, 0.25, None), (30, 0.5, None),
    ]  # fmt: skip
    assert sampler.log[1].end_mixture["1"] == 1.0
    assert sampler.mixture_at(5)["0"] == pytest.approx(1 - 3.5 / 18), "that of its middle"
    assert [sampler.mixture_at(batch)["0"] for batch in (10, 29, 30)] == [0.25, 0.25, 0.5]


def test_counts_after_a_change_of_weights_are_those_of_the_new_weights():
    sampler = sampler_of([500, 500], [0.5, 0.5])
    assert sampler.counts(9) == {"0": 36, "1": 36}, "places up to batch 9 are in memory"
    sampler.set_weights([1, 0], 5)
    counts = [sampler.counts(batch)["0"] for batch in (5, 6, 9)]
    assert counts == [20, 28, 52]


def test_a_stream_that_ended_continues_with_weights_of_another_domain():
    sampler = sampler_of([16, 16], [1, 0], max_epochs=1)
    assert len(list(sampler)) == 2
    sampler.set_weights([0, 1])
    assert len(list(sampler)) == 2


def test_a_state_of_long_ago_is_laid_out_again():
    sampler = sampler_of([500, 500], [0.7, 0.3])
    states = [json.dumps(sampler.state_at(batch)) for batch in (5, 900)]
    list(islice(sampler, 5000))
    assert [json.dumps(sampler.state_at(batch)) for batch in (5, 900)] == states
    assert len(sampler.order._stretches) < 2500
    other = sampler_of([500, 500], [0.7, 0.3])
    other.load_state_dict(json.loads(states[1]))
    refuses(SamplerError, "known from batch 900 on, has no batch 5", other.state_at, 5)


def test_a_state_of_long_ago_is_laid_out_from_a_place_near_it(monkeypatch):
    sampler, dealt = sampler_of([500, 500], [0.7, 0.3]), []
    state = json.dumps(sampler.state_at(3500))
    list(islice(sampler, 5000))
    deal = sampler.order._deal

    def noted(place, most):
        dealt.append(place.window)
        return deal(place, most)

    monkeypatch.setattr(sampler.order, "_deal", noted)
    assert json.dumps(sampler.state_at(3500)) == state
    assert min(dealt) == 3072


def test_debts_to_many_domains_without_a_share_are_repaid():
    sampler = sampler_of([9] * 400, [1] * 399 + [1e-6], 199)
    for _ in range(3):
        sampler.set_weights([0.0] * 399 + [1.0])
        next(iter(sampler))
        sampler.set_weights(np.full(400, 1 / 400))
        list(islice(sampler, 2))
    owed_D = sampler.order.place(sampler.batch).owed_D
    assert owed_D.sum() == 0
    counts = np.array(list(sampler.counts().values()))
    assert counts[:399].max() - counts[:399].min() <= 2


# --- Rows: as good as true permutations, another each epoch ---------------------------------------


def epoch_rows(order, size, *, epoch=0, domain=0):
    ordinal = np.arange(epoch * size, (epoch + 1) * size, dtype=np.int64)
    return order.rows(np.full(size, domain, np.int64), ordinal)


def chi_square(rows, cells=32):
    """Chi-square of (place, row) over a grid of cells, 1023 expected less the fixed margins."""
    size = len(rows)
    grid = np.zeros((cells, cells))
    np.add.at(grid, (np.arange(size) * cells // size, rows * cells // size), 1)
    expected = size / cells**2
    return ((grid - expected) ** 2 / expected).sum()


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 3))
@settings(max_examples=60)
def test_every_row_comes_once_in_each_epoch(size, seed, epoch):
    order = RowOrder([size], [domain_key(seed, "web")])
    assert np.array_equal(np.sort(epoch_rows(order, size, epoch=epoch)), np.arange(size))


def test_its_chi_square_is_that_of_true_permutations():
    size, keys = 50_021, 30
    ours = [
        chi_square(epoch_rows(RowOrder([size], [domain_key(k, "d")]), size)) for k in range(keys)
    ]
    rng = np.random.default_rng(0)
    true = [chi_square(rng.permutation(size)) for _ in range(keys)]
    spread = np.std(true)
    assert abs(np.mean(ours) - np.mean(true)) < 4 * spread / np.sqrt(keys)
    assert max(ours) < np.mean(true) + 5 * spread


@pytest.mark.parametrize("size", [3, pytest.param(11, marks=pytest.mark.nightly)])
def test_every_row_of_a_small_domain_is_as_likely_at_every_place(size):
    keys = 4000
    domain = np.zeros(size, np.int64)
    seen = np.zeros((size, size))
    for key in range(keys):
        order = RowOrder([size], [domain_key(key, "small")])
        seen[np.arange(size), order.rows(domain, np.arange(size))] += 1
    expected = keys / size
    statistic = ((seen - expected) ** 2 / expected).sum()
    degrees = (size - 1) ** 2
    assert statistic < degrees + 5 * np.sqrt(2 * degrees)


def test_epochs_and_domains_have_orders_of_their_own_at_any_size():
    order = RowOrder([1000, 1000], [domain_key(0, "a"), domain_key(0, "b")])
    orders = [epoch_rows(order, 1000, epoch=e, domain=d) for e in range(2) for d in range(2)]
    for k, rows in enumerate(orders):
        for other in orders[:k]:
            assert np.sum(rows == other) < 20
    order = RowOrder([10**15 + 7], [domain_key(0, "big")])
    row = order.rows(np.zeros(5, np.int64), np.arange(5, dtype=np.int64) * 10**14)
    assert ((row >= 0) & (row < 10**15 + 7)).all()
    assert len(set(row.tolist())) == 5


@given(size=st.integers(1, 600), first=st.integers(0, 2**40))
@settings(max_examples=40)
def test_a_window_holds_every_place_once(size, first):
    order = window_order(domain_key(0, "w"), first, 3, size)
    assert np.array_equal(np.sort(order, axis=1), np.tile(np.arange(size), (3, 1)))


def test_places_in_a_window_are_uniform():
    order = window_order(domain_key(0, "w"), 0, 20_000, 8)
    seen = np.array([np.bincount(order[:, place], minlength=8) for place in range(8)])
    assert ((seen - 2500) ** 2 / 2500).sum() < 49 + 5 * np.sqrt(98)


def test_orders_are_those_of_earlier_versions():
    """A job that resumes with another version would repeat rows and lose others."""
    order = RowOrder([7, 100], [domain_key(3, "web"), domain_key(3, "code")])
    web, code = (order.rows(np.full(9, d), np.arange(9)).tolist() for d in range(2))
    assert web == [1, 3, 0, 2, 6, 5, 4, 4, 1]
    assert code == [41, 52, 37, 31, 12, 84, 35, 63, 48]
    places = window_order(domain_key(3, "w"), 5, 2, 6).tolist()
    assert places == [[4, 2, 3, 5, 1, 0], [1, 3, 2, 5, 4, 0]]
    sizes = {"web": 90, "code": 41, "books": 17}
    sampler = MixtureSampler(sizes, [0.5, 0.3, 0.2], batch_size=8, rank=0, world_size=1)
    assert next(iter(sampler)) == [45, 28, 9, 134, 26, 110, 131, 129]
    lengths = {"web": np.arange(1, 91), "code": 7, "books": 1}
    how = {"unit": "tokens", "lengths": lengths, "seed": 4, "rank": 1, "world_size": 2}
    sampler = MixtureSampler(sizes, [0.6, 0.4, 0], batch_size=12, **how)
    assert [*sampler.batch_rows(1)[0]] == [128, 108, 125, 99, 97, 104, 110, 106, 109, 62, 130, 117]
