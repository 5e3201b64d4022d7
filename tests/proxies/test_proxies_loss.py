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
from mixopt_proxies.decoder.decoder_stack import Attention, embed, explicit_attention
from mixopt_proxies.decoder.training_passes import (
    HeadLoss,
    dense_losses,
)

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


@pytest.fixture(params=[False, True], ids=["eager", "compiled"])
def head_loss(request):
    if request.param and not has_compiler(CPU):
        pytest.skip("no C++ compiler here")
    return HeadLoss(compiled=request.param)


def test_the_loss_in_chunks_is_the_dense_loss(problem, head_loss):
    found = head_loss.training(*problem).loss_K
    torch.testing.assert_close(found, dense_losses(*problem).mean(1).detach())
    assert not getattr(head_loss._exponentials, "failed", False)


def test_the_gradients_in_chunks_are_those_of_the_dense_loss(problem, head_loss):
    hidden, head, _targets = problem
    chunked = head_loss.training(*problem)[1:]
    dense = torch.autograd.grad(dense_losses(*problem).mean(1).sum(), (hidden, head))
    for ours, reference in zip(chunked, dense, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-6)


def test_held_out_losses_in_chunks_are_the_dense_losses(problem, head_loss):
    torch.testing.assert_close(head_loss.losses(*problem), dense_losses(*problem).detach())


def test_no_tokens_have_no_losses(problem):
    hidden, head, targets = problem
    assert HeadLoss(compiled=False).losses(hidden[:, :0], head, targets[:, :0]).shape == (2, 0)


def test_the_loss_in_chunks_matches_in_bfloat16(problem, head_loss):
    hidden, head, targets = problem
    found = head_loss.training(hidden.bfloat16(), head.bfloat16(), targets)
    dense = dense_losses(*problem).mean(1)
    # Logits here are up to 15, which bf16 rounds by up to 0.03 a token.
    torch.testing.assert_close(found.loss_K, dense.detach(), rtol=0, atol=0.02)
    for ours, reference in zip(
        found[1:], torch.autograd.grad(dense.sum(), (hidden, head)), strict=True
    ):
        assert (ours.float() - reference).norm() < 0.02 * reference.norm()


def test_logits_that_are_far_apart_overflow_nowhere(head_loss):
    hidden = torch.tensor([[[1.0], [1.0], [-1.0]]])
    head = torch.linspace(-300, 300, 600)[None, :, None]
    problem = hidden, head, torch.tensor([[599, 0, 0]])
    found = head_loss.training(*problem)
    torch.testing.assert_close(found.loss_K, dense_losses(*problem).mean(1))
    assert all(part.isfinite().all() for part in found)


def test_a_member_that_is_not_finite_spoils_no_other_members_loss(problem, head_loss):
    hidden, head, targets = (part.detach().clone() for part in problem)
    healthy = head_loss.training(hidden, head, targets)
    hidden[0, 4] = float("nan")
    spoiled = head_loss.training(hidden, head, targets)
    assert spoiled.loss_K[0].isnan()
    for before, after in zip(healthy, spoiled, strict=True):
        torch.testing.assert_close(after[1], before[1], rtol=0, atol=0)


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
        chunked.sequence_losses(weights.leaves, tokens),
        dense.sequence_losses(weights.leaves, tokens),
    )


@pytest.mark.parametrize("length", [5, 128, 200])
def test_explicit_attention_is_the_fused_attention(length):
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, length, 8, generator=generator)
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    torch.testing.assert_close(
        explicit_attention(query, key, value, future),
        torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True),
    )


def test_bfloat16_on_a_cpu_is_explicit_up_to_256_tokens_and_fused_beyond():
    def explicit(dtype, length):
        size = make_size("tiny", sequence_length=length)
        return Attention(size, device=CPU, dtype=dtype).explicit

    assert explicit(torch.bfloat16, 256)
    assert not explicit(torch.bfloat16, 257)
    assert not explicit(torch.float32, 128)


def test_no_token_sees_one_that_comes_after_it():
    size = make_size("tiny", width=16, heads=1, ff=32, sequence_length=12, batch=1)
    weights = StackedWeights(size, 50, [0], device=CPU, dtype=torch.float32)
    passes = Passes(size, 50, device=CPU, dtype=torch.float32, compiled=False)
    tokens = torch.randint(50, (1, 1, 13), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[..., 7] = (changed[..., 7] + 1) % 50
    first, second = (
        passes._decoder.hidden(weights.leaves, t)[0].detach()[0] for t in (tokens, changed)
    )
    torch.testing.assert_close(first[:7], second[:7], rtol=0, atol=0)
    assert not torch.allclose(first[7:], second[7:])


def test_each_member_reads_its_own_embedding():
    table = torch.arange(2 * 5 * 3.0).view(2, 5, 3)
    found = embed(table, torch.tensor([[0, 4], [4, 1]]))
    torch.testing.assert_close(found, torch.stack([table[0, [0, 4]], table[1, [4, 1]]]))
