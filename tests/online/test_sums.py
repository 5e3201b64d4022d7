"""Sums of losses by domain: exact, in any parts; held-out means; what one rank hears of another."""

import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from driver_parts import sampler
from hypothesis import given, settings, strategies as st

from mixopt.errors import EstimatorError
from mixopt.online import UNIT, DomainLosses, Observation, held_out_losses, loss_sums as module
from mixopt.online.loss_sums import LossWindows
from mixopt.online.standing_plan import StreamSteps


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
    whole.add(losses, domain, None)
    order = random.permutation(12)
    for part in np.array_split(order, parts):
        split.add(losses[part], domain[part], None)
    assert torch.equal(whole.totals_RD, split.totals_RD)
    units = sum(
        round(Fraction(loss) * UNIT) for row in losses[domain == 0].tolist() for loss in row
    )
    assert whole.totals_RD[0, 0] == units


def test_losses_that_are_not_finite_are_counted_and_not_summed():
    sums = DomainLosses([3.0, 3.0])
    losses = torch.tensor([[1.0, torch.nan, 2.0, -(2.0**20)], [torch.inf, 4.0, torch.nan, 0.0]])
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    sums.add(losses, torch.tensor([0, 1]), mask)
    loss, count, broken = sums.take().tolist()
    assert loss == [3 * UNIT, 4 * UNIT]
    assert (count, broken) == ([2, 1], [2, 1])  # from 2^20 on a loss is none
    assert not sums.totals_RD.any()


def test_means_of_sequences_count_for_their_tokens_and_low_precision_is_exact():
    sums = DomainLosses([16.0, 8.0])
    sums.add(torch.tensor([2.0, 3.0]), torch.tensor([0, 1]), None)
    assert sums.take()[:2].tolist() == [[32 * UNIT, 24 * UNIT], [16, 8]]
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    sums.add(torch.tensor([2.0, 3.0]), torch.tensor([0, 1]), mask)
    assert sums.take()[:2].tolist() == [[4 * UNIT, 3 * UNIT], [2, 1]]
    losses = torch.tensor([[1.5, 2.25]], dtype=torch.bfloat16, requires_grad=True)
    sums = DomainLosses([2.0])
    sums.add(losses, torch.tensor([0]), None)
    assert sums.take()[0].tolist() == [3.75 * UNIT]
    losses.sum().backward()
    assert losses.grad.tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("losses", "domain", "mask", "said"),
    [
        ((2, 3), (3,), None, r"losses of shape \(2, 3\) and domains of shape \(3,\)"),
        ((2, 3), (2,), (2, 4), r"a mask of shape \(2, 4\) for losses of shape \(2, 3\)"),
        ((2,), (2,), (3, 4), r"a mask of shape \(3, 4\) for losses of shape \(2,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(losses, domain, mask, said):
    mask = None if mask is None else torch.ones(mask, dtype=torch.bool)
    with pytest.raises(EstimatorError, match=said):
        DomainLosses([3.0]).add(torch.ones(losses), torch.zeros(domain, dtype=torch.long), mask)


def test_sums_are_on_the_device_of_nccl(monkeypatch):
    monkeypatch.setattr(module.dist, "get_backend_config", lambda: "cpu:gloo,cuda:nccl")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert module._device_of_sums() == torch.device("cuda:3")


def test_held_out_losses_are_means_in_the_order_of_the_names_or_what_is_wrong_is_said():
    def found(**b):
        return held_out_losses(lambda: {**b, "a": (6.0, 4), "unasked": (1.0, 1)}, ["a", "b"])

    assert found(b=(9.0, 2)).losses_M.tolist() == [1.5, 4.5]
    assert found(b=(9.0, 2)).tokens == 6
    for loss in (math.nan, -(2.0**42)):
        assert found(b=(loss, 1)) == "held-out loss of 'b' is not finite"
    for none in ({"b": (1.0, 0)}, {}):
        with pytest.raises(EstimatorError, match="^evaluation domain 'b' has no held-out tokens"):
            found(**none)


def rise(*means, counts=(4, 4, 4)):
    """Return what is said of the last of several windows of mean losses, at a spike of 0.5."""
    order = sampler()
    seen = LossWindows(StreamSteps(order, 1, 16), spike=0.5, needs_losses=True)
    said = []
    for step, losses in enumerate(means, 1):
        next(iter(order))
        for domain, (loss, count) in enumerate(zip(losses, counts, strict=True)):
            sequence = torch.full((1, max(count, 1)), float(loss))
            mask = torch.full(sequence.shape, bool(count))
            seen.record(sequence, torch.tensor([domain]), mask)
        said.append(seen.close(step, 0.1))
    assert all(isinstance(item, Observation) for item in said[:-1])
    return said[-1]


def test_a_window_has_sums_by_domain_or_names_the_domain_with_most_invalid_losses():
    seen = rise([1, 2, 3], [1, 2.25, 9], counts=(4, 8, 0))
    assert (seen.step, seen.learning_rate) == (2, 0.1)
    assert seen.loss_sum_D.tolist() == [4, 18, 0]
    assert seen.loss_count_D.tolist() == [4, 8, 0]
    said = rise([1, torch.nan, 1], counts=(4, 2, 4))
    assert said == "domain 'b': 2 losses up to step 1 are not finite"


def test_a_domain_may_rise_by_the_spike_above_its_mean_over_earlier_windows():
    assert isinstance(rise([1, 1, 1], [1.5, 1.5, 1.5]), Observation)
    said = rise([1, 1, 1], [1.75, 1.75, 1.75])
    assert said == "losses rose by 0.75 nats up to step 2; spike is 0.5"
    assert "rose by 0.7 nats" in rise([1, 1, 1], [0, 0, 0], [1.4, 1.4, 1.4])  # mean 0.7
    assert "rose by 0.91 nats" in rise(*([x] * 3 for x in (1, 0, 0, 1.4)))  # mean 0.49
