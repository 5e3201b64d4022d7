"""Realised shares of tokens are those of the mixture, and are where the trainer's losses are."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from chat_parts import llama
from trainer_parts import QUIET, Tiny, trainer_arguments

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler, PackedDocuments
from mixopt.integrations import MixtureTrainer

pytestmark = QUIET

WEIGHTS = {"web": 0.7, "code": 0.3}
LENGTH, STEPS = 16, 8


@pytest.fixture
def packed():
    """Rows of `web` are 9 tokens and padding, rows of `code` four documents of 4 tokens."""
    random = np.random.default_rng(0)
    documents = {
        name: [random.integers(6, 80, size).tolist() for _ in range(200)]
        for name, size in (("web", 9), ("code", 4))
    }
    sources = {name: PackedDocuments(rows, length=LENGTH) for name, rows in documents.items()}
    dataset = MixtureDataset(sources)
    order = MixtureSampler(
        dataset.sizes, WEIGHTS, batch_size=8, batches=40, unit="tokens", lengths=dataset.lengths()
    )
    return MixtureLoader(dataset, order)


class Seeing(MixtureTrainer):
    """Keeps the batches."""

    def compute_loss(self, model, inputs, *rest, **options):
        vars(self).setdefault("seen", []).append(dict(inputs))
        return super().compute_loss(model, inputs, *rest, **options)


def counted(batches):
    """Tokens of each domain after each batch, by what the model was given, shape (batches, 2)."""
    tokens = [
        np.bincount(b["domain"], weights=(b["document"] >= 0).sum(dim=1), minlength=2)
        for b in batches
    ]
    return np.cumsum(tokens, axis=0)


def shares_of(tokens_ND):
    return (tokens_ND / tokens_ND.sum(axis=1, keepdims=True)).tolist()


def test_the_trainer_logs_the_shares_of_packed_rows(packed, tmp_path):
    args = trainer_arguments(tmp_path, max_steps=STEPS, logging_strategy="steps", logging_steps=4)
    trainer = Seeing(model=llama(), args=args, mixture=packed)
    trainer.train()
    tokens = counted(trainer.seen)
    owed = tokens.sum(axis=1, keepdims=True) * list(WEIGHTS.values())
    assert np.abs(tokens - owed).max() <= 8 * LENGTH
    logged = [line for line in trainer.state.log_history if "mixture/web" in line]
    assert [line["step"] for line in logged] == [4, 8]
    shares = [[line[f"mixture/{name}"] for name in WEIGHTS] for line in logged]
    assert shares == [pytest.approx(share) for share in shares_of(tokens[3::4])]


def test_lightning_logs_shares_as_often_as_losses(packed, tmp_path):
    lightning = pytest.importorskip("lightning", reason="lightning is absent")
    from lightning.pytorch.loggers import CSVLogger

    from mixopt.integrations.lightning import MixtureDataModule, RealisedShares

    seen = []

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.tiny = Tiny(86)

        def training_step(self, batch, index):
            seen.append(batch)
            return self.tiny(batch["input_ids"], batch["input_ids"])["loss"]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    logger = CSVLogger(tmp_path)
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=STEPS, accumulate_grad_batches=2, log_every_n_steps=4,
        callbacks=[RealisedShares(packed)], logger=logger, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(Model(), MixtureDataModule(packed))
    with open(f"{logger.log_dir}/metrics.csv", encoding="utf-8") as file:
        logged = list(csv.DictReader(file))
    assert [line["step"] for line in logged] == ["3", "7"]  # as Lightning numbers its own
    shares = [[float(line[f"mixture/{name}"]) for name in WEIGHTS] for line in logged]
    assert shares == [pytest.approx(share) for share in shares_of(counted(seen)[7::8])]
