"""Experts in a stack equal those of each member alone; their assignments are counted exactly."""

import math
from types import SimpleNamespace

import pytest
import torch
from mixopt_proxies.decoder import (
    CausalLM,
    DecoderProxy,
    Passes,
    StackedWeights,
    StackTrainer,
    TrialBatches,
    experts as experts_module,
)
from mixopt_proxies.decoder.decoder_stack import layout
from mixopt_proxies.decoder.experts import (
    Routed,
    auxiliary_loss,
    balance_loss,
    choose,
    route,
    summed_by_sequence,
)
from mixopt_proxies.decoder.sizes import SIZES
from torch.nn.functional import silu

from mixopt.errors import ConfigError
from mixopt.mixture import Mixture
from mixopt.pretraining import document_positions, token_losses
from mixopt.routing import RouterStats
from mixopt.sweeps import Training
from mixopt.testing import check_proxy
from mixopt.trials import Trial

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


def loop(leaves, rows_KNC, top_k):
    """Compute each expert for each token, one after another."""
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
    generator = torch.Generator().manual_seed(0)
    shapes = {"router": (16, 4), "experts_gate_up": (4, 16, 16), "experts_down": (4, 8, 16)}
    leaves = {
        name: torch.randn(3, *shape, generator=generator).requires_grad_()
        for name, shape in shapes.items()
    }
    rows = torch.randn(3, 20, 16, generator=generator).requires_grad_()
    found, expected = route(leaves, "", rows, top_k)[0], loop(leaves, rows, top_k)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    inputs = [rows, *leaves.values()]
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(found, inputs, upstream)
    for ours, other in zip(gradients, torch.autograd.grad(expected, inputs, upstream), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-3, atol=1e-3)


def test_the_balance_loss_is_one_at_even_load_and_the_number_of_experts_at_collapse():
    even = torch.eye(4).repeat(5, 1)[None]  # each expert is the first of as many tokens
    collapsed = torch.tensor([50.0, 0, 0, 0]).expand(1, 20, 4)
    choice = choose(torch.cat([even, collapsed]), torch.eye(4).expand(2, -1, -1), 1)
    both = Routed(*(part[None] for part in summed_by_sequence(choice, 1)))
    assert balance_loss(both, 20, 1).tolist() == pytest.approx([1.0, 4.0])
    squares = [math.log(math.e + 3) ** 2, 50.0**2]  # of the log-sum-exp of a token's logits
    added = [0.25 * load + 0.001 * square for load, square in zip([1, 4], squares, strict=True)]
    size = SimpleNamespace(top_k=1, balance_weight=0.25)
    assert auxiliary_loss(both, 20, size).tolist() == pytest.approx(added)


def test_a_torch_without_grouped_products_is_told_what_to_do(monkeypatch):
    monkeypatch.delattr(torch.nn.functional, "grouped_mm")
    with pytest.raises(ConfigError, match=r"experts: need torch.nn.functional.grouped_mm, which"):
        experts_module.check_grouped_products()


@pytest.mark.nightly
def test_moe_tiny_keeps_the_promises_of_a_proxy():
    check_proxy(lambda: DecoderProxy(size="moe-tiny", compile=False), tokens=2_048)


def test_weights_are_counted_and_a_token_meets_as_many_as_in_the_dense_size():
    for name, vocab in (("moe-tiny", 256), ("moe-1m", 4096)):
        size = SIZES[name]
        weights = layout(size, vocab)
        assert size.parameters(vocab) == sum(weight.count for weight in weights)
        routers = size.layers * size.width * size.experts
        dense = SIZES[name.removeprefix("moe-")]
        assert size.trunk(size.top_k) - routers == dense.trunk(0)
    wide = [w.std for w in layout(SIZES["tiny"], 256)]
    layer = [1 / 8, 1 / 16, 1 / 8, 0.5 / 192**0.5]
    assert wide == pytest.approx([*layer, *layer, 1 / 8, 0, 0, 0, 0, 0])
    stacked = StackedWeights(SIZES["moe-tiny"], 256, [0], device=CPU, dtype=torch.bfloat16)
    assert stacked.leaves["0.router"].dtype == torch.float32
    assert stacked.leaves["0.experts_down"].dtype == torch.bfloat16


# What experts are given, in training and on held-out text ---------------------------------------

SMALL = {"width": 32, "sequence_length": 16, "batch": 4, "experts": 4, "expert_ff": 24}
OPTIONS = {**SMALL, "size": "moe-tiny", "precision": "float32", "compile": False}
STEPS = 41
TRAINING = Training(tokens=64 * STEPS, eval_tokens=16 * 20, device="cpu")


@pytest.fixture(scope="module")
def trained(corpus):
    mixtures = [Mixture({"code": share, "manual": 1 - share}) for share in (0.5, 0.9)]
    trials = [Trial(f"t{k}", mixture, k) for k, mixture in enumerate(mixtures)]
    return trials, DecoderProxy(**OPTIONS).train(trials, corpus, TRAINING, lambda _: None)


