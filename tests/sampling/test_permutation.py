"""The order of rows: as good as true permutations, another each epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mixopt import MixtureSampler
from mixopt.sampling import RowOrder, domain_key, window_order


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
@settings(max_examples=60, deadline=None)
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


def test_epochs_and_domains_have_orders_of_their_own():
    order = RowOrder([1000, 1000], [domain_key(0, "a"), domain_key(0, "b")])
    orders = [epoch_rows(order, 1000, epoch=e, domain=d) for e in range(2) for d in range(2)]
    for k, one in enumerate(orders):
        for other in orders[:k]:
            assert np.sum(one == other) < 20


def test_a_row_can_be_asked_for_by_itself_at_any_size():
    size = 10**15 + 7
    order = RowOrder([size], [domain_key(0, "big")])
    row = order.rows(np.zeros(5, np.int64), np.arange(5, dtype=np.int64) * 10**14)
    assert ((row >= 0) & (row < size)).all()
    assert len(set(row.tolist())) == 5


@given(size=st.integers(1, 600), first=st.integers(0, 2**40))
@settings(max_examples=40, deadline=None)
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
    one = MixtureSampler(sizes, [0.5, 0.3, 0.2], batch_size=8, rank=0, world_size=1)
    assert next(iter(one)) == [45, 28, 9, 134, 26, 110, 131, 129]
    lengths = {"web": np.arange(1, 91), "code": 7, "books": 1}
    how = {"unit": "tokens", "lengths": lengths, "seed": 4, "rank": 1, "world_size": 2}
    one = MixtureSampler(sizes, [0.6, 0.4, 0], batch_size=12, **how)
    assert [*one.batch_rows(1)[0]] == [128, 108, 125, 99, 97, 104, 110, 106, 109, 62, 130, 117]
