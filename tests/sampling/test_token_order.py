"""Shares of tokens where samples differ in length: exact to a sample, resumable."""

from __future__ import annotations

import contextlib
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mixopt import MixtureSampler
from mixopt.errors import SamplerError
from mixopt.sampling.order import UNIT, FairQueue, whole_shares

SIZES = {"web": 40, "code": 300, "books": 90}
WEIGHTS = {"web": 0.5, "code": 0.3, "books": 0.2}
MEANS = {"web": 30.0, "code": 400.0, "books": 2000.0}


def lengths_of(seed=0, sizes=SIZES):
    rng = np.random.default_rng(seed)
    means = [MEANS.get(name, 100.0) for name in sizes]
    return {
        name: np.maximum(1, mean * rng.lognormal(0, 1, rows)).astype(np.int64)
        for (name, rows), mean in zip(sizes.items(), means, strict=True)
    }


def sampler(**options):
    given = {"batch_size": 8, "rank": 0, "world_size": 1, "unit": "tokens", "lengths": lengths_of()}
    return MixtureSampler(SIZES, WEIGHTS, **given | options)


def flat(lengths):
    return np.concatenate(list(lengths.values()))


def domains_of(rows, sizes=SIZES):
    offsets = np.cumsum([0, *sizes.values()])
    return np.searchsorted(offsets, rows, side="right") - 1


class Tokens:
    """Adds up what each domain had and what it is owed, batch by batch."""

    def __init__(self, lengths):
        self.lengths = flat(lengths)
        self.had = np.zeros(len(lengths))
        self.owed = np.zeros(len(lengths))

    def add(self, rows, weights):
        rows = np.asarray(rows)
        sizes = {name: len(each) for name, each in zip(SIZES, self.split, strict=True)}
        each = np.bincount(domains_of(rows, sizes), self.lengths[rows], len(self.had))
        self.had += each
        self.owed += np.asarray(weights) * each.sum()
        return np.abs(self.had - self.owed).max()

    @property
    def split(self):
        return np.split(self.lengths, np.cumsum(list(SIZES.values()))[:-1])


@settings(max_examples=60, deadline=None)
@given(
    weights=st.lists(st.floats(0.001, 1), min_size=1, max_size=12),
    seed=st.integers(0, 10**6),
    spread=st.floats(0, 2.5),
)
def test_no_domain_is_further_than_the_longest_sample_from_its_share(weights, seed, spread):
    rng = np.random.default_rng(seed)
    shares = whole_shares(weights)
    lengths = [
        np.maximum(1, 50 * rng.lognormal(0, spread, 500)).astype(int).tolist() for _ in weights
    ]
    longest = max(map(max, lengths))
    queue = FairQueue(shares, [0] * len(shares), lambda d: lengths[d].pop())
    for _ in range(400):
        queue.take()
        assert max(map(abs, queue.owed())) <= (longest + 1) * UNIT


def test_shares_are_of_tokens_over_changes_of_weights_and_epochs():
    lengths = lengths_of()
    one, count = sampler(schedule=[(30, [0.1, 0.1, 0.8]), (60, [0.8, 0.2, 0.0])]), Tokens(lengths)
    worst = [count.add(one.global_rows(k), one.mixture_at(k).array) for k in range(120)]
    assert max(worst) <= 1.05 * flat(lengths).max()
    assert worst[-1] < 0.01 * count.had.sum()
    drawn = one.counts(120 * 8)
    assert drawn["web"] > 3 * SIZES["web"]


def test_shares_of_samples_are_far_off_where_lengths_differ():
    """The control: without the unit, what has long samples gets most of the tokens."""
    lengths = lengths_of()
    plain = MixtureSampler(SIZES, WEIGHTS, batch_size=8, rank=0, world_size=1)
    tokens, samples = Tokens(lengths), Tokens(lengths)
    by_tokens = sampler()
    for k in range(100):
        off = tokens.add(by_tokens.global_rows(k), list(WEIGHTS.values()))
        off_plain = samples.add(plain.global_rows(k), list(WEIGHTS.values()))
    assert off <= flat(lengths).max()
    assert off_plain > 10 * flat(lengths).max()
    assert off_plain > 0.3 * samples.had.sum()


