"""Counting changes nothing in the training of Hugging Face's models."""

from itertools import pairwise

import pytest
import torch

from mixopt.routing import RouterStats

transformers = pytest.importorskip("transformers")

DOMAINS = ["web", "code", "books"]
SIZE = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=4096,
    use_cache=False,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
FAMILIES = {
    "Mixtral": dict(num_local_experts=6, num_experts_per_tok=2, router_jitter_noise=0.1),
    "Qwen3Moe": dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=16, head_dim=16),
}


def build(family):
    config = getattr(transformers, f"{family}Config")(**(SIZE | FAMILIES[family]))
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    model.set_experts_implementation("eager")
    return model.train()


def batch(seed=1):
    drawn = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, 64, (4, 12), generator=drawn)
    mask = torch.ones_like(tokens)
    mask[1, 8:] = 0
    mask[3, 5:] = 0
    return tokens, torch.tensor([0, 2, 1, 2]), mask


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_gradients_and_random_numbers_are_those_of_a_run_that_is_not_counted(family):
    outcomes = []
    for counted in (False, True):
        model, (tokens, ids, mask) = build(family), batch()
        stats = RouterStats.attach(model, DOMAINS) if counted else None
        torch.manual_seed(3)
        inputs = dict(input_ids=tokens, attention_mask=mask, labels=tokens)
        if stats is None:
            loss = model(**inputs).loss
        else:
            with stats.domains(ids, mask):
                loss = model(**inputs).loss
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        outcomes.append([loss.detach(), *gradients, torch.get_rng_state()])
    for off, on in pairwise(outcomes):
        assert all(torch.equal(a, b) for a, b in zip(off, on, strict=True))
