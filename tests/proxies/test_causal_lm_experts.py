"""Our decoder with experts is pretrained as the stack trains it, on any number of ranks."""

import pytest
import torch
from mixopt_proxies.decoder import CausalLM, Passes
from mixopt_proxies.decoder.experts import own_loss

from mixopt.pretraining import document_positions, token_losses
from mixopt.routing import RouterStats

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"size": "moe-tiny", "width": 32, "experts": 4, "expert_ff": 24}
VOCAB, LENGTH, SEQUENCES = 61, 16, 6


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


@pytest.mark.parametrize("ends", [(), (0, 3)])
def test_the_model_is_one_member_of_the_stack_also_where_documents_are_masked(ends):
    model, tokens = model_of(tied=False), tokens_of()
    leaves = {f"{n}.{k}": v for n, b in enumerate(model.layers) for k, v in b.state_dict().items()}
    leaves |= {name: getattr(model, name) for name in ("embedding", "head", "norm")}
    leaves = {name: leaf.detach()[None] for name, leaf in leaves.items()}
    passes = Passes(
        model.size, VOCAB, device=torch.device("cpu"), dtype=torch.float32, compiled=False,
        document_ends=ends,
    )  # fmt: skip
    places = document_positions(tokens[:, :-1], ends) if ends else None
    found = token_losses(model(tokens[:, :-1], position_ids=places), tokens[:, 1:]).mean(1)
    losses_KB, routed = passes.evaluated(leaves, tokens[None])
    torch.testing.assert_close(found, losses_KB[0])
    expected = own_loss(routed, SEQUENCES * LENGTH, model.size)[0]
    torch.testing.assert_close(model.own_loss, expected)
