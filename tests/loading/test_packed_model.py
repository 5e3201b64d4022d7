"""A model keeps packed documents apart: the loss over rows is that of the documents alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler, PackedDocuments

LENGTH, VOCABULARY = 32, 64


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,  # so that attention matters
    )
    return LlamaForCausalLM(config).double().eval()


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    found = []
    for size in rng.integers(1, LENGTH, 24).tolist():
        tokens = rng.integers(0, VOCABULARY, size)
        found.append(
            {"input_ids": tokens, "labels": np.where(rng.random(size) < 0.7, tokens, -100)}
        )
    return found


def summed_loss(model, fields):
    """Return the sum of the losses of all tokens that carry one, and their number."""
    labels = fields.pop("labels")
    with torch.no_grad():
        logits = model(**fields, use_cache=False).logits[
            :, :-1
        ]  # with a cache, rows are not packed
    losses = torch.nn.functional.cross_entropy(
        logits.reshape(-1, VOCABULARY), labels[:, 1:].reshape(-1), reduction="sum"
    )
    return losses.item(), int((labels[:, 1:] != -100).sum())


def one_by_one(model, samples):
    sums = [
        summed_loss(model, {k: torch.as_tensor(v)[None] for k, v in sample.items()})
        for sample in samples
    ]
    return tuple(map(sum, zip(*sums, strict=True)))


def over_rows(model, samples, *left_out):
    dataset = MixtureDataset({"chat": PackedDocuments(samples, length=LENGTH)})
    sampler = MixtureSampler(dataset.sizes, [1.0], batch_size=1, batches=len(dataset))
    sums = []
    for batch in MixtureLoader(dataset, sampler):
        names = {"input_ids", "labels", "position_ids"} - set(left_out)
        sums.append(summed_loss(model, {name: batch[name] for name in names}))
    return tuple(map(sum, zip(*sums, strict=True)))


def test_the_loss_over_packed_rows_is_that_of_the_documents_one_by_one(model, samples):
    expected, tokens = one_by_one(model, samples)
    found, packed_tokens = over_rows(model, samples)
    assert packed_tokens == tokens
    assert found / tokens == pytest.approx(expected / tokens, abs=1e-5)
    seeing_each_other, _ = over_rows(model, samples, "position_ids")
    assert abs(seeing_each_other - expected) / tokens > 1e-2
