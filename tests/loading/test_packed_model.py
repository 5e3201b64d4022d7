"""A model keeps packed documents apart: the loss over rows is that of the documents alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler, PackedDocuments

LENGTH, VOCABULARY = 32, 64
CONFIG = LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    initializer_range=0.5,  # so that attention matters
)


def made_samples():
    rng = np.random.default_rng(0)
    for size in rng.integers(1, LENGTH, 24).tolist():
        tokens = rng.integers(0, VOCABULARY, size)
        yield {"input_ids": tokens, "labels": np.where(rng.random(size) < 0.7, tokens, -100)}


def test_the_loss_over_packed_rows_is_that_of_the_documents_one_by_one():
    torch.manual_seed(0)
    model, samples = LlamaForCausalLM(CONFIG).double().eval(), list(made_samples())
    dataset = MixtureDataset({"chat": PackedDocuments(samples, length=LENGTH)})
    sampler = MixtureSampler(dataset.sizes, [1.0], batch_size=1, batches=len(dataset))
    rows = list(MixtureLoader(dataset, sampler))

    def summed(batches, *names):
        """Return the sum of the losses of all tokens that carry one, and their number."""
        loss = tokens = 0
        for batch in batches:
            labels, fields = batch["labels"][:, 1:], {name: batch[name] for name in names}
            with torch.no_grad():  # with a cache, rows are not packed
                logits = model(**fields, use_cache=False).logits[:, :-1].transpose(1, 2)
            loss += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            tokens += int((labels != -100).sum())
        return loss, tokens

    alone = [{name: torch.as_tensor(v)[None] for name, v in one.items()} for one in samples]
    expected, tokens = summed(alone, "input_ids")
    found, packed_tokens = summed(rows, "input_ids", "position_ids")
    assert packed_tokens == tokens
    assert found / tokens == pytest.approx(expected / tokens, abs=1e-5)
    seeing_each_other, _ = summed(rows, "input_ids")
    assert abs(seeing_each_other - expected) / tokens > 1e-2
