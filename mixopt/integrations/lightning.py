"""Train on a mixture with Lightning.

Lightning saves and loads the state of any loader that has one. If the loader has no length, it
prefetches one batch, and the checkpoint counts a batch that was not trained on; so this module
requires a length.
"""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningDataModule  # type: ignore[import-not-found,unused-ignore]

from mixopt.errors import EstimatorError, SamplerError
from mixopt.loading import MixtureLoader
from mixopt.online import Driver
from mixopt.sampling import check_ranks


class MixtureDataModule(LightningDataModule):  # type: ignore[misc,unused-ignore]
    """`Trainer(use_distributed_sampler=False).fit(model, MixtureDataModule(loader))`."""

    def __init__(self, mixture: MixtureLoader) -> None:
        """Check that the batches have a length.

        Raises:
            SamplerError: The batches have no length.
        """
        super().__init__()
        try:
            len(mixture)
        except TypeError as error:
            raise SamplerError(
                "Lightning loses a batch on resume if a loader has no length: give "
                "MixtureSampler(batches=)"
            ) from error
        self.mixture = mixture

    def train_dataloader(self) -> Any:
        """Return the batches of this rank; weights change only between optimizer steps.

        Raises:
            SamplerError: A pass ends within a step, which Lightning would cut short.
        """
        if self.trainer is not None:
            self.mixture.accumulate(int(self.trainer.accumulate_grad_batches))
        return self.mixture

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare the ranks; Lightning calls this on every rank.

        Raises:
            SamplerError: Ranks differ in their order of samples; the message names the rank.
        """
        check_ranks(self.mixture.sampler)


class RealisedShares(Callback):  # type: ignore[misc,unused-ignore]
    """Logs realised shares as `mixture/<domain>`, as often as the Trainer logs."""

    def __init__(self, mixture: MixtureLoader) -> None:
        self._mixture = mixture

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        """Log, as the Trainer logs the module's own metrics."""
        shares = self._mixture.realised().items()
        module.log_dict({f"mixture/{name}": share for name, share in shares})


class OnlineCallback(Callback):  # type: ignore[misc,unused-ignore]
    """Runs a driver and saves its state; `training_step` must call `driver.record`.

    For a module with one optimizer; `DriverOptions(accumulation=)` must equal the Trainer's
    `accumulate_grad_batches`.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._learning_rate = 0.0

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        """Request the first plan before the first batch."""
        if len(trainer.optimizers) > 1:
            raise EstimatorError(
                f"the module has {len(trainer.optimizers)} optimizers, but Lightning counts the "
                "steps of each; remove OnlineCallback, and call driver.step() in training_step"
            )
        self._driver.start()

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        """Store the learning rate before a scheduler changes it."""
        self._learning_rate = float(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Report a step to the driver if the batch ended one."""
        if trainer.global_step > self._driver.steps_done:
            self._driver.step(learning_rate=self._learning_rate)

    def state_dict(self) -> dict[str, Any]:
        """Return the driver's state; Lightning calls this on every rank."""
        return self._driver.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a state."""
        self._driver.load_state_dict(state_dict)
