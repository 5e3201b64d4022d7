"""Sums of losses by domain in one process: units, masks, references, and what is broken."""

from __future__ import annotations

import pytest
import torch

from mixopt.errors import EstimatorError
from mixopt.online import UNIT, DomainLosses, loss_sums as module
from mixopt.online.loss_sums import on_first

FIRST = torch.tensor([0])


def added(losses, *, domain=FIRST, mask=None, reference=None, lengths=(2.0, 2.0)):
    """Return sums of losses, counts, broken losses and excess, each by domain."""
    sums = DomainLosses(list(lengths))
    sums.add(torch.as_tensor(losses), domain, mask, reference)
    return sums.take().tolist()


@pytest.mark.parametrize("number", [2.0**20, -(2.0**20), torch.nan])
def test_a_loss_without_a_reference_beside_it_is_broken(number):
    sums = added([[1.0, 3.0]], reference=torch.tensor([[number, 1.0]]))
    assert [row[0] for row in sums] == [3 * UNIT, 1, 1, 2 * UNIT]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_losses_of_any_precision_are_exact(dtype):
    assert added(torch.tensor([[1.5, 2.25]], dtype=dtype))[0][0] == 3.75 * UNIT


def test_losses_are_not_changed_and_keep_their_graph():
    losses = torch.tensor([[1.5, 2.5]], requires_grad=True)
    added(losses, reference=torch.ones(1, 2, requires_grad=True))
    assert losses.tolist() == [[1.5, 2.5]]
    losses.sum().backward()
    assert losses.grad.tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("losses", "domain", "mask", "reference", "said"),
    [
        ((), (), None, None, r"losses of shape \(\) and domains of shape \(\)"),
        ((2, 3), (2,), None, (2,), r"reference_losses of shape \(2,\) for losses of shape \(2, 3"),
        ((2, 3), (2,), (2, 4), None, r"a mask of shape \(2, 4\) for losses of shape \(2, 3\)"),
        ((2,), (2,), (3, 4), None, r"a mask of shape \(3, 4\) for losses of shape \(2,\)"),
        ((2, 3), (2,), (2, 3, 1), None, r"a mask of shape \(2, 3, 1\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(losses, domain, mask, reference, said):
    mask = None if mask is None else torch.ones(mask)
    reference = None if reference is None else torch.ones(reference)
    sums = DomainLosses([2.0])
    with pytest.raises(EstimatorError, match=said):
        sums.add(torch.ones(losses), torch.zeros(domain, dtype=torch.long), mask, reference)


# One rank -------------------------------------------------------------------------------------


def test_another_rank_does_not_call_and_hears_what_went_wrong(monkeypatch):
    monkeypatch.setattr(module, "is_first", lambda: False)
    assert on_first(lambda: 1 / 0) is None
    monkeypatch.setattr(module, "from_first", lambda said: "KeyError on rank 0: 'web'")
    with pytest.raises(EstimatorError, match=r"^KeyError on rank 0: 'web'$"):
        on_first(lambda: 1 / 0)


# Where sums and messages are ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backends", "cuda", "of_sums", "of_messages"),
    [
        ("cpu:gloo,cuda:gloo", True, "cpu", "cpu"),
        ("cpu:gloo,cuda:nccl", True, "cuda:3", "cpu"),
        ("cpu:gloo,cuda:nccl", False, "cpu", "cpu"),
        ("cuda:nccl", True, "cuda:3", "cuda:3"),
    ],
)
def test_sums_are_on_the_device_of_nccl_and_messages_beside_it(
    monkeypatch, backends, cuda, of_sums, of_messages
):
    monkeypatch.setattr(module.dist, "get_backend_config", lambda: backends)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert module._device_of_sums() == torch.device(of_sums)
    assert module._device_of_messages() == torch.device(of_messages)
