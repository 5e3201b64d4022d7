"""Let an estimator change the mixture under Hugging Face's Trainer.

The losses of each token come from the logits that the model returns for its own loss, a sequence
at a time, so that no second copy of all logits is held. The driver's state is saved with each
checkpoint, beside that of the batches.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from mixopt.errors import EstimatorError
from mixopt.integrations.hf_trainer import MixtureTrainerMixin
from mixopt.loading import NO_LOSS, MixtureLoader
from mixopt.online import Driver


class OnlineTrainerMixin(MixtureTrainerMixin):
    """Put before any Trainer: `class MyTrainer(OnlineTrainerMixin, SFTTrainer)`."""

    def __init__(
        self, *arguments: Any, driver: Driver, args: TrainingArguments, **options: Any
    ) -> None:
        mixture = (
            self._loader_of(driver, args)
            if isinstance(driver, Driver)
            else lambda rows: self._loader_of(driver(rows), args)
        )
        super().__init__(*arguments, mixture=mixture, args=args, **options)
        self.add_callback(_Drive(self.driver))  # type: ignore[attr-defined]

    def _loader_of(self, driver: Driver, args: TrainingArguments) -> MixtureLoader:
        """Keep the driver, and return its batches."""
        self.driver = driver
        if not isinstance(driver.mixture, MixtureLoader):
            raise EstimatorError("the Trainer takes its batches from a Driver(mixture=loader)")
        if driver.accumulation != args.gradient_accumulation_steps:
            raise EstimatorError(
                f"DriverOptions(accumulation={driver.accumulation}), but "
                f"gradient_accumulation_steps is {args.gradient_accumulation_steps}; they must be "
                "equal"
            )
        return driver.mixture

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        **options: Any,
    ) -> Any:
        """Return the model's loss, and record its losses by domain where it trains."""
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **options)
        domain = inputs.get(self.mixture.fields["domain"])
        if model.training and domain is not None:
            with torch.no_grad():
                losses, mask = self.token_losses(outputs, inputs)
                if len(losses) != len(domain):
                    lengths = inputs[self.mixture.fields["lengths"]]
                    losses, mask, domain = _by_token(losses, mask, domain, lengths)
            self.driver.record(losses, domain, mask)
        return (loss, outputs) if return_outputs else loss

    def token_losses(self, outputs: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        """Return the loss of each token, shape (B, T - 1), and which of them count."""
        logits = outputs.get("logits") if hasattr(outputs, "get") else None
        if logits is None:
            raise EstimatorError(
                "the model returns no logits: override token_losses(outputs, inputs)"
            )
        labels = inputs["labels"][:, 1:]
        losses = [
            torch.nn.functional.cross_entropy(
                one[:-1].float(), label, reduction="none", ignore_index=NO_LOSS
            )
            for one, label in zip(logits.detach(), labels, strict=True)
        ]
        return torch.stack(losses), labels != NO_LOSS

    def stateful(self) -> dict[str, Any]:
        """Return batches and driver, by the file that their states are saved in."""
        return {**super().stateful(), "driver.json": self.driver}


class OnlineTrainer(OnlineTrainerMixin, Trainer):  # type: ignore[misc]
    """Hugging Face's Trainer on a mixture that an estimator changes."""


def _by_token(
    losses: torch.Tensor, mask: torch.Tensor, domain_B: torch.Tensor, lengths_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the losses, mask and domain of each token, of rows that lie end to end."""
    of_token = domain_B.repeat_interleave(lengths_B)[1:]
    count = len(of_token)  # without the padding after the last row
    return losses.reshape(-1, 1)[:count], mask.reshape(-1, 1)[:count], of_token


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
