"""Train on a mixture with Hugging Face's Trainer.

The Trainer would wrap a torch DataLoader (rank 0 reads for all, or every rank reads everything)
and skip batches by reading them on resume. What `get_train_dataloader` returns here is not a torch
DataLoader, so it is left as it is, and its state is saved with each checkpoint: resume begins at
the next batch and reads nothing twice.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from mixopt.errors import SamplerError
from mixopt.integrations.logged_shares import share_metrics
from mixopt.integrations.trainer_batches import TrainerBatches, model_inputs
from mixopt.loading import MixtureLoader, MixtureStream
from mixopt.sampling import check_ranks
from mixopt.system import read_sealed, write_sealed

STATE_FILE = "mixture.json"
PACKED = frozenset({"position_ids", "document"})
Batches = MixtureLoader | MixtureStream
MakesLoader = Callable[[Mapping[str, Any]], MixtureLoader]


class MixtureTrainerMixin:
    """Put before any Trainer: `class MyTrainer(MixtureTrainerMixin, SFTTrainer)`."""

    def __init__(
        self,
        *arguments: Any,
        mixture: Batches | MakesLoader,
        args: TrainingArguments,
        train_dataset: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Make the Trainer."""
        _check_strategy(args)
        args = copy.copy(args)
        args.ignore_data_skip = True
        self._prepares = hasattr(super(), "_prepare_dataset")
        self._rows: Mapping[str, Any] = {}
        self._standing = self._row_for(mixture, train_dataset, args)
        options["train_dataset"] = self._standing
        super().__init__(*arguments, args=args, **options)  # type: ignore[call-arg]
        self.mixture = mixture if isinstance(mixture, Batches) else mixture(self._rows)
        self.train_dataset = getattr(self.mixture, "dataset", self.mixture)
        _check_passes(self.mixture, args.gradient_accumulation_steps)
        self.mixture.accumulate(args.gradient_accumulation_steps)
        self._collate_with(options.get("data_collator"))
        self.add_callback(_SaveMixture(self.mixture))  # type: ignore[attr-defined]

    def _row_for(
        self,
        mixture: Batches | MakesLoader,
        train_dataset: Mapping[str, Any] | None,
        args: TrainingArguments,
    ) -> Any:
        """Return what the Trainer is given as its dataset: nothing, or a row where it asks."""
        if isinstance(mixture, Batches) and train_dataset is not None:
            raise SamplerError(
                "train_dataset= is not used, because the batches are those of mixture=; "
                "leave it out"
            )
        if not self._prepares:
            self._rows = train_dataset or {}
            return None
        from mixopt.integrations.prepared_rows import checked_domains, ready_row, telling_row

        if isinstance(mixture, MixtureStream):
            raise SamplerError(
                "this trainer prepares its rows before it trains, but a MixtureStream makes its "
                "rows during training: use MixtureTrainer with MixtureStream(tokenize=, length=)"
            )
        if isinstance(mixture, MixtureLoader):
            return ready_row(mixture.dataset, packs=bool(getattr(args, "packing", False)))
        self._rows = checked_domains(train_dataset)
        masks = bool(getattr(args, "assistant_only_loss", False))
        return telling_row(self._rows, conversational=masks)

    def _prepare_dataset(self, dataset: Any, *rest: Any, **options: Any) -> Any:
        """Prepare each domain in place of the row that stands for them."""
        prepare = super()._prepare_dataset  # type: ignore[misc]
        if dataset is not self._standing:
            return prepare(dataset, *rest, **options)
        if self._rows:
            from mixopt.integrations.prepared_rows import prepared

            self._rows = prepared(self._rows, lambda one: prepare(one, *rest, **options))
        return dataset

    def get_train_dataloader(self) -> Any:
        """Return the batches with `labels`."""
        return TrainerBatches(self.mixture, masks=self._prepares)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **options: Any) -> Any:
        """Take what is not for the model out of a batch; override to use `inputs['domain']`."""
        ours = self.mixture.fields.values()
        kept = model_inputs(self.model, inputs, ours, self._unused_columns())  # type: ignore[attr-defined]
        return super().compute_loss(model, kept, *rest, **options)  # type: ignore[misc]

    def log(self, logs: dict[str, float], *rest: Any, **options: Any) -> None:
        """Log the realised share of each domain as `mixture/<domain>` beside the training loss."""
        if "loss" in logs and isinstance(self.mixture, MixtureLoader):
            logs |= share_metrics(self.mixture)
        super().log(logs, *rest, **options)  # type: ignore[misc]

    def _unused_columns(self) -> set[str]:
        """Return the columns that the Trainer leaves out where the model does not name them."""
        if not self.args.remove_unused_columns:  # type: ignore[attr-defined]
            return set()
        return self.mixture.columns - {"label", "label_ids", "labels", *(self.label_names or ())}  # type: ignore[attr-defined]

    def _collate_with(self, given: Any) -> None:
        """Let the loader put rows together as the Trainer does, where it is told to or prepares."""
        mixture = self.mixture
        dataset = mixture.dataset if isinstance(mixture, MixtureLoader) else None
        is_tokens = dataset is not None and dataset.is_tokens
        if given is not None and (is_tokens or mixture.collate is not None):
            raise SamplerError(
                "data_collator= is not used, because rows of token shards are read as batches "
                f"and {type(mixture).__name__}(collate=) goes first; leave it out"
            )
        columns = dataset.columns.values() if dataset is not None else ()
        packed = any({*names} >= PACKED for names in columns)
        prepares = self._prepares and not packed  # TRL's collator drops where documents begin
        if mixture.collate is None and (given is not None or prepares):
            mixture.collate = self.data_collator  # type: ignore[attr-defined]

    def train(self, resume_from_checkpoint: str | bool | None = None, **options: Any) -> Any:
        """Train; on resume the batches continue from the checkpoint."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir)  # type: ignore[attr-defined]
        if isinstance(resume_from_checkpoint, str):
            self.load_mixture(Path(resume_from_checkpoint))
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **options)  # type: ignore[misc]

    def load_mixture(self, checkpoint: Path) -> None:
        """Resume the batches after a checkpoint."""
        self.mixture.load_state_dict(read_state(checkpoint, STATE_FILE))


class MixtureTrainer(MixtureTrainerMixin, Trainer):  # type: ignore[misc]
    """Hugging Face's Trainer on a mixture."""


