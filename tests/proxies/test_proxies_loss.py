"""The loss in chunks is the dense loss, and attention is attention, whichever way is taken."""

import pytest
import torch
from mixopt_proxies.decoder import (
    Passes,
    StackedWeights,
    has_compiler,
    make_size,
    training_passes as loss_module,
)
from mixopt_proxies.decoder.decoder_stack import RowDocuments, explicit_attention
from mixopt_proxies.decoder.training_passes import HeadLoss, dense_losses

CPU = torch.device("cpu")


@pytest.fixture
def problem(monkeypatch):
    """Hidden states, head and targets of two members, for chunks of 6 tokens and tiles of 64."""
    monkeypatch.setitem(loss_module.CHUNK_LOGITS, "cpu", 7 * 301)
    monkeypatch.setitem(loss_module.TILE_LOGITS, "cpu", 1)
    monkeypatch.setattr(loss_module, "MIN_TILE", 64)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 23, 16, generator=generator, requires_grad=True)
    head = torch.randn(2, 301, 16, generator=generator, requires_grad=True)
    targets = torch.randint(301, (2, 23), generator=generator)
    targets[0, :3] = torch.tensor([0, 63, 300])
    return hidden, head, targets


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.nightly)])
def head_loss(request):
    if request.param and not has_compiler(CPU):
        pytest.skip("no C++ compiler here")
    return HeadLoss(compiled=request.param)


def test_losses_and_gradients_in_chunks_are_the_dense_ones(problem, head_loss):
    found, dense = head_loss.training(*problem), dense_losses(*problem)
    torch.testing.assert_close(found[0], dense.mean(1).detach())
    torch.testing.assert_close(head_loss.losses(*problem), dense.detach())
    references = torch.autograd.grad(dense.mean(1).sum(), problem[:2])
    for ours, reference in zip(found[1:], references, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-6)
    assert not getattr(head_loss._exponentials, "failed", False)


def test_the_loss_in_chunks_matches_in_bfloat16(problem, head_loss):
    hidden, head, targets = problem
    found = head_loss.training(hidden.bfloat16(), head.bfloat16(), targets)
    dense = dense_losses(*problem).mean(1)
    # Logits here are up to 15, which bf16 rounds by up to 0.03 a token.
    torch.testing.assert_close(found[0], dense.detach(), rtol=0, atol=0.02)
    references = torch.autograd.grad(dense.sum(), (hidden, head))
    for ours, reference in zip(found[1:], references, strict=True):
        assert (ours.float() - reference).norm() < 0.02 * reference.norm()


def test_logits_that_are_far_apart_overflow_nowhere(head_loss):
    hidden = torch.tensor([[[1.0], [1.0], [-1.0]]])
    head = torch.linspace(-300, 300, 600)[None, :, None]
    problem = hidden, head, torch.tensor([[599, 0, 0]])
    found = head_loss.training(*problem)
    torch.testing.assert_close(found[0], dense_losses(*problem).mean(1))
    assert all(part.isfinite().all() for part in found)


def test_a_large_vocabulary_trains_the_same_in_chunks_and_dense(monkeypatch):
    size = make_size("tiny", width=16, heads=1, ff=32, sequence_length=8, batch=2)
    weights = StackedWeights(size, 67, [1, 2], device=CPU, dtype=torch.float32)
    tokens = torch.randint(67, (2, 2, 9), generator=torch.Generator().manual_seed(0))
    dense = Passes(size, 67, device=CPU, dtype=torch.float32, compiled=False)
    monkeypatch.setattr("mixopt_proxies.decoder.training_passes.LARGE_VOCABULARY", 67)
    chunked = Passes(size, 67, device=CPU, dtype=torch.float32, compiled=False)
    assert (dense.chunked, chunked.chunked) == (False, True)
    torch.testing.assert_close(
        chunked.gradients(weights.leaves, tokens)[:2], dense.gradients(weights.leaves, tokens)[:2]
    )
    torch.testing.assert_close(
        chunked.evaluated(weights.leaves, tokens)[0], dense.evaluated(weights.leaves, tokens)[0]
    )


def test_explicit_attention_is_the_fused_attention_of_the_documents_of_each_sequence():
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 200, 8, generator=generator)
    place = torch.cat([torch.arange(90), torch.arange(110)]).repeat(2, 1)
    hidden = RowDocuments.placed(place).hidden_NTT
    fused = torch.nn.functional.scaled_dot_product_attention
    expected = fused(query, key, value, attn_mask=~hidden[:, None])
    torch.testing.assert_close(explicit_attention(query, key, value, hidden), expected)
