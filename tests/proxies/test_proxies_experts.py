"""Experts of a stack are those of each member alone, token by token."""

import math
from types import SimpleNamespace

import pytest
import torch
from mixopt_proxies.decoder import DecoderProxy, StackedWeights, experts as experts_module
from mixopt_proxies.decoder.decoder_stack import layout
from mixopt_proxies.decoder.experts import Routed, added_up, balance_loss, choose, own_loss, route
from mixopt_proxies.decoder.sizes import SIZES
from torch.nn.functional import silu

from mixopt.errors import ConfigError
from mixopt.testing import check_proxy

CPU = torch.device("cpu")


def leaves_of(members=3, *, width=16, experts=4, ff=8):
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(members, *shape, generator=generator, dtype=torch.float64)

    leaves = {
        "router": drawn(width, experts),
        "experts_gate_up": drawn(experts, width, 2 * ff),
        "experts_down": drawn(experts, ff, width),
    }
    leaves = {name: leaf.float().requires_grad_() for name, leaf in leaves.items()}
    return leaves, drawn(20, width).float().requires_grad_()


def loop(leaves, rows_KNC, top_k):
    """Ask each expert of each token, one after another."""
    out = torch.zeros_like(rows_KNC)
    for k, rows in enumerate(rows_KNC):
        for n, row in enumerate(rows):
            probability = (row @ leaves["router"][k]).softmax(0)
            ids = probability.argsort(descending=True)[:top_k]
            total = probability[ids].sum()
            for expert in ids:
                gate, up = (row @ leaves["experts_gate_up"][k, expert]).chunk(2)
                said = (silu(gate) * up) @ leaves["experts_down"][k, expert]
                out[k, n] = out[k, n] + said * probability[expert] / total
    return out


@pytest.mark.parametrize(("multiple", "top_k"), [(1, 4), (32, 2)])
def test_the_grouped_product_is_a_loop_over_tokens_and_experts(monkeypatch, multiple, top_k):
    monkeypatch.setattr(experts_module, "rounding", lambda device, dtype: multiple)
    leaves, rows = leaves_of()
    found, expected = route(leaves, "", rows, top_k)[0], loop(leaves, rows, top_k)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    inputs = [rows, *(leaf for leaf in leaves.values() if leaf.requires_grad)]
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(found, inputs, upstream)
    for one, other in zip(gradients, torch.autograd.grad(expected, inputs, upstream), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def choice_of(logits_KNE, top_k):
    router = torch.eye(logits_KNE.shape[-1]).expand(len(logits_KNE), -1, -1)
    return choose(logits_KNE, router, top_k)


def routed_of(logits_KNE, top_k, sequences=1):
    return Routed(*(part[None] for part in added_up(choice_of(logits_KNE, top_k), sequences)))


def test_the_balance_loss_is_one_at_even_load_and_the_number_of_experts_at_collapse():
    even = torch.eye(4).repeat(5, 1)[None]  # each expert is the first of as many tokens
    assert balance_loss(routed_of(even, 1), 20, 1).item() == pytest.approx(1.0)
    collapsed = torch.tensor([50.0, 0, 0, 0]).expand(1, 20, 4)
    assert balance_loss(routed_of(collapsed, 1), 20, 1).item() == pytest.approx(4.0)
    both = routed_of(torch.cat([even, collapsed]), 1)
    assert balance_loss(both, 20, 1).tolist() == pytest.approx([1.0, 4.0])
    squares = [math.log(math.e + 3) ** 2, 50.0**2]  # of the log-sum-exp of a token's logits
    added = [0.25 * load + 0.001 * one for load, one in zip([1, 4], squares, strict=True)]
    size = SimpleNamespace(top_k=1, balance_weight=0.25)
    assert own_loss(both, 20, size).tolist() == pytest.approx(added)


def test_a_torch_without_grouped_products_is_told_what_to_do(monkeypatch):
    monkeypatch.delattr(torch.nn.functional, "grouped_mm")
    with pytest.raises(ConfigError, match=r"experts: need torch.nn.functional.grouped_mm, which"):
        experts_module.check_grouped_products()


def test_moe_tiny_keeps_the_promises_of_a_proxy():
    check_proxy(lambda: DecoderProxy(size="moe-tiny", compile=False), tokens=2_048)


def test_weights_are_counted_and_a_token_meets_as_many_as_in_the_dense_size():
    for name, vocab in (("moe-tiny", 256), ("moe-1m", 4096)):
        size = SIZES[name]
        weights = layout(size, vocab)
        assert size.parameters(vocab) == sum(weight.count for weight in weights)
        routers = size.layers * size.width * size.experts
        dense = SIZES[name.removeprefix("moe-")]
        assert size.active_parameters() - routers == dense.active_parameters()
    wide = [w.std for w in layout(SIZES["tiny"], 256)]
    layer = [1 / 8, 1 / 16, 1 / 8, 0.5 / 192**0.5]
    assert wide == pytest.approx([*layer, *layer, 1 / 8, 0, 0, 0, 0, 0])
    stacked = StackedWeights(SIZES["moe-tiny"], 256, [0], device=CPU, dtype=torch.bfloat16)
    assert stacked.leaves["0.router"].dtype == torch.float32
    assert stacked.leaves["0.experts_down"].dtype == torch.bfloat16