class _SaveMixture(TrainerCallback):  # type: ignore[misc]
    """Save the state of the batches beside the Trainer's."""

    def __init__(self, mixture: Batches) -> None:
        self._mixture = mixture

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> None:
        """Write the state; it is the same on every rank, which is checked."""
        check_ranks(self._mixture.sampler)
        content = self._mixture.state_dict()  # of a stream every rank is asked
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_sealed(folder / STATE_FILE, content)


def _check_strategy(args: TrainingArguments) -> None:
    name = "train_sampling_strategy"
    strategy = getattr(args, name, "random")
    if strategy != "random":
        raise SamplerError(
            f"{name}={strategy!r} would reorder rows, but the shares of a mixture and its resume "
            f"depend on their order: leave {name} out; pack rows to avoid padding"
        )


def _check_passes(mixture: Batches, accumulation: int) -> None:
    batches = mixture.sampler.batches
    if batches is not None and batches % accumulation:
        raise SamplerError(
            f"MixtureSampler(batches={batches}) with gradient_accumulation_steps={accumulation}:"
            " the Trainer would cut the last step of each pass short; give"
            f" batches={batches + -batches % accumulation}"
        )


def read_state(checkpoint: Path, name: str) -> Any:
    """Read a state that is saved beside the Trainer's."""
    file = checkpoint / name
    if not file.exists():
        raise SamplerError(
            f"{file}: not found: the checkpoint was not made by such a Trainer; start with"
            " load_state_dict(state) and train() without it"
        )
    return read_sealed(file, mend="train from another checkpoint", error=SamplerError)
