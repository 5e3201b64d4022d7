"""Train on a mixture with Hugging Face's Trainer.

The Trainer would wrap a torch DataLoader (rank 0 reads for all, or every rank reads everything)
and skip batches by reading them on resume. What `get_train_dataloader` returns here is not a torch
DataLoader, so it is left as it is, and its state is saved with each checkpoint: resume begins at
the next batch and reads nothing twice.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from mixopt.errors import SamplerError
from mixopt.loading import Batch, MixtureLoader
from mixopt.sampling import check_ranks
from mixopt.system import read_sealed, write_sealed

STATE_FILE = "mixture.json"
LABELS = ("domain", "row", "batch", "position", "mixture", "document", "cu_seqlens")


class MixtureTrainerMixin:
    """Put before any Trainer: `class MyTrainer(MixtureTrainerMixin, SFTTrainer)`."""

    def __init__(
        self, *arguments: Any, mixture: MixtureLoader, args: TrainingArguments, **options: Any
    ) -> None:
        """Make the Trainer.

        Args:
            arguments: The Trainer's.
            mixture: The batches; its sampler's `batch_size` is per_device_train_batch_size times
                the number of processes, and `max_steps` says how long to train.
            args: The Trainer's; `ignore_data_skip` is set in a copy, as there is nothing to skip.
            options: The Trainer's.
        """
        args = copy.copy(args)
        args.ignore_data_skip = True
        self.mixture = mixture
        super().__init__(*arguments, args=args, **options)  # type: ignore[call-arg]
        self.add_callback(_SaveMixture(mixture))  # type: ignore[attr-defined]

    def get_train_dataloader(self) -> Any:
        """Return the batches with `labels`."""
        return _WithLabels(self.mixture)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **options: Any) -> Any:
        """Take what is not for the model out of a batch; override to use `inputs['domain']`."""
        kept = {name: value for name, value in inputs.items() if name not in LABELS}
        return super().compute_loss(model, kept, *rest, **options)  # type: ignore[misc]

    def train(self, resume_from_checkpoint: str | bool | None = None, **options: Any) -> Any:
        """Train; on resume the batches go on where the checkpoint was.

        Raises:
            SamplerError: The checkpoint has no state of the mixture.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir)  # type: ignore[attr-defined]
        if isinstance(resume_from_checkpoint, str):
            self.load_mixture(Path(resume_from_checkpoint))
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **options)  # type: ignore[misc]

    def load_mixture(self, checkpoint: Path) -> None:
        """Go on with the batches after a checkpoint.

        Raises:
            SamplerError: It has no state of the mixture.
        """
        self.mixture.load_state_dict(read_state(checkpoint, STATE_FILE))


class MixtureTrainer(MixtureTrainerMixin, Trainer):  # type: ignore[misc]
    """Hugging Face's Trainer on a mixture."""


class _SaveMixture(TrainerCallback):  # type: ignore[misc]
    """Save the state of the batches beside the Trainer's."""

    def __init__(self, mixture: MixtureLoader) -> None:
        self._mixture = mixture

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> None:
        """Write the state; it is the same on every rank, which is checked.

        Raises:
            SamplerError: Ranks have other orders of samples; the message names the rank.
        """
        check_ranks(self._mixture.sampler)
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_sealed(folder / STATE_FILE, self._mixture.state_dict())


class _WithLabels:
    """Add `labels` to each batch of tokens; not a torch DataLoader, so that none wraps it."""

    def __init__(self, mixture: MixtureLoader) -> None:
        self._mixture = mixture

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._mixture:
            if "labels" not in batch and "input_ids" in batch:
                batch["labels"] = batch["input_ids"]
            yield batch

    def __len__(self) -> int:
        return len(self._mixture)


def read_state(checkpoint: Path, name: str) -> Any:
    """Read a state that is saved beside the Trainer's.

    Raises:
        SamplerError: The checkpoint has none, or one that is not what was written.
    """
    file = checkpoint / name
    if not file.exists():
        raise SamplerError(
            f"{file}: not found: the checkpoint was not made by such a Trainer; start with"
            " load_state_dict(state) and train() without it"
        )
    return read_sealed(file, mend="train from another checkpoint", error=SamplerError)
