"""Proxies whose documents do not see each other."""

from __future__ import annotations

import pytest
import torch
from mixopt_proxies.decoder import CausalLM, DecoderProxy
from mixopt_proxies.decoder.decoder_stack import RowDocuments, StackedWeights, explicit_attention
from mixopt_proxies.decoder.sizes import make_size
from mixopt_proxies.decoder.training_passes import Passes
from torch.nn import functional

from mixopt import Mixture
from mixopt.errors import ConfigError
from mixopt.testing import tiny_corpus
from mixopt.trials import Training, Trial

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
    losses_KB = passes().sequence_losses(named, ROWS_KBW)
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


def test_what_is_before_a_document_does_not_matter():
    changed = ROWS_KBW.clone()
    changed[0, 0, :3] = torch.tensor([41, 42, 43])
    named, place_P = leaves(), torch.arange(3, 12)
    before, after = (passes().token_losses(named, rows, place_P) for rows in (ROWS_KBW, changed))
    assert torch.equal(before[0], after[0])
    seen = [passes(()).token_losses(named, rows, place_P) for rows in (ROWS_KBW, changed)]
    assert not torch.equal(seen[0][0], seen[1][0])


def test_batched_products_give_what_the_fused_attention_gives():
    query, key, value = torch.randn(3, 4, 2, 12, 16, generator=torch.Generator().manual_seed(0))
    hidden = RowDocuments.ended(ROWS_KBW[..., :-1].flatten(0, 1), [END]).hidden_NTT
    fused = functional.scaled_dot_product_attention(query, key, value, attn_mask=~hidden[:, None])
    torch.testing.assert_close(explicit_attention(query, key, value, hidden), fused)


@pytest.mark.nightly
def test_compiled_passes_give_the_same():
    named = leaves()
    eager = passes().gradients(named, ROWS_KBW)
    compiled = passes(compiled=True).gradients(named, ROWS_KBW)
    torch.testing.assert_close(compiled.loss_K, eager.loss_K)
    for name, gradient in eager.gradients.items():
        torch.testing.assert_close(compiled.gradients[name], gradient, rtol=1e-3, atol=1e-5)


def test_trials_are_trained_and_evaluated_with_masks(tmp_path):
    corpus = tiny_corpus(tmp_path)
    trial = Trial("a", Mixture.uniform(corpus.domain_names), seed=0)
    training = Training(4096, device="cpu", eval_tokens=1024)
    results = [
        DecoderProxy(layers=1, width=32, heads=2, ff=48, mask_documents=masks).train(
            [trial], corpus, training, lambda progress: None
        )[0]
        for masks in (True, False)
    ]
    assert results[0].losses != results[1].losses


def test_an_odd_value_is_one_line():
    with pytest.raises(ConfigError, match=r"proxy\.options\.mask_documents: 'some' must be one of"):
        DecoderProxy(mask_documents="some")