def listened(decoder):
    seen, block = [], decoder.block

    def listening(*given):
        stream, choice = block(*given)
        seen.append(choice.ids_KNS)
        return stream, choice

    decoder.block = listening
    return seen


@pytest.fixture(scope="module")
def by_hand(trained, corpus):
    """Train again by hand, and count the second half of the steps token by token."""
    size = DecoderProxy(**OPTIONS).size
    passes = Passes(size, corpus.vocab_size, device=CPU, dtype=torch.float32, compiled=False)
    trainer = StackTrainer(trained[0], passes, steps=STEPS)
    batches = TrialBatches(trained[0], corpus, TRAINING, batch=4, length=16)
    seen = listened(passes._decoder)
    counts = torch.zeros(2, 2, 2, 2, 4, dtype=torch.int64)  # member, layer, half, domain, expert
    for taken, tokens in trainer.stream(batches):
        seen.clear()
        trainer.step(tokens)
        for layer, ids_KNS in enumerate(seen):
            for k in range(2):
                for n, ids in enumerate(ids_KNS[k]):
                    domain = batches.domain_KS[k, 4 * taken + n // 16]
                    counts[k, layer, (n // 16 + taken) % 2, domain, ids] += taken >= 20
    return counts, passes, trainer.weights.leaves


def test_counts_are_those_of_a_loop_over_tokens_and_on_held_out_text_of_the_models_at_the_end(
    trained, by_hand, corpus
):
    counts, passes, leaves = by_hand
    rows = corpus.domains[1].validation.rows([16 * i for i in range(20)], 17).astype("int64")
    counts_LKHE = torch.zeros(2, 2, 2, 4, dtype=torch.int64)
    for part in torch.from_numpy(rows).split(4):
        _, routed = passes.evaluated(leaves, part.expand(2, -1, -1).contiguous())
        counts_LKHE += routed.counts_LKBE.unflatten(2, (2, 2)).sum(2)
    for k, result in enumerate(trained[1]):
        assert result.experts.train.domains == ("code", "manual")
        for number, layer in enumerate(result.experts.train.layers):
            assert (layer.layer, layer.top_k) == (number, 2)
            assert layer.counts_HDE.tolist() == counts[k, number].tolist()
            assert layer.dropped_HD.tolist() == [[0, 0], [0, 0]]
        for number, layer in enumerate(result.experts.held_out.layers):
            assert layer.counts_HDE[:, 1].tolist() == counts_LKHE[number, k].tolist()


# Our decoder with experts, pretrained as the stack trains it ------------------------------------

VOCAB, LENGTH, SEQUENCES = 61, 16, 6


def model_of(**options):
    torch.manual_seed(0)
    shape = {"size": "moe-tiny", "width": 32, "experts": 4, "expert_ff": 24}
    return CausalLM(VOCAB, LENGTH, **shape | options).train()


def tokens_of(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB, (SEQUENCES, LENGTH + 1), generator=generator)


def test_router_stats_count_what_a_loop_over_tokens_counts():
    model = model_of()
    seen = listened(model._decoder(CPU))
    stats = RouterStats.attach(model, ["web", "code", "wiki"])
    domain_B = torch.tensor([0, 1, 2, 0, 0, 1])
    expected = torch.zeros(2, 3, 4, dtype=torch.int64)
    for batch in range(3):
        seen.clear()
        with stats.domains(domain_B, torch.ones(SEQUENCES, LENGTH)):
            model(tokens_of(batch)[:, :-1])
        for layer, ids_KNS in enumerate(seen):
            for n, ids in enumerate(ids_KNS[0]):
                expected[layer, domain_B[n // LENGTH], ids] += 1
    total = stats.total()
    assert [layer.layer for layer in total.layers] == [0, 1]
    for number, layer in enumerate(total.layers):
        assert layer.counts_DE.tolist() == expected[number].tolist()
        assert layer.tokens_D.tolist() == [48 * 3, 32 * 3, 16 * 3]


@pytest.mark.parametrize("ends", [(), (0, 3)])
def test_the_model_is_one_member_of_the_stack_also_where_documents_are_masked(ends):
    model, tokens = model_of(tied=False), tokens_of()
    leaves = {f"{n}.{k}": v for n, b in enumerate(model.layers) for k, v in b.state_dict().items()}
    leaves |= {name: getattr(model, name) for name in ("embedding", "head", "norm")}
    leaves = {name: leaf.detach()[None] for name, leaf in leaves.items()}
    given = {"device": CPU, "dtype": torch.float32, "compiled": False}
    passes = Passes(model.size, VOCAB, document_ends=ends, **given)
    places = document_positions(tokens[:, :-1], ends) if ends else None
    found = token_losses(model(tokens[:, :-1], position_ids=places), tokens[:, 1:]).mean(1)
    losses_KB, routed = passes.evaluated(leaves, tokens[None])
    torch.testing.assert_close(found, losses_KB[0])
    expected = auxiliary_loss(routed, SEQUENCES * LENGTH, model.size)[0]
    torch.testing.assert_close(model.own_loss, expected)
