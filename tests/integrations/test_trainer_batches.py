"""What of a batch reaches the Trainer's model: packed documents apart, and no more than it takes.

Fields of packed rows: `position_ids` begin at 0 with each document, `document` is its number in the
row (-1 is padding), `cu_seqlens` say where documents begin in the concatenated rows.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from chat_parts import llama
from datasets import Dataset
from sampler_rows import located, pairs_in_order, pairs_of
from torch import nn
from trainer_parts import QUIET, Tiny, random_rows, trainer_arguments
from transformers import DataCollatorWithFlattening

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler, SamplerError
from mixopt.integrations.hf_trainer import MixtureTrainer, model_inputs

pytestmark = QUIET

IGNORED = -100
PARTS = [(5, 7, 4), (16,), (3, 10), (2, 2, 2, 9)]  # documents of each row of 16 tokens


def packed_rows():
    """Rows of whole documents, padded."""
    random = np.random.default_rng(0)
    for parts in PARTS:
        document = np.repeat(range(len(parts)), parts)
        padding = 16 - len(document)
        yield {
            "input_ids": np.append(random.integers(6, 80, len(document)), np.zeros(padding, int)),
            "document": np.append(document, np.full(padding, -1)),
            "position_ids": np.concatenate([np.arange(n) for n in (*parts, padding)]),
        }


def with_bounds(samples):
    batch = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    begins = np.flatnonzero(batch["position_ids"].ravel() == 0)
    bounds = np.append(begins, batch["input_ids"].size).astype(np.int32)
    return batch | {"cu_seqlens": bounds, "max_seqlen": int(np.diff(bounds).max())}


def trainer_over(rows, folder, model, *, collate=None, loader_collate=None, steps=1, **options):
    dataset = MixtureDataset({"web": rows, "code": rows})
    sampler = MixtureSampler(dataset.sizes, [0.5, 0.5], batch_size=4)
    seen = []

    class Recording(MixtureTrainer):
        def compute_loss(self, model, inputs, *rest, **named):
            loss = super().compute_loss(model, inputs, *rest, **named)
            seen.append((inputs, float(loss)))
            return loss

    args = trainer_arguments(folder, max_steps=steps, **options)
    loader = MixtureLoader(dataset, sampler, collate=loader_collate)
    return Recording(model=model, args=args, mixture=loader, data_collator=collate), seen


def test_the_loss_of_packed_rows_is_that_of_their_documents_alone(tmp_path):
    rows = list(packed_rows())
    trainer, seen = trainer_over(rows, tmp_path, llama(), loader_collate=with_bounds)
    trainer.train()
    inputs, loss = seen[0]
    model, total, count = llama(), 0.0, 0
    with torch.no_grad():
        for row in inputs["row"].tolist():
            tokens, document = torch.tensor(rows[row]["input_ids"]), rows[row]["document"]
            for number in range(document.max() + 1):
                part = tokens[document == number][None]
                logits = model(part).logits[0, :-1]
                total += nn.functional.cross_entropy(logits, part[0, 1:], reduction="sum").item()
                count += part.shape[1] - 1
    assert count == int((inputs["labels"] != IGNORED).sum())
    assert loss == pytest.approx(total / count, abs=1e-5)
    whole = llama()(inputs["input_ids"], labels=inputs["labels"]).loss  # documents see each other
    assert abs(float(whole) - loss) > 1e-4


def test_flash_attention_is_told_where_documents_begin():
    batch = {k: torch.as_tensor(v) for k, v in with_bounds(list(packed_rows())).items()}
    given = model_inputs(llama(), batch | {"domain": 1}, {"domain"}, set())
    assert given["cu_seq_lens_q"] is given["cu_seq_lens_k"] is batch["cu_seqlens"]
    assert given["max_length_q"] == given["max_length_k"] == 16
    assert given["position_ids"] is batch["position_ids"]
    assert not {"cu_seqlens", "max_seqlen", "document", "domain"} & given.keys()


def test_a_model_of_another_kind_is_given_what_it_names():
    class Own(nn.Module):
        def forward(self, input_ids, labels, document, cu_seqlens):
            return input_ids

    batch = with_bounds(list(packed_rows())) | {"labels": 1, "text": ["a"]}
    assert model_inputs(Own(), batch, set(), {"text"}).keys() == {
        "input_ids",
        "labels",
        "document",
        "cu_seqlens",
    }
    assert model_inputs(Tiny(), batch, set(), {"text"}).keys() == {"input_ids", "labels"}


def test_the_trainers_collator_puts_rows_together_and_keeps_their_domains(tmp_path):
    rows = [{"input_ids": [k + 6] * (3 + k % 4)} for k in range(20)]
    flat = DataCollatorWithFlattening(return_flash_attn_kwargs=True)
    trainer, seen = trainer_over(rows, tmp_path, llama(), collate=flat, steps=3)
    trainer.train()
    batches = [batch for batch, _ in seen]
    assert pairs_of(batches) == pairs_in_order(trainer.mixture.sampler, 3)
    for batch in batches:
        lengths = [3 + row % 4 for row in batch["row"].tolist()]
        assert batch["lengths"].tolist() == lengths
        assert batch["input_ids"].shape == (1, sum(lengths))
    with pytest.raises(SamplerError, match=r"data_collator= is not used, .* leave it out"):
        trainer_over(rows, tmp_path, llama(), collate=flat, loader_collate=flat)


@pytest.mark.parametrize(
    ("batches", "arguments", "options", "message"),
    [
        (41, {"gradient_accumulation_steps": 4}, {}, r"batches=41\).*; give batches=44"),
        (
            40,
            {"train_sampling_strategy": "group_by_length"},
            {},
            r"train_sampling_strategy='group_by_length' would reorder rows, .*leave .* out",
        ),
        (
            40,
            {"per_device_train_batch_size": 4},
            {},
            r"per_device_train_batch_size=4, but a rank gets 8",
        ),
        (40, {}, {"train_dataset": [1]}, r"train_dataset= is not used, .*; leave it out"),
    ],
)
def test_what_does_not_go_with_the_batches_is_refused(
    tmp_path, batches, arguments, options, message
):
    dataset = random_rows()
    order = MixtureSampler(dataset.sizes, [1, 0, 0], batch_size=8, batches=batches)
    args = trainer_arguments(tmp_path, max_steps=1, **arguments)
    with pytest.raises(SamplerError, match=message):
        MixtureTrainer(model=Tiny(), args=args, mixture=MixtureLoader(dataset, order), **options)


def test_the_batch_size_that_the_trainer_counts_is_the_samplers(tmp_path):
    dataset = random_rows()
    loader = MixtureLoader(dataset, MixtureSampler(dataset.sizes, [1, 0, 0], batch_size=16))
    args = trainer_arguments(tmp_path, max_steps=2)
    ended = MixtureTrainer(model=Tiny(), args=args, mixture=loader).train()
    seconds = ended.metrics["train_runtime"]
    assert ended.metrics["train_samples_per_second"] == pytest.approx(2 * 16 / seconds, rel=0.02)


def test_a_users_columns_named_like_ours_are_kept_and_ours_do_not_reach_the_model(tmp_path):
    rows = [
        {"input_ids": [k + 6] * 5, "domain": f"site{k}", "row": k, "text": "x"} for k in range(9)
    ]
    trainer, seen = trainer_over(
        Dataset.from_list(rows), tmp_path, llama(), remove_unused_columns=True
    )
    trainer.train()
    batch = seen[0][0]
    assert batch["domain"] == [f"site{k}" for k in batch["mixopt_row"].tolist()]
    assert batch["row"].tolist() == batch["mixopt_row"].tolist()
    domain, _ = located(trainer.mixture.sampler, 0, 1)
    assert batch["mixopt_domain"].tolist() == domain.tolist()
