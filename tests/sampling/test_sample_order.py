"""The order of samples: exact shares at every prefix, random access, exhaustion, one digest."""

from __future__ import annotations

import hashlib
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mixopt.sampling import SampleOrder
from mixopt.sampling.order import UNIT, Origin, ShareChange, whole_shares
from mixopt.sampling.order.split_tree import _BOUND_UNIT, SplitTree, _bound
from mixopt.sampling.sample_order import Chunks, StreamLayout


def layout(sizes, *, window=8, seed=0, **options):
    names = tuple(f"d{k}" for k in range(len(sizes)))
    options.setdefault("limits", (None,) * len(sizes))
    return StreamLayout(names, tuple(sizes), seed, window, **options)


def changes_of(*pairs):
    return [ShareChange(position, tuple(whole_shares(weights))) for position, weights in pairs]


def over(weights, *later, size=1000, **options):
    return SampleOrder(layout([size] * len(weights), **options), changes_of((0, weights), *later))


def worst_error(order, changes, stop):
    """Largest |count - integral of the shares| over domains and prefixes, in samples."""
    domains = order.planned(0, stop)
    count = np.zeros((stop, len(changes[0].shares)))
    count[np.arange(stop), domains] = 1
    rates = np.zeros_like(count)
    for change in changes:
        rates[change.position :] = np.array(change.shares) / UNIT
    return np.abs((count - rates).cumsum(axis=0)).max()


def simplices(most=40):
    number = st.one_of(
        st.floats(1e-6, 1.0), st.just(0.0), st.floats(1e-6, 1e-3), st.sampled_from([0.5, 1.0])
    )
    return st.lists(number, min_size=1, max_size=most).filter(any)


@st.composite
def changing(draw):
    domains = draw(st.integers(1, 24))
    weights = st.lists(
        st.one_of(st.floats(1e-6, 1.0), st.just(0.0), st.floats(1e-6, 1e-3)),
        min_size=domains,
        max_size=domains,
    ).filter(any)
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=12))
    positions = np.cumsum([0, *lengths[:-1]]) * 8
    return changes_of(*((int(p), draw(weights)) for p in positions)), int(sum(lengths) * 8)


@given(weights=simplices())
@settings(max_examples=60, deadline=None)
def test_every_prefix_is_within_two_samples_of_its_share(weights):
    changes = changes_of((0, weights))
    order = SampleOrder(layout([10] * len(weights)), changes)
    assert worst_error(order, changes, 3000) < 2


@given(log=changing())
@settings(max_examples=100, deadline=None)
def test_every_prefix_is_within_two_samples_of_the_integral_over_changes(log):
    changes, stop = log
    order = SampleOrder(layout([10] * len(changes[0].shares)), changes)
    assert worst_error(order, changes, stop) < 2


def dirichlet(concentration):
    return lambda rng, domains: rng.dirichlet([concentration] * domains)


def one_heavy(rng, domains):
    """One domain of nine tenths, one of a tenth, the others of a millionth and less."""
    weights = 1e-6 * rng.random(domains)
    weights[rng.integers(domains)] = 0.9
    weights[rng.integers(domains)] += 0.1 - 1e-3
    return weights


@pytest.mark.parametrize(
    ("domains", "window", "mixture", "bound"),
    [
        (8, 64, dirichlet(0.1), 1.6),
        (16, 320, dirichlet(0.3), 1.5),
        (30, 512, one_heavy, 1.6),
        (100, 256, dirichlet(1.0), 1.5),
    ],
)
def test_random_changes_do_not_let_the_error_grow(domains, window, mixture, bound):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        weights = [mixture(rng, domains).tolist() for _ in range(150)]
        changes = changes_of(*((k * window, w) for k, w in enumerate(weights)))
        order = SampleOrder(layout([10] * domains), changes)
        assert worst_error(order, changes, 150 * window) < bound


