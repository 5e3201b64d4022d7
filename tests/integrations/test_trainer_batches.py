"""The batches that reach the Trainer's model, packed documents apart, and those of a stream."""

import numpy as np
import pytest
import torch
from chat_parts import llama
from datasets import Dataset
from sampler_rows import located, pairs_in_order, pairs_of
from stream_sources import SIZES, hub, numbered
from torch import nn
from trainer_parts import QUIET, Recording, Tiny, random_rows, trainer_arguments
from transformers import DataCollatorWithFlattening, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler, MixtureStream, SamplerError
from mixopt.integrations.hf_trainer import MixtureTrainer, MixtureTrainerMixin, model_inputs

pytestmark = QUIET

IGNORED = -100
PARTS = [(5, 7, 4), (16,), (3, 10), (2, 2, 2, 9)]  # documents of each row of 16 tokens


def packed_rows():
    """Rows of whole documents, padded; `document` numbers them, -1 is padding."""
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

    class Noting(MixtureTrainer):
        def compute_loss(self, model, inputs, *rest, **named):
            loss = super().compute_loss(model, inputs, *rest, **named)
            seen.append((inputs, float(loss)))
            return loss

    args = trainer_arguments(folder, max_steps=steps, **options)
    loader = MixtureLoader(dataset, sampler, collate=loader_collate)
    return Noting(model=model, args=args, mixture=loader, data_collator=collate), seen


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


def test_a_model_gets_the_fields_it_names_and_document_starts_for_flash_attention():
    class Own(nn.Module):
        def forward(self, input_ids, labels, document, cu_seqlens):
            return input_ids

    batch = with_bounds(list(packed_rows())) | {"labels": 1, "text": ["a"]}
    custom, tiny = (model_inputs(model, batch, set(), {"text"}) for model in (Own(), Tiny()))
    assert custom.keys() == {"input_ids", "labels", "document", "cu_seqlens"}
    assert tiny.keys() == {"input_ids", "labels"}
    batch = {k: torch.as_tensor(v) for k, v in with_bounds(list(packed_rows())).items()}
    given = model_inputs(llama(), batch | {"domain": 1}, {"domain"}, set())
    assert given["cu_seq_lens_q"] is given["cu_seq_lens_k"] is batch["cu_seqlens"]
    assert given["max_length_q"] == given["max_length_k"] == 16
    assert given["position_ids"] is batch["position_ids"]
    assert not {"cu_seqlens", "max_seqlen", "document", "domain"} & given.keys()


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
    ("argument", "value", "message"),
    [
        ("gradient_accumulation_steps", 4, r"batches=41\).*; give batches=44"),
        (
            "train_sampling_strategy",
            "group_by_length",
            "group_by_length' would reorder rows, .*leave",
        ),
        ("per_device_train_batch_size", 4, "per_device_train_batch_size=4, but a rank gets 8"),
        ("train_dataset", [1], "train_dataset= is not used, .*; leave it out"),
    ],
)
def test_what_does_not_go_with_the_batches_is_refused(tmp_path, argument, value, message):
    dataset, options = random_rows(), {argument: value}
    given = {"train_dataset": options.pop("train_dataset", None)}
    order = MixtureSampler(dataset.sizes, [1, 0, 0], batch_size=8, batches=41)
    args = trainer_arguments(tmp_path, max_steps=1, **options)
    with pytest.raises(SamplerError, match=message):
        MixtureTrainer(model=Tiny(), args=args, mixture=MixtureLoader(dataset, order), **given)


def test_the_batch_size_that_the_trainer_counts_is_the_samplers(tmp_path):
    dataset = random_rows()
    loader = MixtureLoader(dataset, MixtureSampler(dataset.sizes, [1, 0, 0], batch_size=16))
    args = trainer_arguments(tmp_path, max_steps=2)
    ended = MixtureTrainer(model=Tiny(), args=args, mixture=loader).train()
    seconds = ended.metrics["train_runtime"]
    assert ended.metrics["train_samples_per_second"] == pytest.approx(2 * 16 / seconds, rel=0.02)