def test_rows_come_without_repeats_in_each_epoch():
    one = sampler()
    seen = np.concatenate([one.global_rows(k) for k in range(200)])
    times = np.bincount(seen, minlength=sum(SIZES.values()))
    for each in np.split(times, np.cumsum(list(SIZES.values()))[:-1]):
        assert each.max() - each.min() <= 1
    assert times.max() > 3


@settings(max_examples=30, deadline=None)
@given(
    stop=st.integers(0, 40),
    ranks=st.sampled_from([1, 2, 4, 8]),
    change=st.integers(0, 40),
    again=st.integers(0, 20),
)
def test_it_goes_on_from_a_state_on_any_number_of_ranks(stop, ranks, change, again):
    def begun(**place):
        one = sampler(**place)
        one.set_weights([0.1, 0.6, 0.3], batch=change)
        return one

    undisturbed = begun()
    whole = [undisturbed.global_rows(k).tolist() for k in range(60)]
    one = begun()
    for _ in zip(range(stop), one, strict=False):
        pass
    states = [json.loads(json.dumps(one.state_dict()))]
    for rank in range(ranks):
        other = sampler(rank=rank, world_size=ranks)
        other.load_state_dict(states[0])
        parts = [rows for rows, _ in zip(other, range(again), strict=False)]
        size = 8 // ranks
        expected = [rows[rank * size : (rank + 1) * size] for rows in whole[stop : stop + again]]
        assert parts == expected
        states.append(other.state_dict())
        assert states[-1] == states[1]


def test_a_state_of_some_batches_ago_can_be_asked_for():
    one = sampler()
    batches = [rows for rows, _ in zip(one, range(30), strict=False)]
    other = sampler()
    other.load_state_dict(one.state_at(20))
    assert [rows for rows, _ in zip(other, range(10), strict=False)] == batches[20:]
    for _ in zip(range(200), one, strict=False):
        pass
    with pytest.raises(SamplerError, match="sample 160 is more than 64 batches ago"):
        one.state_at(20)


def test_the_state_is_small_and_does_not_grow():
    one = sampler()
    sizes = []
    for k, _ in zip(range(3000), one, strict=False):
        if k % 3 == 0:
            one.set_weights([0.5, 0.3, 0.2] if k % 2 else [0.2, 0.3, 0.5])
        if k % 1000 == 999:
            sizes.append(len(json.dumps(one.state_dict())))
    assert max(sizes) < 1500


@pytest.mark.parametrize("policy", ["redistribute", "stop"])
def test_a_domain_that_runs_out(policy):
    one = sampler(max_epochs=2, exhausted=policy)
    rows = np.concatenate([np.array(rows) for rows in one])
    times = np.bincount(rows, minlength=sum(SIZES.values()))
    assert times.max() <= 2
    log = [entry for entry in one.log if entry.reason.startswith("exhausted")]
    assert log
    if policy == "redistribute":
        assert len(rows) > 2 * sum(SIZES.values()) - 8
        assert log[0].mixture[log[0].reason.removeprefix("exhausted: ")] == 0
    else:
        name = log[0].reason.removeprefix("exhausted: ")
        here = np.flatnonzero(domains_of(np.arange(len(times))) == list(SIZES).index(name))
        assert 2 * SIZES[name] - times[here].sum() < 8


def test_a_domain_whose_samples_are_alike_is_given_by_one_number():
    given = lengths_of()
    one = sampler(lengths={**given, "web": 64})
    other = sampler(lengths={**given, "web": np.full(40, 64)})
    assert all((one.global_rows(k) == other.global_rows(k)).all() for k in range(50))


