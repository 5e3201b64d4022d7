"""The driver: exact sums of losses, rounded shares, alignment of gradients."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from driver_parts import DOMAIN_OF_ROW, Turning, driver_over, losses_of, sampler
from hypothesis import given, settings, strategies as st

from mixopt.errors import EstimatorError
from mixopt.online import UNIT, DomainLosses, gradient_alignment
from mixopt.online.standing_plan import rounded_shares


def test_the_contract_is_there_without_torch():
    code = "import sys, mixopt.online; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_sums_are_exact_in_any_order_and_any_parts(seed, parts):
    random = np.random.default_rng(seed)
    losses = torch.from_numpy(random.exponential(4, (12, 9)).astype(np.float32))
    domain = torch.from_numpy(random.integers(0, 3, 12))
    whole, split = DomainLosses([9.0] * 3), DomainLosses([9.0] * 3)
    whole.add(losses, domain, None, None)
    order = random.permutation(12)
    for part in np.array_split(order, parts):
        split.add(losses[part], domain[part], None, None)
    assert torch.equal(whole.peek(), split.peek())
    units = sum(
        round(Fraction(loss) * UNIT) for row in losses[domain == 0].tolist() for loss in row
    )
    assert whole.peek()[0, 0] == units


def test_losses_that_are_not_finite_are_counted_and_not_summed():
    sums = DomainLosses([3.0, 3.0])
    losses = torch.tensor([[1.0, torch.nan, 2.0], [torch.inf, 4.0, torch.nan]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    sums.add(losses, torch.tensor([0, 1]), mask, None)
    loss, count, broken, _ = sums.take().tolist()
    assert loss == [3 * UNIT, 4 * UNIT]
    assert (count, broken) == ([2, 1], [1, 1])
    assert not sums.peek().any()


def test_means_of_sequences_count_for_their_tokens():
    sums = DomainLosses([16.0, 8.0])
    sums.add(torch.tensor([2.0, 3.0]), torch.tensor([0, 1]), None, None)
    assert sums.take()[:2].tolist() == [[32 * UNIT, 24 * UNIT], [16, 8]]
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    sums.add(torch.tensor([2.0, 3.0]), torch.tensor([0, 1]), mask, None)
    assert sums.take()[:2].tolist() == [[4 * UNIT, 3 * UNIT], [2, 1]]


def test_the_excess_over_a_reference_is_clipped_at_each_token():
    sums = DomainLosses([2.0])
    losses, reference = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 2.0]])
    sums.add(losses, torch.tensor([0]), None, reference)
    assert sums.take()[3].tolist() == [2 * UNIT]


@pytest.mark.parametrize(
    ("losses", "domain", "mask", "said"),
    [
        ((2, 3), (3,), None, r"losses of shape \(2, 3\) and domains of shape \(3,\)"),
        ((2, 3, 4), (2,), None, r"they are \(B, T\) or \(B,\)"),
        ((2, 3), (2,), (2,), r"a mask of shape \(2,\)"),
        ((2,), (2,), (2,), r"\(B, T\) for means"),
    ],
)
def test_shapes_that_do_not_fit_are_named(losses, domain, mask, said):
    sums = DomainLosses([3.0])
    mask = None if mask is None else torch.ones(mask, dtype=torch.bool)
    with pytest.raises(EstimatorError, match=said):
        sums.add(torch.ones(losses), torch.zeros(domain, dtype=torch.long), mask, None)


@settings(max_examples=50)
@given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.booleans())
def test_rounded_shares_are_a_mixture_within_the_bounds_and_near(domains, seed, bounded):
    random = np.random.default_rng(seed)
    weights = random.dirichlet(np.ones(domains))
    room = random.uniform(0, 0.5, domains) if bounded else np.ones(domains)
    lower, upper = np.maximum(weights - room, 0), np.minimum(weights + room, 1)
    shares = rounded_shares(weights, np.full(domains, 1 / domains), lower, upper)
    assert shares.sum() == pytest.approx(1, abs=1e-12)
    assert (shares >= lower - 1e-9).all()
    assert (shares <= upper + 1e-9).all()
    assert np.abs(shares - weights).max() < 1e-4 + 1e-9


def test_rounding_hides_the_last_digits_and_keeps_small_domains():
    even, noise = np.full(3, 1 / 3), np.array([-1e-8, 2e-8, -1e-8])
    none, all_ = np.zeros(3), np.ones(3)
    assert rounded_shares(even, even, none, all_).tolist() == [0.3334, 0.3333, 0.3333]
    assert rounded_shares(even + noise, even, none, all_).tolist() == [0.3334, 0.3333, 0.3333]
    small = np.array([2e-5, 0.5, 0.5 - 2e-5])
    assert rounded_shares(small, small, none, all_)[0] == pytest.approx(2e-5)
    third = rounded_shares(even, even, even, even)  # no multiple is within such bounds
    assert np.abs(third - 1 / 3).max() <= 1e-9


def test_alignment_is_the_inner_product_over_the_mean_norm():
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    fixed = torch.tensor([1.0])
    one, other = (
        (weight * torch.tensor([3.0, 4.0])).sum(),
        (weight * torch.tensor([0.0, 5.0])).sum(),
    )
    goal = one + other
    values = gradient_alignment([one, other, None], goal, [weight, fixed])
    assert values.tolist() == [(9 + 36) / 5, 45 / 5, 0]
    goal.backward()  # the graph is still there
    order, estimator = sampler(), Turning(2, needs=("alignment",))
    driver = driver_over(order, estimator, gives=["alignment"], lead=0)
    driver.start()
    for factor in (1, 3):
        rows = next(iter(order))
        driver.record(losses_of(rows, 0), torch.from_numpy(DOMAIN_OF_ROW[rows]))
        driver.record_alignment(values * factor)
        driver.step()
    assert estimator.told[-1].alignment_D.tolist() == [18, 18, 0]
    with pytest.raises(EstimatorError, match=r"record_alignment: shape \(2,\); it takes \(3,\)"):
        driver.record_alignment([1.0, 2.0])
