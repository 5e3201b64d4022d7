"""Proxies whose documents do not see each other."""

from __future__ import annotations

import torch
from mixopt_proxies.decoder import CausalLM
from mixopt_proxies.decoder.decoder_stack import RowDocuments, StackedWeights, explicit_attention
from mixopt_proxies.decoder.sizes import make_size
from mixopt_proxies.decoder.training_passes import Passes
from torch.nn import functional

END, VOCAB = 0, 50
SIZE = make_size("tiny", sequence_length=12, batch=2, layers=2, width=32, heads=2, ff=48)
# Members see rows of their own; no id but END is in two documents of a row.
ROWS_KBW = torch.tensor(
    [
        [[11, 12, 13, END, 21, 22, 23, 24, END, 31, 32, 33, 34], [7, END, 8, END, *range(20, 29)]],
        [[END, END, *range(1, 12)], [*range(30, 43)]],
    ]
)


def passes(ends=(END,), dtype=torch.float32, compiled=False) -> Passes:
    device = torch.device("cpu")
    return Passes(SIZE, VOCAB, device=device, dtype=dtype, compiled=compiled, document_ends=ends)


def leaves():
    weights = StackedWeights(SIZE, VOCAB, [1, 2], device=torch.device("cpu"), dtype=torch.float32)
    return weights.leaves


def test_a_stack_gives_what_the_model_of_a_pretraining_gives_by_positions():
    named = leaves()
    losses_KB = passes().evaluated(named, ROWS_KBW)[0]
    for k in range(2):
        model = CausalLM(VOCAB, 12, layers=2, width=32, heads=2, ff=48).eval()
        state = {name: value[k] for name, value in named.items() if name != "head"}
        for name, weight in model.named_parameters():
            weight.data = state[name.removeprefix("layers.")].detach()
        places = RowDocuments.ended(ROWS_KBW[k, :, :-1], [END]).place_NT
        with torch.no_grad():
            logits = model(ROWS_KBW[k, :, :-1], position_ids=places)
        expected = functional.cross_entropy(logits.mT, ROWS_KBW[k, :, 1:], reduction="none")
        torch.testing.assert_close(losses_KB[k], expected.mean(1), rtol=1e-5, atol=1e-6)


def test_batched_products_give_what_the_fused_attention_gives():
    query, key, value = torch.randn(3, 4, 2, 12, 16, generator=torch.Generator().manual_seed(0))
    hidden = RowDocuments.ended(ROWS_KBW[..., :-1].flatten(0, 1), [END]).hidden_NTT
    fused = functional.scaled_dot_product_attention(query, key, value, attn_mask=~hidden[:, None])
    torch.testing.assert_close(explicit_attention(query, key, value, hidden), fused)
