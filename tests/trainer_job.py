"""A transformers.Trainer whose mixture an estimator steers, for test_online_integrations.

torchrun --nproc-per-node 2 trainer_job.py OUT KILLED_AT
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import TrainerCallback, TrainingArguments

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler
from mixopt.integrations.hf_online import OnlineTrainer
from mixopt.online import Driver, make_estimator

NAMES = ("web", "code", "books")
LENGTH, STEPS = 12, 24


class Tiny(nn.Module):
    """Token logits, with the loss that the Trainer asks for."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.out = nn.Embedding(50, 8), nn.Linear(8, 50)

    def forward(self, input_ids, labels=None):
        logits = self.out(self.embed(input_ids))
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return {"loss": loss, "logits": logits}


class Recording(OnlineTrainer):
    """Writes the rows of each batch of this rank."""

    def compute_loss(self, model, inputs, *rest, **named):
        pairs = zip(inputs["domain"].tolist(), inputs["row"].tolist(), strict=True)
        with (Path(self.args.output_dir) / f"rows.{self.args.process_index}").open("a") as file:
            file.write(json.dumps([int(inputs["batch"]), list(pairs)]) + "\n")
        return super().compute_loss(model, inputs, *rest, **named)


def trainer_over(out, world_size, killed_at=None):
    """Make the job's Trainer; at a step it goes away as a machine does."""
    args = TrainingArguments(
        str(out),
        max_steps=STEPS,
        save_steps=6,
        per_device_train_batch_size=8 // world_size,
        learning_rate=0.05,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
        remove_unused_columns=False,
    )
    random = np.random.default_rng(0)
    rows = {
        name: [{"input_ids": random.integers(0, 10 * (k + 1), LENGTH)} for _ in range(400)]
        for k, name in enumerate(NAMES)
    }
    dataset = MixtureDataset(rows)
    order = MixtureSampler(dataset.sizes, [0.5, 0.3, 0.2], batch_size=8, batches=400)
    driver = Driver(
        make_estimator("odm", {"update_steps": 3}),
        MixtureLoader(dataset, order, workers=2),
        steps=STEPS,
        tokens_per_sample=LENGTH,
        log=out / "log.jsonl",
    )
    return Recording(model=Tiny(), args=args, driver=driver, callbacks=[GoesAway(killed_at)])


class GoesAway(TrainerCallback):
    """Ends the process at a step, with nothing closed."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    folder, killed_at = Path(sys.argv[1]), int(sys.argv[2])
    trainer = trainer_over(folder, int(os.environ["WORLD_SIZE"]), killed_at)
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
