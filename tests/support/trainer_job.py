"""A transformers.Trainer whose mixture an estimator steers, for test_online_integrations.

torchrun --nproc-per-node 2 trainer_job.py OUT KILLED_AT
"""

import json
import os
import signal
import sys
from pathlib import Path

from trainer_parts import LENGTH, Tiny, random_rows, trainer_arguments
from transformers import TrainerCallback

from mixopt import MixtureLoader, MixtureSampler
from mixopt.integrations import OnlineTrainer
from mixopt.online import Driver, DriverOptions, make_estimator

STEPS = 24


class Recording(OnlineTrainer):
    """Writes the rows of each batch of this rank."""

    def compute_loss(self, model, inputs, *rest, **named):
        pairs = zip(inputs["domain"].tolist(), inputs["row"].tolist(), strict=True)
        with (Path(self.args.output_dir) / f"rows.{self.args.process_index}").open("a") as file:
            file.write(json.dumps([int(inputs["batch"]), list(pairs)]) + "\n")
        return super().compute_loss(model, inputs, *rest, **named)


def trainer_over(out, world_size, killed_at=None):
    """Make the job's Trainer; at a step it goes away as a machine does."""
    options = {"max_steps": STEPS, "save_steps": 6, "learning_rate": 0.05}
    args = trainer_arguments(out, per_device_train_batch_size=8 // world_size, **options)
    dataset = random_rows()
    order = MixtureSampler(dataset.sizes, [0.5, 0.3, 0.2], batch_size=8, batches=400)
    driver = Driver(
        make_estimator("odm", {"update_steps": 3}),
        MixtureLoader(dataset, order, workers=2),
        DriverOptions(steps=STEPS, tokens_per_sample=LENGTH, log=out / "log.jsonl"),
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
