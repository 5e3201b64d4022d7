"""Experts of a stack are those of each member alone, token by token."""

import pytest
import torch
from mixopt_proxies.decoder import DecoderProxy, StackedWeights, experts as experts_module
from mixopt_proxies.decoder.decoder_stack import layout
from mixopt_proxies.decoder.experts import Routed, added_up, balance_loss, choose, route
from mixopt_proxies.decoder.sizes import SIZES
from torch.nn.functional import silu

from mixopt.errors import ConfigError
from mixopt.testing import check_proxy
from mixopt.trials import make_proxy

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
    both = torch.cat([even, collapsed])
    assert balance_loss(routed_of(both, 1), 20, 1).tolist() == pytest.approx([1.0, 4.0])


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
    stacked = StackedWeights(SIZES["moe-tiny"], 256, [0], device=CPU, dtype=torch.bfloat16)
    assert stacked.leaves["0.router"].dtype == torch.float32
    assert stacked.leaves["0.experts_down"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "moe-tiny", "top_k": 9}, "top_k: 9 must be from 2 to 8, the number of experts"),
        ({"size": "moe-tiny", "expert_ff": 12}, "expert_ff: 12 must be a multiple of 8"),
        ({"top_k": 2}, "top_k: 2 has no effect without experts: give experts, or size: moe-tiny"),
        ({"size": "moe-tiny", "ff": 64}, "ff: 64 has no effect with experts: give expert_ff"),
    ],
)
def test_an_option_that_cannot_be_right_is_named(options, message):
    with pytest.raises(ConfigError) as error:
        make_proxy("decoder", options)
    assert f"proxy.options.{message}" in str(error.value)
