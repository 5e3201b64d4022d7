"""A model, data and trainers for the tests of training frameworks."""

import numpy as np
import pytest
import torch
from torch import nn

from mixopt import MixtureDataset

NAMES = ("web", "code", "books")
LENGTH = 12
QUIET = [
    pytest.mark.filterwarnings(f"ignore::{kind}Warning")
    for kind in ("Deprecation", "Future", "User")
]


class Tiny(nn.Module):
    """Token logits, with the loss that the Trainer asks for."""

    def __init__(self, tokens=50):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.out = nn.Embedding(tokens, 8), nn.Linear(8, tokens)

    def forward(self, input_ids, labels):
        logits = self.out(self.embed(input_ids))
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return {"loss": loss, "logits": logits}


def random_rows() -> MixtureDataset:
    """400 rows of each domain, of 10, 20 and 30 ids."""
    random = np.random.default_rng(0)
    sizes = {name: 10 * (k + 1) for k, name in enumerate(NAMES)}
    return MixtureDataset(
        {
            name: [{"input_ids": random.integers(0, size, LENGTH)} for _ in range(400)]
            for name, size in sizes.items()
        }
    )


def trainer_arguments(folder, **options):
    from transformers import TrainingArguments

    quiet = {"report_to": [], "logging_strategy": "no", "remove_unused_columns": False}
    return TrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, **(quiet | options))


class KilledError(Exception):
    """Stands for the end of a process."""


class Recording:
    """Put before a Trainer: keeps the batches that it trains on, and ends before one of them."""

    seen, killed_at = (), None

    def compute_loss(self, model, inputs, *rest, **options):
        if len(self.seen) == self.killed_at:
            raise KilledError
        self.seen = [*self.seen, inputs]
        return super().compute_loss(model, inputs, *rest, **options)


def lightning_fit(mixture, folder, steps, loss, *, checkpoint=None, **options):
    """Fit a model to `loss(model, batch)`, save `<steps>.ckpt`, and return the batches."""
    import lightning

    from mixopt.integrations import MixtureDataModule

    seen = []

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.tiny = Tiny()

        def training_step(self, batch, index):
            seen.append(batch)
            return loss(self.tiny, batch)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    quiet = {f"enable_{part}": False for part in ("checkpointing", "progress_bar", "model_summary")}
    quiet |= {"use_distributed_sampler": False, "logger": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(default_root_dir=folder, max_steps=steps, **quiet | options)
    trainer.fit(Model(), MixtureDataModule(mixture), ckpt_path=checkpoint)
    trainer.save_checkpoint(folder / f"{steps}.ckpt")
    return seen