def test_fields_of_ours_and_columns_of_a_user_do_not_reach_the_model(tmp_path):
    rows = Dataset.from_list([{"input_ids": [k + 6] * 5, "text": f"site{k}"} for k in range(9)])
    trainer, seen = trainer_over(rows, tmp_path, llama(), remove_unused_columns=True)
    trainer.train()
    batch = seen[0][0]
    assert batch["text"] == [f"site{k}" for k in batch["row"].tolist()]
    domain, _ = located(trainer.mixture.sampler, 0, 1)
    assert batch["domain"].tolist() == domain.tolist()


def tokens_of(document):
    return [byte % 50 for byte in document["text"].encode()] + [0]


def stream(**options):
    sources = {name: hub(numbered(name)) for name in SIZES}
    rows = {"length": 12, "tokenize": tokens_of, "buffer": 40} | options
    return MixtureStream(sources, [0.5, 0.3, 0.2], batch_size=8, **rows)


class Recorded(Recording, MixtureTrainer):
    pass


class Steer(TrainerCallback):
    """Asks for other weights in the middle of a step."""

    def __init__(self, batches):
        self.batches = batches

    def on_substep_end(self, args, state, control, **_):
        if state.global_step == 1:
            self.held = self.batches.set_weights([0.1, 0.1, 0.8])


def trained(batches, folder, steps, *, resume=None):
    options = {"save_steps": 3, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 8}
    args = trainer_arguments(folder, max_steps=steps, **options)
    steer = Steer(batches)
    trainer = Recorded(model=Tiny(), args=args, mixture=batches, callbacks=[steer])
    trainer.train(resume_from_checkpoint=resume)
    return trainer, steer


def test_the_trainer_resumes_a_stream_at_its_checkpoint(tmp_path):
    whole, steer = trained(stream(), tmp_path / "whole", 6)
    assert steer.held == 4  # the first batch of the next step
    known = stream(schedule=[(4, [0.1, 0.1, 0.8])])
    for number, (mine, plain) in enumerate(zip(whole.seen, known, strict=False)):
        assert mine["batch"] == plain["batch"] == number
        assert torch.equal(mine["input_ids"], plain["input_ids"])
        assert torch.equal(mine["domain"], plain["domain"])
    trained(stream(), tmp_path / "halves", 3)
    checkpoint = get_last_checkpoint(str(tmp_path / "halves"))
    second, _ = trained(stream(workers=2), tmp_path / "halves", 6, resume=checkpoint)
    assert [batch["batch"] for batch in second.seen] == list(range(6, 12))
    for mine, other in zip(second.seen, whole.seen[6:], strict=True):
        assert torch.equal(mine["input_ids"], other["input_ids"])


def test_the_trainers_collator_puts_documents_together(tmp_path):
    def collate(rows):
        return {"input_ids": torch.tensor([row["input_ids"][:4] for row in rows])}

    args = trainer_arguments(tmp_path, max_steps=1)
    trainer = Recorded(model=Tiny(), args=args, mixture=stream(), data_collator=collate)
    trainer.train()
    assert trainer.seen[0]["input_ids"].shape == (8, 4)
    assert len(trainer.seen[0]["domain"]) == 8
    with pytest.raises(SamplerError, match=r"MixtureStream\(collate=\) has precedence; leave"):
        MixtureTrainer(
            model=Tiny(), args=args, mixture=stream(collate=collate), data_collator=collate
        )


def test_a_trainer_that_prepares_its_rows_is_refused_with_what_to_use(tmp_path):
    class Prepares:
        def _prepare_dataset(self, dataset):
            return dataset

    class Trainer(MixtureTrainerMixin, Prepares):
        pass

    with pytest.raises(SamplerError, match=r"prepares its rows .* use MixtureTrainer with"):
        Trainer(args=trainer_arguments(tmp_path, max_steps=1), mixture=stream())
