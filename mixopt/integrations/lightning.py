"""Train on a mixture with Lightning.

Lightning saves and loads the state of any loader that has one. Without a length it fetches one
batch ahead of the loop and the checkpoint counts a batch that was not trained on; so a length is
asked for here.
"""

from __future__ import annotations

from typing import Any

from lightning import LightningDataModule  # type: ignore[import-not-found,unused-ignore]

from mixopt.errors import SamplerError
from mixopt.loader import MixtureLoader


class MixtureDataModule(LightningDataModule):  # type: ignore[misc,unused-ignore]
    """`Trainer(use_distributed_sampler=False).fit(model, MixtureDataModule(loader))`."""

    def __init__(self, mixture: MixtureLoader) -> None:
        """Check that the batches have a length.

        Raises:
            SamplerError: They have none.
        """
        super().__init__()
        try:
            len(mixture)
        except TypeError as error:
            raise SamplerError(
                "Lightning loses a batch on resume where a loader has no length: give"
                " MixtureSampler(batches=)"
            ) from error
        self.mixture = mixture

    def train_dataloader(self) -> Any:
        """Return the batches of this rank."""
        return self.mixture
