"""Our decoder with experts is pretrained as the stack trains it, on any number of ranks."""

import pytest
import torch
from mixopt_proxies.decoder import CausalLM, Passes
from mixopt_proxies.decoder.experts import Routed, added_up, own_loss
from pretrain_runs import CONFIG as RUN, assert_same_weights, finished, weights_of, write_config

from mixopt import pretrain
from mixopt.errors import ConfigError
from mixopt.pretraining import added_loss, token_losses
from mixopt.routing import RouterStats
from mixopt.testing import tiny_corpus

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"size": "moe-tiny", "width": 32, "experts": 4, "expert_ff": 24}
VOCAB, LENGTH, SEQUENCES = 61, 16, 6
CONFIG = {
    "model": {"name": "decoder", "options": SMALL},
    "training": {**RUN["training"], "steps": 6, "sequence_length": LENGTH},
    "held_out": {"every": 6, "tokens": 256},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    corpus = tiny_corpus(folder / "corpus")
    return write_config(folder, corpus=str(corpus.path), **CONFIG)


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    pretrain(config, out)
    return weights_of(out)


def model_of(seed=0, **options):
    torch.manual_seed(seed)
    return CausalLM(VOCAB, LENGTH, **{**SMALL, **options}).train()


def tokens_of(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB, (SEQUENCES, LENGTH + 1), generator=generator)


def listened(model):
    """Return a list to which each layer's choice is added as it is made."""
    decoder, seen = model._decoder(torch.device("cpu")), []
    block = decoder.block

    def listening(*given):
        stream, choice = block(*given)
        seen.append(choice)
        return stream, choice

    decoder.block = listening
    return seen


def test_router_stats_count_what_a_loop_over_tokens_counts():
    model = model_of()
    seen, stats = listened(model), RouterStats.attach(model, ["web", "code", "wiki"])
    domain_B = torch.tensor([0, 1, 2, 0, 0, 1])
    expected = torch.zeros(2, 3, 4, dtype=torch.int64)
    for batch in range(3):
        seen.clear()
        with stats.domains(domain_B, torch.ones(SEQUENCES, LENGTH)):
            model(tokens_of(batch)[:, :-1])
        for layer, choice in enumerate(seen):
            for n, ids in enumerate(choice.ids_KNS[0]):
                expected[layer, domain_B[n // LENGTH], ids] += 1
    total = stats.total()
    assert [layer.layer for layer in total.layers] == [0, 1]
    for number, layer in enumerate(total.layers):
        assert layer.counts_DE.tolist() == expected[number].tolist()
        assert layer.tokens_D.tolist() == [48 * 3, 32 * 3, 16 * 3]


def test_the_model_is_one_member_of_the_stack():
    model, tokens = model_of(tied=False), tokens_of()
    leaves = {f"{n}.{k}": v for n, b in enumerate(model.layers) for k, v in b.state_dict().items()}
    leaves |= {name: getattr(model, name) for name in ("embedding", "head", "norm")}
    leaves = {name: leaf.detach()[None] for name, leaf in leaves.items()}
    passes = Passes(
        model.size, VOCAB, device=torch.device("cpu"), dtype=torch.float32, compiled=False
    )
    found = token_losses(model(tokens[:, :-1]), tokens[:, 1:]).mean(1)
    losses_KB, routed = passes.evaluated(leaves, tokens[None])
    torch.testing.assert_close(found, losses_KB[0])
    expected = own_loss(routed, SEQUENCES * LENGTH, model.size)[0]
    torch.testing.assert_close(model.own_loss, expected)


def test_what_experts_add_is_beside_the_losses_of_tokens_and_has_a_gradient():
    model = model_of(balance_weight=0.5)
    seen, tokens = listened(model), tokens_of()
    output = model(tokens[:, :-1])
    routed = Routed(*map(torch.stack, zip(*(added_up(choice, 1) for choice in seen), strict=True)))
    expected = own_loss(routed, SEQUENCES * LENGTH, model.size)[0]
    found = added_loss(model, output, 0.0)
    torch.testing.assert_close(found, expected)
    assert found > 0.5
    found.backward()
    assert model.layers[0].router.grad.abs().max() > 0


@pytest.mark.nightly
def test_two_ranks_move_weights_as_one(context, config, alone, tmp_path):
    finished(context, config, tmp_path / "run", ranks=2)
    assert_same_weights(weights_of(tmp_path / "run"), alone)


def test_an_option_that_cannot_be_right_is_named(config, tmp_path):
    with pytest.raises(ConfigError, match=r"^model.options.top_k: 5 must be from 2 to 4"):
        pretrain(config, tmp_path / "run", ["model.options.top_k=5"])
