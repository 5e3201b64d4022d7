"""Let an estimator change the mixture under Hugging Face's Trainer.

The losses of each token come from the logits that the model returns for its own loss, a sequence
at a time, so that no second copy of all logits is held. The driver's state is saved with each
checkpoint, beside that of the batches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mixopt.errors import EstimatorError
from mixopt.integrations.hf_trainer import MixtureTrainerMixin, read_state
from mixopt.loading import MixtureLoader
from mixopt.online import Driver
from mixopt.system import write_sealed

STATE_FILE = "driver.json"
_IGNORED = -100


class OnlineTrainerMixin(MixtureTrainerMixin):
    """Put before any Trainer: `class MyTrainer(OnlineTrainerMixin, SFTTrainer)`."""

    def __init__(
        self, *arguments: Any, driver: Driver, args: TrainingArguments, **options: Any
    ) -> None:
        """Make the Trainer.

        Args:
            arguments: The Trainer's.
            driver: Made with a MixtureLoader, with DriverOptions whose `steps` is `max_steps` and
                `accumulation` `gradient_accumulation_steps`, after `args`, which begins
                torch.distributed.
            args: The Trainer's.
            options: The Trainer's.

        Raises:
            EstimatorError: The driver has no MixtureLoader, or another accumulation.
        """
        if not isinstance(driver.mixture, MixtureLoader):
            raise EstimatorError("the Trainer takes its batches from a Driver(mixture=loader)")
        if driver.accumulation != args.gradient_accumulation_steps:
            raise EstimatorError(
                f"DriverOptions(accumulation={driver.accumulation}), and"
                f" gradient_accumulation_steps is {args.gradient_accumulation_steps}; they are one"
                " number"
            )
        self.driver = driver
        super().__init__(*arguments, mixture=driver.mixture, args=args, **options)
        self.add_callback(_Drive(driver))  # type: ignore[attr-defined]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        **options: Any,
    ) -> Any:
        """Return the model's loss, and record its losses by domain where it trains."""
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **options)
        if model.training and "domain" in inputs:
            with torch.no_grad():
                losses, mask = self.token_losses(outputs, inputs)
            self.driver.record(losses, inputs["domain"], mask)
        return (loss, outputs) if return_outputs else loss

    def token_losses(self, outputs: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        """Return the loss of each token, shape (B, T - 1), and which of them count.

        Override it for a model that returns no logits, as with a fused loss.

        Raises:
            EstimatorError: There are no logits.
        """
        logits = outputs.get("logits") if hasattr(outputs, "get") else None
        if logits is None:
            raise EstimatorError(
                "the model returns no logits: override token_losses(outputs, inputs)"
            )
        labels = inputs["labels"][:, 1:]
        losses = [
            torch.nn.functional.cross_entropy(
                one[:-1].float(), label, reduction="none", ignore_index=_IGNORED
            )
            for one, label in zip(logits.detach(), labels, strict=True)
        ]
        return torch.stack(losses), labels != _IGNORED

    def load_mixture(self, checkpoint: Path) -> None:
        """Go on with batches and estimator after a checkpoint.

        Raises:
            SamplerError: It has no state of them.
            EstimatorError: The state is of another run.
        """
        super().load_mixture(checkpoint)
        self.driver.load_state_dict(read_state(checkpoint, STATE_FILE))


class OnlineTrainer(OnlineTrainerMixin, Trainer):  # type: ignore[misc]
    """Hugging Face's Trainer on a mixture that an estimator changes."""


class _Drive(TrainerCallback):  # type: ignore[misc]
    """Call the driver where the Trainer is at."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._learning_rate = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Ask for the first plan before the first batch."""
        self._driver.start()

    def on_optimizer_step(self, *_: Any, optimizer: Any, **__: Any) -> None:
        """Note the learning rate before the scheduler changes it."""
        self._learning_rate = float(optimizer.param_groups[0]["lr"])

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note a step."""
        self._driver.step(learning_rate=self._learning_rate)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Write the state, which all ranks ask for, beside the Trainer's."""
        content = self._driver.state_dict()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_sealed(folder / STATE_FILE, content)
