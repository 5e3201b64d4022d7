"""A transformers.Trainer with workers and accumulation, for test_trainer_batches.

torchrun --nproc-per-node 2 mixture_trainer_job.py OUT KILLED_AT
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from trainer_job import GoesAway
from trainer_parts import Tiny, random_rows, trainer_arguments
from transformers import TrainerCallback

from mixopt import MixtureLoader, MixtureSampler
from mixopt.integrations import MixtureTrainer

STEPS, ACCUMULATION = 12, 3
WEIGHTS = [0.5, 0.3, 0.2]
CHANGES = {2: [0.1, 0.1, 0.8], 5: [0.0, 1.0, 0.0], 8: [0.6, 0.2, 0.2]}  # after a step


class Recording(MixtureTrainer):
    """Writes the rows of each batch of this rank."""

    def compute_loss(self, model, inputs, *rest, **named):
        pairs = zip(inputs["domain"].tolist(), inputs["row"].tolist(), strict=True)
        with (Path(self.args.output_dir) / f"rows.{self.args.process_index}").open("a") as file:
            file.write(json.dumps([int(inputs["batch"]), list(pairs)]) + "\n")
        return super().compute_loss(model, inputs, *rest, **named)


class Steer(TrainerCallback):
    """Changes weights after some steps."""

    def __init__(self, loader):
        self.loader = loader

    def on_step_end(self, args, state, control, **_):
        if state.global_step in CHANGES:
            self.loader.set_weights(CHANGES[state.global_step])


def trainer_over(out, world_size, killed_at=None):
    """Make the job's Trainer."""
    args = trainer_arguments(
        out,
        max_steps=STEPS,
        save_steps=3,
        per_device_train_batch_size=8 // world_size,
        gradient_accumulation_steps=ACCUMULATION,
    )
    dataset = random_rows()
    loader = MixtureLoader(dataset, MixtureSampler(dataset.sizes, WEIGHTS, batch_size=8), workers=2)
    callbacks = [Steer(loader), GoesAway(killed_at)]
    return Recording(model=Tiny(), args=args, mixture=loader, callbacks=callbacks)


if __name__ == "__main__":
    trainer_over(Path(sys.argv[1]), int(os.environ["WORLD_SIZE"]), int(sys.argv[2])).train()
