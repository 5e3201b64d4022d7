"""Train on a mixture with Hugging Face's Trainer; the mixture is fixed or set by an estimator.

The Trainer would wrap a torch DataLoader (rank 0 reads for all ranks, or every rank reads
everything) and skip batches on resume by reading them. Here `get_train_dataloader` does not return
a torch DataLoader, so the Trainer does not wrap it, and each checkpoint has its state: resume
begins at the next batch and reads nothing twice.

With a driver, the losses of tokens are computed from the model's logits, one sequence at a time, so
that there is no second copy of all logits.
"""

import copy
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from mixopt.errors import EstimatorError, SamplerError
from mixopt.loading import ADDED, NO_LOSS, Batch, MixtureDataset, MixtureLoader, MixtureStream
from mixopt.online import Driver
from mixopt.sampling import check_ranks
from mixopt.system import read_sealed, write_sealed

_PACKED = ("position_ids", "document", "cu_seqlens", "max_seqlen")
STATE_FILE = "mixture.json"
Batches = MixtureLoader | MixtureStream
MakesLoader = Callable[[Mapping[str, Any]], MixtureLoader]
MakesDriver = Callable[[Mapping[str, Any]], Driver]


class TrainerBatches:
    """Batches with `labels`; not a torch DataLoader, so that the Trainer does not wrap it."""

    def __init__(self, mixture: MixtureLoader | MixtureStream, *, masks: bool) -> None:
        self._mixture = mixture
        self._masks = masks

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._mixture:
            if "input_ids" in batch:
                batch.setdefault("labels", _labels(batch))
                if self._masks and not {"attention_mask", "position_ids"} & batch.keys():
                    batch["attention_mask"] = batch["input_ids"].new_ones(batch["labels"].shape)
            yield batch

    def __len__(self) -> int:
        return len(self._mixture)


def _labels(batch: Batch) -> Any:
    """Return the tokens as labels, without padding and first tokens of documents."""
    labels = batch["input_ids"].clone()
    if "position_ids" in batch:
        labels[batch["position_ids"] == 0] = NO_LOSS
    if "document" in batch:
        labels[batch["document"] < 0] = NO_LOSS
    return labels


def model_inputs(
    model: Any, batch: Mapping[str, Any], ours: Collection[str], unused: Collection[str]
) -> dict[str, Any]:
    """Return the fields of a batch to pass to a model."""
    if hasattr(model, "get_base_model"):  # a PEFT model
        model = model.get_base_model()
    forward = inspect.signature(type(model).forward).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in forward.values())
    left_out = set(ours).union(_PACKED, unused) - forward.keys()
    inputs = {name: value for name, value in batch.items() if name not in left_out}
    packing = _packing(batch)
    if not takes_all:
        packing = {name: value for name, value in packing.items() if name in forward}
    return inputs | packing