@given(log=changing(), count=st.integers(1, 50), data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_position_of_a_draw_is_the_first_with_that_count(log, count, data):
    changes, _ = log
    owed = data.draw(
        st.lists(st.integers(-UNIT, UNIT), min_size=len(changes[0].shares), max_size=24)
    )
    tree = SplitTree(changes[0].shares, (owed + [0] * 24)[: len(changes[0].shares)])
    for place, domain in enumerate(tree.domains):
        position = tree.position(domain, count)
        assert tree.counts(position)[place] == count
        assert tree.counts(position - 1)[place] == count - 1


def test_few_pieces_are_laid_out_where_domains_sleep():
    order = over([0.4, 0.3, 0.3], (80, [1 - 2e-6, 1e-6, 1e-6]))
    order.planned_counts(10**8)
    assert len(order._plan._pieces) < 30


def test_the_delivered_stream_is_within_two_samples_at_every_batch_boundary():
    weights = np.random.default_rng(1).dirichlet([0.5] * 8).tolist()
    order = over(weights, window=64)
    for batch in range(1, 200):
        counts = order.counts(batch * 64)
        assert np.abs(counts - batch * 64 * np.array(weights)).max() < 2


def test_counts_agree_with_what_is_delivered_at_every_position():
    order = over([0.5, 0.3, 0.2], (32, [0.0, 0.1, 0.9]), window=16)
    domain, _ = order.locate(0, 100)
    for position in range(100):
        assert (
            order.counts(position).tolist() == np.bincount(domain[:position], minlength=3).tolist()
        )


def test_a_share_of_a_millionth_is_drawn():
    order = over([1 - 2e-6, 1e-6, 1e-6])
    assert order.when_drawn(1, 1, 2_000_000) is not None
    counts = order.counts(10_000_000)
    assert np.abs(counts - np.array([1e7 - 20, 10, 10])).max() < 2


def test_a_domain_of_weight_zero_is_not_drawn_while_it_is_zero():
    order = over([0.5, 0.5, 0.0], (800, [0.0, 0.5, 0.5]), (1600, [0.4, 0.3, 0.3]))
    domain = order.planned(0, 2400)
    assert 2 not in domain[:800]
    assert 0 not in domain[800:1600]
    assert set(domain[1600:]) == {0, 1, 2}


def test_counts_are_exact_far_into_the_stream():
    weights = [0.5, 0.25, 0.125, 0.125]
    counts = over(weights).counts(8 * 10**15)
    assert counts.tolist() == [4 * 10**15, 2 * 10**15, 10**15, 10**15]


def test_what_is_owed_is_the_integral_less_the_count():
    changes = changes_of((0, [0.7, 0.2, 0.1]), (24, [0.1, 0.1, 0.8]))
    order = SampleOrder(layout([10] * 3), changes)
    counts = np.bincount(order.planned(0, 40), minlength=3)
    for d in range(3):
        integral = Fraction(24 * changes[0].shares[d] + 16 * changes[1].shares[d], UNIT)
        assert Fraction(int(order.owed(40)[d]), UNIT) == integral - int(counts[d])


@given(start=st.integers(0, 400), length=st.integers(0, 200), far=st.sampled_from([0, 10**12]))
@settings(max_examples=50, deadline=None)
def test_any_part_can_be_located_by_itself(start, length, far):
    order = over([0.6, 0.3, 0.1], (160, [0.2, 0.0, 0.8]), size=37, window=16)
    base = far - far % 16
    domain, row = order.locate(base, base + 608)
    part = order.locate(base + start, base + start + length)
    assert np.array_equal(part[0], domain[start : start + length])
    assert np.array_equal(part[1], row[start : start + length])


def test_the_start_of_the_stream_does_not_depend_on_later_changes():
    weights, later = [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]
    before = over(weights).locate(0, 160)
    after = over(weights).changed(changes_of((160, later))[0]).locate(0, 160)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_change_made_late_gives_the_stream_of_one_known_from_the_start():
    known = over([0.6, 0.3, 0.1], (160, [0.1, 0.1, 0.8]), (320, [0.3, 0.7, 0.0]))
    running = over([0.6, 0.3, 0.1])
    running.locate(0, 1000)
    for change in known.changes[1:]:
        running = running.changed(change)
        running.locate(0, 1000)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(known.locate(0, 1000), running.locate(0, 1000), strict=True)
    )


