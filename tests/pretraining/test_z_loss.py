"""The z-loss: computed beside the cross-entropy, without a second softmax."""

import pytest
import torch

from mixopt.pretraining import training_step as module
from mixopt.pretraining.training_step import losses_and_totals, token_losses


@pytest.fixture(params=["whole", "chunked"])
def chunks(request, monkeypatch):
    """Have the logits come as a whole, or row by row."""
    if request.param == "chunked":
        monkeypatch.setattr(module, "_CHUNK_LOGITS", 1)


def made():
    generator = torch.Generator().manual_seed(3)
    logits_BTV = 4 * torch.randn(3, 5, 11, generator=generator)
    targets_BT = torch.randint(0, 11, (3, 5), generator=generator)
    return logits_BTV.requires_grad_(), targets_BT


@pytest.mark.usefixtures("chunks")
def test_totals_are_those_of_the_formula():
    logits_BTV, targets_BT = made()
    _, totals_BT = losses_and_totals(logits_BTV, targets_BT)
    direct = logits_BTV.double().exp().sum(-1).log()
    torch.testing.assert_close(totals_BT.double(), direct, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("chunks")
def test_gradients_are_those_of_the_formula():
    logits_BTV, targets_BT = made()
    losses_BT, totals_BT = losses_and_totals(logits_BTV, targets_BT)
    (losses_BT.mean() + 0.1 * totals_BT.square().mean()).backward()
    direct = logits_BTV.detach().double().requires_grad_()
    totals = direct.logsumexp(-1)
    losses = totals - direct.gather(-1, targets_BT[..., None])[..., 0]
    (losses.mean() + 0.1 * totals.square().mean()).backward()
    torch.testing.assert_close(logits_BTV.grad.double(), direct.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("chunks")
def test_the_cross_entropy_is_the_one_without_it_to_the_last_bit():
    logits_BTV, targets_BT = made()
    assert torch.equal(
        losses_and_totals(logits_BTV, targets_BT)[0], token_losses(logits_BTV, targets_BT)
    )


def test_nothing_of_the_size_of_the_logits_is_exponentiated_twice():
    logits_BTV, targets_BT = made()
    with torch.profiler.profile() as profile:
        losses_and_totals(logits_BTV.detach(), targets_BT)
    names = [event.name for event in profile.events()]
    assert names.count("aten::_log_softmax") == 1
    assert "aten::logsumexp" not in names