def _packing(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return where documents begin, under the names of transformers' models."""
    packing: dict[str, Any] = {}
    if "position_ids" in batch:
        packing["position_ids"] = batch["position_ids"]
    if "cu_seqlens" in batch and "max_seqlen" in batch:
        max_length = int(batch["max_seqlen"])
        packing["cu_seq_lens_q"] = batch["cu_seqlens"]
        packing["cu_seq_lens_k"] = batch["cu_seqlens"]
        packing["max_length_q"] = max_length
        packing["max_length_k"] = max_length
    return packing


def checked_domains(domains: Any) -> dict[str, Dataset]:
    """Check the datasets that a trainer will prepare; return them by domain."""
    if not isinstance(domains, Mapping) or not domains:
        raise SamplerError(
            "mixture=function builds the loader of the rows that the trainer prepares: give"
            " train_dataset={domain: dataset, ...}"
        )
    datasets: dict[str, Dataset] = {}
    for name, source in domains.items():
        if not isinstance(source, Dataset | list):
            raise SamplerError(
                f"train_dataset: domain {name!r} is a {type(source).__name__}; it must be a"
                " datasets.Dataset or a list of rows"
            )
        if not len(source):
            raise SamplerError(f"train_dataset: domain {name!r} has no rows")
        datasets[name] = Dataset.from_list(source) if isinstance(source, list) else source
    return datasets


def sample_row(domains: Mapping[str, Dataset], *, conversational: bool) -> Dataset:
    """Return the row from which a trainer infers the kind of losses and masks."""
    chat_columns = {"messages", "conversations"} if conversational else set()

    def rank(dataset: Dataset) -> tuple[bool, bool]:
        has_chat = not chat_columns.isdisjoint(dataset.column_names)
        has_completion = "completion" in dataset.column_names
        return not has_chat, not has_completion

    return min(domains.values(), key=rank).select([0])


def ready_row(dataset: MixtureDataset, *, packs: bool) -> Dataset:
    """Check that rows need no preparation, and return a placeholder row."""
    for name, columns in dataset.columns.items():
        if packs and "seq_lengths" not in columns:
            fault = "are not packed, and the trainer's packing=True packs only rows it prepares"
        elif "input_ids" not in columns:
            fault = "have no 'input_ids'"
        else:
            continue
        raise SamplerError(
            f"rows of domain {name!r} {fault}: give train_dataset={{domain: dataset, ...}} and"
            " mixture=function, which returns the MixtureLoader of the prepared datasets"
        )
    return Dataset.from_dict({"input_ids": [[0]], "labels": [[0]]})


class MixtureTrainerMixin:
    """Mixin for any Trainer: `class MyTrainer(MixtureTrainerMixin, SFTTrainer)`."""

    def __init__(
        self,
        *arguments: Any,
        mixture: Batches | MakesLoader,
        args: TrainingArguments,
        train_dataset: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        args = _check_arguments(args)
        self._prepares = hasattr(super(), "_prepare_dataset")
        self._rows: Mapping[str, Any] = {}
        self._placeholder = self._dataset_for(mixture, train_dataset, args)
        options["train_dataset"] = self._placeholder
        super().__init__(*arguments, args=args, **options)  # type: ignore[call-arg]
        self.mixture = mixture if isinstance(mixture, Batches) else mixture(self._rows)
        self.train_dataset = getattr(self.mixture, "dataset", self.mixture)
        self._train_batch_size = _set_batch_size(args, self.mixture.sampler.rank_batch)
        self.mixture.accumulate(args.gradient_accumulation_steps)
        self._set_collator(options.get("data_collator"))
        self.add_callback(_SaveStates(self))  # type: ignore[attr-defined]

    def _dataset_for(
        self,
        mixture: Batches | MakesLoader,
        train_dataset: Mapping[str, Any] | None,
        args: TrainingArguments,
    ) -> Any:
        """Return the Trainer's dataset: None, or a placeholder row if it prepares rows."""
        if isinstance(mixture, Batches) and train_dataset is not None:
            raise SamplerError(
                "train_dataset= is not used, because the batches come from mixture=; leave it out"
            )
        if not self._prepares:
            self._rows = train_dataset or {}
            return None
        if isinstance(mixture, MixtureStream):
            raise SamplerError(
                "this trainer prepares its rows before training, but a MixtureStream creates its "
                "rows during training: use MixtureTrainer with MixtureStream(tokenize=, length=)"
            )
        if isinstance(mixture, MixtureLoader):
            return ready_row(mixture.dataset, packs=bool(getattr(args, "packing", False)))
        self._rows = checked_domains(train_dataset)
        masks = bool(getattr(args, "assistant_only_loss", False))
        return sample_row(self._rows, conversational=masks)

    def _prepare_dataset(self, dataset: Any, *rest: Any, **options: Any) -> Any:
        """Prepare each domain in place of the placeholder row."""
        prepare = super()._prepare_dataset  # type: ignore[misc]
        if dataset is not self._placeholder:
            return prepare(dataset, *rest, **options)
        self._rows = {name: prepare(rows, *rest, **options) for name, rows in self._rows.items()}
        for name, rows in self._rows.items():
            if not len(rows):
                raise SamplerError(
                    f"train_dataset: domain {name!r} is empty after preparation: every token is"
                    " masked, or cut off by max_length"
                )
        return dataset

    def get_train_dataloader(self) -> Any:
        """Return the batches with `labels`."""
        return TrainerBatches(self.mixture, masks=self._prepares)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **options: Any) -> Any:
        """Drop fields that the model does not take; override it to use `inputs['domain']`."""
        used = model_inputs(self.model, inputs, ADDED, self._unused_columns())  # type: ignore[attr-defined]
        return super().compute_loss(model, used, *rest, **options)  # type: ignore[misc]

    def log(self, logs: dict[str, float], *rest: Any, **options: Any) -> None:
        """Log the realised share of each domain as `mixture/<domain>` with the training loss."""
        if "loss" in logs and isinstance(self.mixture, MixtureLoader):
            logs |= {f"mixture/{name}": share for name, share in self.mixture.realised().items()}
        super().log(logs, *rest, **options)  # type: ignore[misc]

    def _unused_columns(self) -> set[str]:
        """Return the columns that the Trainer drops if the model's forward does not name them."""
        if not self.args.remove_unused_columns:  # type: ignore[attr-defined]
            return set()
        labels = {"label", "label_ids", "labels"}.union(self.label_names or ())  # type: ignore[attr-defined]
        return self.mixture.columns - labels

    def _set_collator(self, collator: Any) -> None:
        """Use the Trainer's collator in the loader if one is given or the Trainer prepares rows."""
        mixture = self.mixture
        is_tokens = False
        is_packed = False
        if isinstance(mixture, MixtureLoader):
            is_tokens = mixture.dataset.is_tokens
            for columns in mixture.dataset.columns.values():
                is_packed = is_packed or {"position_ids", "document"} <= set(columns)
        if collator is not None and (is_tokens or mixture.collate is not None):
            raise SamplerError(
                "data_collator= is not used, because rows of token shards are read as batches "
                f"and {type(mixture).__name__}(collate=) has precedence; leave it out"
            )
        prepares = self._prepares and not is_packed  # TRL's collator drops the document starts
        if mixture.collate is None and (collator is not None or prepares):
            mixture.collate = self.data_collator  # type: ignore[attr-defined]

    def train(self, resume_from_checkpoint: str | bool | None = None, **options: Any) -> Any:
        """Train; on resume the batches continue from the checkpoint."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir)  # type: ignore[attr-defined]
        if isinstance(resume_from_checkpoint, str):
            for name, part in self.stateful().items():
                part.load_state_dict(read_state(Path(resume_from_checkpoint) / name))
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **options)  # type: ignore[misc]

    def stateful(self) -> dict[str, Any]:
        """Return the objects with their own state, by the file that it is saved in."""
        return {STATE_FILE: self.mixture}


class MixtureTrainer(MixtureTrainerMixin, Trainer):  # type: ignore[misc]
    """Hugging Face's Trainer on a mixture."""


class _SaveStates(TrainerCallback):  # type: ignore[misc]
    """Save the states of batches and driver with the Trainer's."""

    def __init__(self, trainer: MixtureTrainerMixin) -> None:
        self._trainer = trainer

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Write the states, after checking that they are the same on every rank."""
        check_ranks(self._trainer.mixture.sampler)
        for name, part in self._trainer.stateful().items():
            content = part.state_dict()  # collective: call it on every rank
            if state.is_world_process_zero:
                folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                write_sealed(folder / name, content)


def _check_arguments(args: TrainingArguments) -> TrainingArguments:
    """Return a copy of the arguments with which the Trainer skips no batches on resume."""
    name = "train_sampling_strategy"
    strategy = getattr(args, name, "random")
    if strategy != "random":
        raise SamplerError(
            f"{name}={strategy!r} would reorder rows, but the shares of a mixture and its resume "
            f"depend on their order: leave {name} out; pack rows to avoid padding"
        )
    args = copy.copy(args)
    args.ignore_data_skip = True
    return args


def _set_batch_size(args: TrainingArguments, rows: int) -> int:
    """Set the Trainer's batch size to the rows of a rank, from which it computes its speed."""
    devices = max(1, args.n_gpu)
    size = args.per_device_train_batch_size
    default = TrainingArguments.per_device_train_batch_size
    if size not in {default, rows // devices}:
        raise SamplerError(
            f"per_device_train_batch_size={size}, but a rank gets {rows} rows of each batch of the"
            f" sampler: leave it out, or set MixtureSampler(batch_size=) to {size * devices} per"
            " rank"
        )
    args.per_device_train_batch_size = rows // devices
    return int(args.train_batch_size)


def read_state(file: Path) -> Any:
    """Read a state that was saved with the Trainer's."""
    if not file.exists():
        raise SamplerError(
            f"{file}: not found: another Trainer wrote this checkpoint; call"
            " load_state_dict(state), and train() without it"
        )
    return read_sealed(file, hint="train from another checkpoint", error=SamplerError)


class OnlineTrainerMixin(MixtureTrainerMixin):
    """Mixin for any Trainer: `class MyTrainer(OnlineTrainerMixin, SFTTrainer)`."""

    def __init__(
        self, *arguments: Any, driver: Driver | MakesDriver, args: TrainingArguments, **options: Any
    ) -> None:
        mixture: MixtureLoader | MakesLoader
        if isinstance(driver, Driver):
            mixture = self._loader_of(driver, args)
        else:

            def make_loader(rows: Mapping[str, Any]) -> MixtureLoader:
                return self._loader_of(driver(rows), args)

            mixture = make_loader
        super().__init__(*arguments, mixture=mixture, args=args, **options)
        self.add_callback(_DriverCallback(self.driver))  # type: ignore[attr-defined]

    def _loader_of(self, driver: Driver, args: TrainingArguments) -> MixtureLoader:
        """Store the driver, and return its loader."""
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
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **options: Any
    ) -> Any:
        """Return the model's loss; in training, record its losses by domain."""
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **options)
        domain = inputs.get("domain")
        if model.training and domain is not None:
            with torch.no_grad():
                losses, mask = self.token_losses(outputs, inputs)
                if len(losses) != len(domain):
                    lengths = inputs["lengths"]
                    losses, mask, domain = _by_token(losses, mask, domain, lengths)
            self.driver.record(losses, domain, mask)
        return (loss, outputs) if return_outputs else loss

    def token_losses(self, outputs: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        """Return the loss of each token and the mask of tokens that count, shape (B, T - 1)."""
        logits = outputs.get("logits") if hasattr(outputs, "get") else None
        if logits is None:
            raise EstimatorError(
                "the model returns no logits: override token_losses(outputs, inputs)"
            )
        labels = inputs["labels"][:, 1:]
        losses = [
            torch.nn.functional.cross_entropy(
                row[:-1].float(), label, reduction="none", ignore_index=NO_LOSS
            )
            for row, label in zip(logits.detach(), labels, strict=True)
        ]
        return torch.stack(losses), labels != NO_LOSS

    def stateful(self) -> dict[str, Any]:
        """Return loader and driver, by the file of their states."""
        return super().stateful() | {"driver.json": self.driver}


class OnlineTrainer(OnlineTrainerMixin, Trainer):  # type: ignore[misc]
    """Hugging Face's Trainer on a mixture that an estimator changes."""


def _by_token(
    losses: torch.Tensor, mask: torch.Tensor, domain_B: torch.Tensor, lengths_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return loss, mask and domain of each token of concatenated rows."""
    token_domain = domain_B.repeat_interleave(lengths_B)[1:]
    count = len(token_domain)  # without the padding after the last row
    return losses.reshape(-1, 1)[:count], mask.reshape(-1, 1)[:count], token_domain


class _DriverCallback(TrainerCallback):  # type: ignore[misc]
    """Report the Trainer's progress to the driver."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._learning_rate = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Request the first plan before the first batch."""
        self._driver.start()

    def on_optimizer_step(self, *_: Any, optimizer: Any, **__: Any) -> None:
        """Store the learning rate before the scheduler changes it."""
        self._learning_rate = float(optimizer.param_groups[0]["lr"])

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Report a step."""
        self._driver.step(learning_rate=self._learning_rate)