def test_a_change_before_a_pending_one_keeps_it():
    order = over([0.5, 0.5], (160, [1.0, 0.0]))
    order = order.changed(changes_of((80, [0.0, 1.0]))[0])
    domain = order.planned(0, 240)
    assert set(domain[81:160]) == {1}
    assert set(domain[161:]) == {0}


def test_a_change_can_be_set_again_after_it_was_looked_at():
    order = over([0.5, 0.5], (160, [0.9, 0.1]))
    order.planned(0, 400)
    again = order.changed(changes_of((160, [0.1, 0.9]))[0])
    known = over([0.5, 0.5], (160, [0.1, 0.9]))
    assert np.array_equal(again.planned(0, 400), known.planned(0, 400))


def test_a_change_moves_an_end_that_was_known():
    sizes = (10, 1000)
    order = SampleOrder(layout(sizes, limits=sizes, stops=True), changes_of((0, [0.5, 0.5])))
    assert order.reach(10**6) == 19
    order = order.changed(changes_of((16, [0.0, 1.0]))[0])
    assert order.reach(10**6) == 1008


def test_a_change_at_the_very_end_of_a_stream_lets_it_go_on():
    sizes = (10, 1000)
    order = SampleOrder(layout(sizes, limits=sizes), changes_of((0, [1.0, 0.0])))
    assert order.reach(10**6) == 10
    assert order.changed(changes_of((10, [0.0, 1.0]))[0]).reach(10**6) == 1010


def test_a_leaf_is_off_by_half_a_sample_and_its_part_of_what_its_parents_are():
    pairs, shares = [(1, 2), (3, 0)], [UNIT // 2, UNIT // 4, UNIT // 4]
    assert _bound(pairs, shares) / _BOUND_UNIT == pytest.approx(0.5 + 0.5 / 2, abs=1e-5)


def test_a_window_is_shuffled_within_itself():
    plain, shuffled = over([0.5, 0.5], window=64), over([0.5, 0.5], window=64)
    domain, _ = shuffled.locate(0, 640)
    assert not np.array_equal(domain, plain.planned(0, 640))
    for k in range(10):
        here = slice(64 * k, 64 * k + 64)
        assert np.array_equal(np.sort(domain[here]), np.sort(plain.planned(0, 640)[here]))


def test_another_seed_gives_another_order():
    one = over([0.5, 0.5]).locate(0, 100)
    other = over([0.5, 0.5], seed=1).locate(0, 100)
    assert not np.array_equal(one[1], other[1])


@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5), data=st.data())
@settings(max_examples=40, deadline=None)
def test_no_row_comes_twice_inside_an_epoch_whatever_the_changes(sizes, data):
    weights = [
        data.draw(st.lists(st.floats(0.05, 1), min_size=len(sizes), max_size=len(sizes)))
        for _ in range(4)
    ]
    changes = changes_of(*((k * 40, w) for k, w in enumerate(weights)))
    domain, row = SampleOrder(layout(sizes), changes).locate(0, 480)
    for d, size in enumerate(sizes):
        rows = row[domain == d].tolist()
        counts = np.bincount(rows, minlength=size)
        assert counts.max() - counts.min() <= 2  # a window may mix the ends of two epochs
        assert len(rows) < size - 8 or counts.min() >= len(rows) // size - 1


def test_repeating_domains_come_in_a_fresh_order_each_epoch():
    _, row = over([1.0], size=64, window=64).locate(0, 192)
    epochs = row.reshape(3, 64)
    assert all(sorted(epoch) == list(range(64)) for epoch in epochs.tolist())
    assert not np.array_equal(epochs[0], epochs[1])


