"""TRL's SFTTrainer on a mixture: it prepares each domain its own way, and shares are exact."""

from unittest.mock import Mock

import numpy as np
import pytest
import torch
from chat_parts import MARKS, chats, completions, llama, texts, tokenizer
from refusals import refuses
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
    """A trainer as a user writes it, and a list of its batches."""


SETTINGS = {"max_steps": 6, "per_device_train_batch_size": 4, "max_length": 32, "report_to": []}
SETTINGS |= dict.fromkeys(("use_cpu", "disable_tqdm"), True)
SETTINGS |= {"bf16": False, "logging_strategy": "no", "save_strategy": "no"}


def trainer_of(kind, folder, *, options=None, **given):
    """Make a trainer of a tiny model."""
    args = trl.SFTConfig(str(folder), **SETTINGS | (options or {}))
    return kind(model=llama(), args=args, processing_class=tokenizer(), **given)


def loader_of(rows):
    dataset = MixtureDataset(rows)
    return MixtureLoader(dataset, MixtureSampler(dataset.sizes, WEIGHTS, batch_size=4))


def trained(folder, domains, *, resume=None, **options):
    trainer = trainer_of(Trainer, folder, options=options, train_dataset=domains, mixture=loader_of)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def expected(trainer, batches):
    """What the plain sampler gives over as many rows as TRL has made of each domain."""
    sampler = MixtureSampler(trainer.mixture.dataset.sizes, WEIGHTS, batch_size=4)
    return pairs_in_order(sampler, batches)


def domain_of(token):
    return None if token < len(MARKS) else (token - len(MARKS)) // 20


def test_text_is_prepared_by_trl_and_drawn_by_its_shares(tmp_path):
    domains = {"web": texts("web", 40), "code": Dataset.from_list(texts("code", 25))}
    trainer = trained(tmp_path / "out", domains)
    assert trainer.mixture.dataset.sizes == {"web": 40, "code": 25}
    assert pairs_of(trainer.seen) == expected(trainer, 6)
    rows = [Dataset.from_list(texts(name, 40)) for name in ("web", "code")]
    alone = [
        trainer_of(trl.SFTTrainer, tmp_path, train_dataset=item).train_dataset for item in rows
    ]
    fields = ("domain", "row", "input_ids", "labels")
    for batch in trainer.seen:
        for domain, row, tokens, labels in zip(*(batch[name] for name in fields), strict=True):
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
        parts = batch["input_ids"][0].tensor_split(starts[1:])
        logits = torch.cat([model(part[None]).logits[0, :-1] for part in parts])
        following = torch.cat([part[1:] for part in parts])
        total = nn.functional.cross_entropy(logits, following, reduction="sum")
    count = (batch["labels"] != IGNORED).sum()
    assert len(parts) >= 8  # of four rows
    torch.testing.assert_close(loss, total / count, rtol=0, atol=1e-5)


def test_it_resumes_at_the_next_batch(tmp_path):
    domains = {"web": texts("web", 40), "code": texts("code", 25)}
    options = {"gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 4}
    whole = trained(tmp_path, domains, **options)
    resumed = trained(tmp_path, domains, resume=str(tmp_path / "checkpoint-4"), **options)
    assert pairs_of(whole.seen) == expected(whole, 12)
    assert pairs_of(resumed.seen) == pairs_of(whole.seen[8:])


READY = [{"input_ids": [7, 8]}] * 9


def ready_trainer(folder, domains, **options):
    held_out = Dataset.from_list(texts("web", 4))
    given = {"mixture": loader_of(domains), "eval_dataset": held_out}
    return trainer_of(Trainer, folder, options=options, **given)


def test_prepared_rows_stay_evaluation_rows_are_prepared_and_others_refused(tmp_path):
    trainer = ready_trainer(tmp_path, {"web": READY, "code": READY})
    assert trainer.mixture.dataset.sizes == {"web": 9, "code": 9}
    assert "input_ids" in trainer.eval_dataset.column_names
    with pytest.raises(SamplerError, match=r"'web' have no 'input_ids': give train_dataset="):
        ready_trainer(tmp_path, {"web": texts("web", 9), "code": READY})
    with pytest.raises(SamplerError, match=r"'web' are not packed, and .*packing=True"):
        ready_trainer(tmp_path, {"web": READY, "code": READY}, packing=True)
    refuses(SamplerError, r"give\s+train_dataset=\{domain: dataset, ...\}", trained, tmp_path, None)
    refuses(SamplerError, r"domain 'web' is a tuple; it must be a", trained, tmp_path, {"web": ()})
    refuses(SamplerError, r"domain 'web' has no rows", trained, tmp_path, {"web": []})
    with pytest.raises(SamplerError, match=r"domain 'ask' is empty after preparation"):
        trained(tmp_path, {"web": texts("web", 3), "ask": completions("ask", 3)}, max_length=2)


class Online(OnlineTrainerMixin, trl.SFTTrainer):
    """A trainer as a user writes it, and which tokens of each domain carry loss."""

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
    estimator = make_estimator("odm", {"update_steps": 2})
    estimator.observe = Mock(wraps=estimator.observe)

    def driver_of(rows):
        return Driver(estimator, loader_of(rows), DriverOptions(steps=6, tokens_per_sample=16))

    options = {"packing": packing, "max_length": 16, "max_steps": 3}
    domains = {"web": texts("web", 60), "code": texts("code", 60)}
    trainer = trainer_of(Online, tmp_path, options=options, train_dataset=domains, driver=driver_of)
    trainer.train()
    counts = np.array(trainer.counts)
    assert (counts > 0).all()
    (seen,) = estimator.observe.call_args_list[0].args
    assert seen.loss_count_D.tolist() == counts[:2].sum(axis=0).tolist()
    assert np.allclose(seen.loss_sum_D / seen.loss_count_D, np.log(86), atol=0.1)


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
