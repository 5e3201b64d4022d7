"""RouterStats on Hugging Face's models: what it counts is what the experts were given."""

from collections import Counter
from itertools import pairwise

import numpy as np
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
DEEPSEEK = dict(
    moe_intermediate_size=16,
    n_routed_experts=8,
    num_local_experts=8,
    num_experts_per_tok=2,
    n_group=4,
    topk_group=2,
    first_k_dense_replace=1,
    n_shared_experts=1,
    q_lora_rank=8,
    kv_lora_rank=8,
    qk_rope_head_dim=8,
    qk_nope_head_dim=8,
    v_head_dim=16,
)
SIX = dict(num_experts=6, num_experts_per_tok=2)
LOCAL = dict(num_local_experts=6, num_experts_per_tok=2)
# Family, options, experts of a token and the layers that have routers.
FAMILIES = {
    "Mixtral": (LOCAL | dict(router_jitter_noise=0.1), 2, [0, 1, 2]),
    "Qwen2Moe": (
        SIX | dict(moe_intermediate_size=16, shared_expert_intermediate_size=16),
        2,
        [0, 1, 2],
    ),
    "Qwen3Moe": (SIX | dict(moe_intermediate_size=16, head_dim=16, mlp_only_layers=[0]), 2, [1, 2]),
    "Olmoe": (SIX | dict(num_experts_per_tok=3), 3, [0, 1, 2]),
    "DeepseekV3": (DEEPSEEK, 2, [1, 2]),
    "GptOss": (LOCAL | dict(head_dim=16), 2, [0, 1, 2]),
}


def build(family, options=None):
    given = FAMILIES[family][0] if options is None else options
    config = getattr(transformers, f"{family}Config")(**(SIZE | given))
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    model.set_experts_implementation("eager")
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name.endswith(("gate.weight", "router.weight")):
                weights.normal_(0, 0.5)
        for name, bias in model.named_buffers():
            if "e_score_correction_bias" in name:
                bias.uniform_(-0.3, 0.3)  # so that the largest logits are not what is chosen
    return model.train()


def batch(seed=1):
    drawn = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, 64, (4, 12), generator=drawn)
    mask = torch.ones_like(tokens)
    mask[1, 8:] = 0
    mask[3, 5:] = 0
    return tokens, torch.tensor([0, 2, 1, 2]), mask


def routers(model):
    ends = ("TopKRouter", "TopkRouter")
    return {n: m for n, m in model.named_modules() if type(m).__name__.endswith(ends)}


def chosen_by_hand(family, router, logits_E):
    """Choose the experts of one token from its logits, as the family's paper has it."""
    k = FAMILIES[family][1]
    if family != "DeepseekV3":
        return sorted(np.argsort(-logits_E)[:k].tolist())
    scores = 1 / (1 + np.exp(-logits_E)) + router.e_score_correction_bias.numpy()
    groups = np.split(np.arange(8), 4)
    best = sorted(groups, key=lambda group: -np.sort(scores[group])[-2:].sum())[:2]
    allowed = np.concatenate(best)
    return sorted(allowed[np.argsort(-scores[allowed])[:k]].tolist())


def by_hand(family, model, tokens, ids, mask):
    """Run the model and count from its routers' logits, token by token."""
    logits, handles = {}, []
    for name, router in routers(model).items():
        number = int(name.split("layers.")[1].split(".")[0])

        def keep(module, inputs, output, number=number):
            logits[number] = (module, output[0].detach().double().numpy())

        handles.append(router.register_forward_hook(keep))
    model(input_ids=tokens, attention_mask=mask)
    for handle in handles:
        handle.remove()
    counts = Counter()
    for number, (router, logits_TE) in logits.items():
        for t, (b, s) in enumerate(np.ndindex(*tokens.shape)):
            if mask[b, s]:
                for expert in chosen_by_hand(family, router, logits_TE[t]):
                    counts[DOMAINS[ids[b]], number, expert] += 1
    return counts


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_counts_equal_a_count_from_the_routers_logits(family):
    model, (tokens, ids, mask) = build(family), batch()
    torch.manual_seed(7)
    expected = by_hand(family, model, tokens, ids, mask)
    stats = RouterStats.attach(model, DOMAINS)
    torch.manual_seed(7)
    with stats.domains(ids, mask):
        loss = model(input_ids=tokens, attention_mask=mask, labels=tokens).loss
    loss.backward()
    table = stats.table()
    found = {
        tuple(key): n for *key, n in table.select("domain", "layer", "expert", "tokens").rows()
    }
    assert Counter({key: n for key, n in found.items() if n}) == expected
    layers = FAMILIES[family][2]
    assert sorted(set(table["layer"])) == layers
    assert table["tokens"].sum() == int(mask.sum()) * FAMILIES[family][1] * len(layers)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["Mixtral", "DeepseekV3"])
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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reentrant", [False, True])
def test_their_gradient_checkpointing_counts_a_token_once(reentrant):
    model, (tokens, ids, mask) = build("Olmoe"), batch()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    stats = RouterStats.attach(model, DOMAINS)
    with stats.domains(ids, mask):
        model(input_ids=tokens, attention_mask=mask, labels=tokens).loss.backward()
    assert stats.table()["tokens"].sum() == int(mask.sum()) * 3 * 3