def test_a_domain_that_runs_out_hands_its_share_to_the_others():
    sizes = (10, 50, 1000)
    order = SampleOrder(layout(sizes, limits=sizes), changes_of((0, [0.2, 0.3, 0.5])))
    end = order.reach(10**9)
    assert end == sum(sizes)
    domain, row = order.locate(0, end)
    assert len(set(zip(domain.tolist(), row.tolist(), strict=True))) == end
    assert [event.domain for event in order.exhausted(end)] == [0, 1, 2]
    first = order.exhausted(end)[0].position
    assert order.planned(0, first).tolist().count(0) == 10
    assert abs(np.mean(order.planned(first, first + 80) == 1) - 3 / 8) < 2 / 80


def test_a_stream_that_stops_ends_with_the_first_domain_that_runs_out():
    sizes = (10, 50, 1000)
    order = SampleOrder(layout(sizes, limits=sizes, stops=True), changes_of((0, [0.2, 0.3, 0.5])))
    end = order.reach(10**9)
    assert order.planned_counts(end)[0] == 10
    assert order.planned_counts(end - 1)[0] == 9
    with pytest.raises(IndexError, match=f"of \\[0, {end}\\)"):
        order.locate(0, end + 1)


def test_a_domain_that_ran_out_is_not_drawn_by_later_weights():
    sizes = (10, 1000)
    order = SampleOrder(
        layout(sizes, limits=(10, None)), changes_of((0, [0.5, 0.5]), (80, [0.9, 0.1]))
    )
    assert set(order.planned(80, 160)) == {1}


def test_a_plan_goes_on_from_its_origin_as_if_it_had_not_stopped():
    log = changes_of((0, [0.2, 0.3, 0.5]), (160, [0.4, 0.4, 0.2]))
    whole = SampleOrder(layout([30] * 3), log)
    counts, owed = whole.planned_counts(160), whole.owed(160)
    origin = Origin(160, tuple(counts.tolist()), tuple(owed.tolist()))
    part = SampleOrder(layout([30] * 3), log[1:], origin)
    for a, b in zip(whole.locate(160, 400), part.locate(160, 400), strict=True):
        assert np.array_equal(a, b)
    with pytest.raises(IndexError, match="positions \\[0, 8\\)"):
        part.locate(0, 8)


def test_a_thousand_domains_keep_their_shares():
    weights = np.random.default_rng(0).dirichlet([1.0] * 1000)
    changes = changes_of((0, weights.tolist()), (6400, weights[::-1].tolist()))
    order = SampleOrder(layout([10] * 1000, window=64), changes)
    assert np.abs(order.owed(6400)).max() < 2 * UNIT
    assert np.abs(order.owed(20_000)).max() < 2 * UNIT


def test_an_order_can_be_sent_to_another_process():
    order = over([0.6, 0.4])
    again = pickle.loads(pickle.dumps(order))
    assert np.array_equal(order.locate(0, 100)[1], again.locate(0, 100)[1])


def digest_of_a_long_stream():
    sizes = (1_000_003, 50_021, 4096, 77, 1)
    log = changes_of(
        (0, [0.4, 0.3, 0.2, 0.09, 0.01]),
        (24_000, [0.1, 0.2, 0.3, 0.4, 0.0]),
        (48_000, [1 - 1e-6, 1e-6, 0.0, 0.0, 0.0]),
        (72_000, [0.3, 0.3, 0.3, 0.05, 0.05]),
    )
    digest = hashlib.sha256()
    for chunks, limits in ((None, (None,) * 5), (Chunks(64, 8), (None, 30_000, None, 900, None))):
        names = tuple("abcde")
        order = SampleOrder(StreamLayout(names, sizes, 7, 96, limits, chunks=chunks), log)
        for start in (0, 95_999, 10**12):
            for part in order.locate(start, start + 120_000):
                digest.update(part.astype("<i8").tobytes())
    return digest.hexdigest()


def test_the_stream_is_the_same_on_every_machine():
    assert (
        digest_of_a_long_stream()
        == "b0e760b28ded086d38ecbae893730fb17a7759ec1dc816a95626533dc51329ce"
    )