def test_supervised_tokens_are_a_unit_too():
    given = {name: np.maximum(each // 3, 0) for name, each in lengths_of().items()}
    one, count = sampler(unit="supervised", lengths=given), Tokens(given)
    for k in range(60):
        off = count.add(one.global_rows(k), list(WEIGHTS.values()))
    assert off <= flat(given).max()
    assert one.tokens(60) == dict(zip(SIZES, count.had.astype(int).tolist(), strict=True))


def test_domains_may_be_renamed_and_regrown():
    one = sampler()
    for _ in zip(range(20), one, strict=False):
        pass
    sizes = {"www": 40, "code": 300, "books": 95}
    grown = dict(zip(sizes, lengths_of(3, sizes).values(), strict=True))
    other = MixtureSampler(
        sizes, [0.5, 0.3, 0.2], batch_size=8, rank=0, world_size=1, unit="tokens", lengths=grown
    )
    other.load_state_dict(one.state_dict(), map_domains={"web": "www"})
    before, after = list(one.counts().values()), list(other.counts().values())
    assert before == after
    other.global_rows(30)
    shares = np.array(list(other.tokens(60).values())) / sum(other.tokens(60).values())
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.05)


def test_no_position_can_be_asked_for():
    with pytest.raises(SamplerError, match="unit='tokens' the order is sequential"):
        sampler().locate(0, 8)
    with pytest.raises(TypeError, match="give MixtureSampler"):
        len(sampler())


def test_it_can_be_sent_to_another_process():
    one = sampler()
    again = pickle.loads(pickle.dumps(one))
    assert (one.global_rows(5) == again.global_rows(5)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "token"}, "unit='token'; did you mean 'tokens'"),
        ({"unit": "samples"}, "unit='samples' does not use them"),
        ({"lengths": {"wbe": 3}}, "lengths: unknown domain 'wbe'"),
        ({"lengths": {"web": [1, 2]}}, "lengths: domain 'web': 2 of its 40 rows"),
        ({"lengths": {"web": np.full(40, 1.5)}}, "domain 'web': float64 are not whole numbers"),
        ({"lengths": {"web": np.full(40, -1)}}, "domain 'web': row 0: -1 is not from 0"),
        ({"lengths": {"web": np.zeros(40, int)}}, "domain 'web': no row has a token"),
        ({"lengths": {"web": 0}}, "domain 'web': 0 is not from 1"),
        ({"tokens_per_sample": WEIGHTS}, "leave out tokens_per_sample"),
    ],
)
def test_bad_input_is_one_line(options, message):
    with pytest.raises(SamplerError, match=message) as error:
        sampler(**options)
    assert "\n" not in str(error.value)


def test_a_state_of_another_stream_is_refused():
    one = sampler()
    state = one.state_dict()
    others = lengths_of()
    others["web"][3] += 1
    with pytest.raises(SamplerError, match="lengths of domain 'web' add up to"):
        sampler(lengths=others).load_state_dict(state)
    with pytest.raises(SamplerError, match="owes each domain tokens, here unit='supervised'"):
        sampler(unit="supervised").load_state_dict(state)
    plain = MixtureSampler(SIZES, WEIGHTS, batch_size=8, rank=0, world_size=1)
    with pytest.raises(SamplerError, match="not a state of format"):
        plain.load_state_dict(state)
    with pytest.raises(SamplerError, match="not a state of format"):
        one.load_state_dict(plain.state_dict())


ABSURD = [2**200, -1, float("nan"), "x", None, True, [], {}, [[[]]], 1.5]


@pytest.mark.parametrize("value", ABSURD, ids=lambda value: f"{type(value).__name__}")
@pytest.mark.parametrize("field", sorted(sampler().state_dict()))
def test_an_absurd_field_is_refused_or_means_the_same(field, value):
    one = sampler(max_epochs=3, chunks=(4, 2))
    for _ in zip(range(5), one, strict=False):
        pass
    state = one.state_dict()
    before = json.dumps(state)
    if state[field] == value and type(state[field]) is type(value):
        return
    with contextlib.suppress(SamplerError):
        one.load_state_dict({**state, field: value})
        return
    assert json.dumps(one.state_dict()) == before


def test_a_long_linear_stage_leaves_the_log_what_it_knew():
    one = sampler(schedule=[(5, [0.5, 0.3, 0.2], 1205, [0.2, 0.3, 0.5]), (1300, [0.5, 0.3, 0.2])])
    for _ in zip(range(1400), one, strict=False):
        pass
    assert all(entry.realised is not None for entry in one.log)
