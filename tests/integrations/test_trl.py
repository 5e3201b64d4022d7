"""TRL's SFTTrainer on a mixture: it prepares each domain its own way, and shares are exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from chat_parts import MARKS, chats, completions, llama, texts, tokenizer
from sampler_rows import pairs_in_order, pairs_of
from torch import nn
from trainer_parts import QUIET, Recording

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler, SamplerError
from mixopt.online import Driver, DriverOptions, make_estimator

trl = pytest.importorskip("trl", reason="trl is absent: make trainers")

from datasets import Dataset  # noqa: E402

from mixopt.integrations.hf_trainer import MixtureTrainerMixin, OnlineTrainerMixin  # noqa: E402

pytestmark = QUIET

WEIGHTS = [0.7, 0.3]
IGNORED = -100


class Trainer(Recording, MixtureTrainerMixin, trl.SFTTrainer):
    """What a user writes, and a list of the batches."""


def arguments(folder, **options):
    options = {"max_steps": 6, "per_device_train_batch_size": 4, "max_length": 32} | options
    return trl.SFTConfig(
        str(folder),
        report_to=[],
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy=options.pop("save_strategy", "no"),
        **options,
    )


def loader_of(rows):
    dataset = MixtureDataset(rows)
    return MixtureLoader(dataset, MixtureSampler(dataset.sizes, WEIGHTS, batch_size=4))


def trained(folder, domains, *, resume=None, **options):
    trainer = Trainer(
        model=llama(),
        args=arguments(folder, **options),
        processing_class=tokenizer(),
        train_dataset=domains,
        mixture=loader_of,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def expected(trainer, batches):
    """What the plain sampler gives over as many rows as TRL has made of each domain."""
    sampler = MixtureSampler(trainer.mixture.dataset.sizes, WEIGHTS, batch_size=4)
    return pairs_in_order(sampler, batches)


def own_way(rows, folder, **options):
    """The rows that TRL makes of one dataset, without mixopt."""
    trainer = trl.SFTTrainer(
        model=llama(),
        args=arguments(folder, **options),
        processing_class=tokenizer(),
        train_dataset=Dataset.from_list(rows),
    )
    return trainer.train_dataset


def domain_of(token):
    return None if token < len(MARKS) else (token - len(MARKS)) // 20


def test_text_is_prepared_by_trl_and_drawn_by_its_shares(tmp_path):
    domains = {"web": texts("web", 40), "code": Dataset.from_list(texts("code", 25))}
    trainer = trained(tmp_path / "out", domains)
    assert trainer.mixture.dataset.sizes == {"web": 40, "code": 25}
    assert pairs_of(trainer.seen) == expected(trainer, 6)
    alone = [own_way(texts(name, 40), tmp_path / name) for name in ("web", "code")]
    for batch in trainer.seen:
        places = zip(
            batch["domain"], batch["row"], batch["input_ids"], batch["labels"], strict=True
        )
        for domain, row, tokens, labels in places:
            of_trl = alone[domain][int(row)]
            assert tokens[tokens != 0].tolist() == of_trl["input_ids"]
            assert labels[labels != IGNORED].tolist() == of_trl["labels"]
    assert trainer.state.log_history[-1]["train_loss"] > 0


def test_packed_rows_are_of_one_domain_and_reach_the_model_apart(tmp_path):
    domains = {"web": texts("web", 60), "code": texts("code", 60)}
    trainer = trained(tmp_path, domains, packing=True, max_length=16)
    sizes = trainer.mixture.dataset.sizes
    assert 60 * 7 / 16 < sizes["web"] < 30  # packed rows, of about two documents each
    assert pairs_of(trainer.seen) == expected(trainer, 6)
    model = trainer.model.eval()
    for batch in trainer.seen:
        assert batch["input_ids"].shape[0] == 1
        of_row = batch["domain"].repeat_interleave(batch["lengths"]).tolist()
        for token, domain in zip(batch["input_ids"][0].tolist(), of_row, strict=True):
            assert domain_of(token) in {None, domain}
    batch = trainer.seen[-1]
    with torch.no_grad():
        loss = trainer.compute_loss(model, dict(batch))
        starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
        parts = list(zip(starts, [*starts[1:], None], strict=True))
        total = sum(
            nn.functional.cross_entropy(
                model(batch["input_ids"][:, a:b]).logits[0, :-1],
                batch["input_ids"][0, a:b][1:],
                reduction="sum",
            )
            for a, b in parts
        )
    count = (batch["labels"] != IGNORED).sum()
    assert len(parts) >= 8  # of four rows
    torch.testing.assert_close(loss, total / count, rtol=0, atol=1e-5)


def test_it_resumes_at_the_next_batch(tmp_path):
    domains = {"web": texts("web", 40), "code": texts("code", 25)}
    options = {"gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 4}
    whole = trained(tmp_path, domains, max_steps=6, **options)
    again = trained(
        tmp_path, domains, max_steps=6, resume=str(tmp_path / "checkpoint-4"), **options
    )
    assert pairs_of(whole.seen) == expected(whole, 12)
    assert pairs_of(again.seen) == pairs_of(whole.seen[8:])


# --- rows that are ready ------------------------------------------------------------------------


def ready_trainer(folder, loader, **options):
    return Trainer(
        model=llama(),
        args=arguments(folder, **options),
        processing_class=tokenizer(),
        mixture=loader,
        eval_dataset=Dataset.from_list(texts("web", 4)),
    )


def test_rows_that_are_ready_are_left_and_those_to_evaluate_on_prepared(tmp_path):
    ready = [{"input_ids": [7, 8]}] * 9
    trainer = ready_trainer(tmp_path, loader_of({"web": ready, "code": ready}))
    assert trainer.mixture.dataset.sizes == {"web": 9, "code": 9}
    assert "input_ids" in trainer.eval_dataset.column_names


def test_what_cannot_be_prepared_is_refused(tmp_path):
    ready = [{"input_ids": [7, 8]}] * 9
    with pytest.raises(SamplerError, match=r"'web' have no 'input_ids': give train_dataset="):
        ready_trainer(tmp_path, loader_of({"web": texts("web", 9), "code": ready}))
    with pytest.raises(SamplerError, match=r"'web' are not packed, and .*packing=True"):
        ready_trainer(tmp_path, loader_of({"web": ready, "code": ready}), packing=True)
    with pytest.raises(SamplerError, match=r"give\s+train_dataset=\{domain: dataset, ...\}"):
        trained(tmp_path, None)
    with pytest.raises(SamplerError, match=r"domain 'web' is a tuple; it must be a"):
        trained(tmp_path, {"web": ()})
    with pytest.raises(SamplerError, match=r"domain 'web' has no rows"):
        trained(tmp_path, {"web": []})
    with pytest.raises(SamplerError, match=r"domain 'ask' is empty after preparation"):
        trained(tmp_path, {"web": texts("web", 3), "ask": completions("ask", 3)}, max_length=2)


# --- an estimator -------------------------------------------------------------------------------


class Online(OnlineTrainerMixin, trl.SFTTrainer):
    """What a user writes, and what of each domain carries loss."""

    def compute_loss(self, model, inputs, *rest, **options):
        labels, domain = inputs["labels"], inputs["domain"]
        if len(labels) == 1:
            domain = domain.repeat_interleave(inputs["lengths"])[1:]
            labels = labels[0].unsqueeze(1)[: len(domain) + 1]
            supervised = labels[1:, 0] != IGNORED
        else:
            supervised = (labels[:, 1:] != IGNORED).sum(dim=1)
        counts = torch.bincount(domain, weights=supervised.float(), minlength=2)
        vars(self).setdefault("counts", []).append(counts.tolist())
        return super().compute_loss(model, inputs, *rest, **options)


@pytest.mark.parametrize("packing", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_an_estimator_sees_the_losses_of_each_domain(tmp_path, packing):
    told = []

    def driver_of(rows):
        estimator = make_estimator("odm", {"update_steps": 2})
        observe = estimator.observe
        estimator.observe = lambda seen: (told.append(seen), observe(seen))[1]
        options = DriverOptions(steps=6, tokens_per_sample=16)
        return Driver(estimator, loader_of(rows), options)

    args = arguments(tmp_path, packing=packing, max_length=16, max_steps=3)
    domains = {"web": texts("web", 60), "code": texts("code", 60)}
    trainer = Online(
        model=llama(),
        args=args,
        processing_class=tokenizer(),
        train_dataset=domains,
        driver=driver_of,
    )
    trainer.train()
    counts = np.array(trainer.counts)
    assert (counts > 0).all()
    assert told[0].loss_count_D.tolist() == counts[:2].sum(axis=0).tolist()
    assert np.allclose(told[0].loss_sum_D / told[0].loss_count_D, np.log(86), atol=0.1)


@pytest.mark.parametrize(
    ("name", "make", "options", "first", "size"),
    [
        ("ask", completions, {}, 60, lambda row: 2),
        ("chat", chats, {"assistant_only_loss": True}, 40, lambda row: 1 + row % 4),
    ],
)
def test_loss_is_of_completions_or_the_assistant_alone(tmp_path, name, make, options, first, size):
    trainer = trained(tmp_path, {"web": texts("web", 30), name: make(name, 30)}, **options)
    for batch in trainer.seen:
        for domain, row, labels in zip(batch["domain"], batch["row"], batch["labels"], strict=True):
            if domain == 1:
                words = [(int(row) + 9 + k) % 20 + len(MARKS) + first for k in range(size(row))]
                assert labels[labels != IGNORED].tolist()[:-1] == words
