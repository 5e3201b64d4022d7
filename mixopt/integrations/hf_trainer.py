"""Train on a mixture with Hugging Face's Trainer, fixed or changed by an estimator.

The Trainer would wrap a torch DataLoader (rank 0 reads for all, or every rank reads everything)
and skip batches by reading them on resume. What `get_train_dataloader` returns here is not a torch
DataLoader, so it is left as it is, and its state is saved with each checkpoint: resume begins at
the next batch and reads nothing twice.

With a driver, the losses of each token come from the logits that the model returns for its own
loss, a sequence at a time, so that no second copy of all logits is held.
"""

from __future__ import annotations

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
from mixopt.loading import NO_LOSS, Batch, MixtureDataset, MixtureLoader, MixtureStream
from mixopt.online import Driver
from mixopt.sampling import check_ranks
from mixopt.system import read_sealed, write_sealed

_PACKED = ("position_ids", "document", "cu_seqlens", "max_seqlen")


class TrainerBatches:
    """Batches with `labels`; not a torch DataLoader, so that none wraps it."""

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
    """Return the tokens, but for the first of each document and padding, which nothing predicts."""
    labels = batch["input_ids"].clone()
    if "position_ids" in batch:
        labels[batch["position_ids"] == 0] = NO_LOSS
    if "document" in batch:
        labels[batch["document"] < 0] = NO_LOSS
    return labels


def model_inputs(
    model: Any, batch: Mapping[str, Any], ours: Collection[str], unused: Collection[str]
) -> dict[str, Any]:
    """Return what of a batch a model is given."""
    if hasattr(model, "get_base_model"):  # of PEFT
        model = model.get_base_model()
    forward = inspect.signature(type(model).forward).parameters
    takes_all = any(one.kind is one.VAR_KEYWORD for one in forward.values())
    left_out = {*ours, *_PACKED, *unused} - forward.keys()
    known = {name: value for name, value in batch.items() if name not in left_out}
    packing = {name: batch[name] for name in ("position_ids",) if name in batch}
    if "cu_seqlens" in batch and "max_seqlen" in batch:
        longest = int(batch["max_seqlen"])
        packing |= dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), batch["cu_seqlens"])
        packing |= dict.fromkeys(("max_length_q", "max_length_k"), longest)
    return known | {name: value for name, value in packing.items() if takes_all or name in forward}


def checked_domains(domains: Any) -> dict[str, Dataset]:
    """Return the datasets that a trainer is to prepare, by domain."""
    if not isinstance(domains, Mapping) or not domains:
        raise SamplerError(
            "mixture=function makes the batches of rows that the trainer has prepared: give"
            " train_dataset={domain: dataset, ...}"
        )
    for name, source in domains.items():
        if not isinstance(source, Dataset | list):
            raise SamplerError(
                f"train_dataset: domain {name!r} is a {type(source).__name__}; a trainer prepares a"
                " datasets.Dataset, or a list of rows, of each domain"
            )
        if not len(source):
            raise SamplerError(f"train_dataset: domain {name!r} has no rows")
    return {n: Dataset.from_list(s) if isinstance(s, list) else s for n, s in domains.items()}


def telling_row(domains: Mapping[str, Dataset], *, conversational: bool) -> Dataset:
    """Return the row by which a trainer is to tell which kind of losses and masks are asked for."""
    keys = [("messages", "conversations")] if conversational else []
    for wanted in [*keys, ("completion",)]:
        for dataset in domains.values():
            if set(wanted) & set(dataset.column_names):
                return dataset.select([0])
    return next(iter(domains.values())).select([0])


def ready_row(dataset: MixtureDataset, *, packs: bool) -> Dataset:
    """Return a row that stands for rows which need no preparation."""
    for name, columns in dataset.columns.items():
        needs = None if "input_ids" in columns else "have no 'input_ids'"
        if packs and "seq_lengths" not in columns:
            needs = "are as long as they are, and the trainer's packing=True packs what it prepares"
        if needs is not None:
            raise SamplerError(
                f"rows of domain {name!r} {needs}: give train_dataset={{domain: dataset, ...}} and"
                " mixture=function, which makes the MixtureLoader of the prepared datasets"
            )
    return Dataset.from_dict({"input_ids": [[0]], "labels": [[0]]})


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
        args = _checked(args)
        self._prepares = hasattr(super(), "_prepare_dataset")
        self._rows: Mapping[str, Any] = {}
        self._standing = self._row_for(mixture, train_dataset, args)
        options["train_dataset"] = self._standing
        super().__init__(*arguments, args=args, **options)  # type: ignore[call-arg]
        self.mixture = mixture if isinstance(mixture, Batches) else mixture(self._rows)
        self.train_dataset = getattr(self.mixture, "dataset", self.mixture)
        _check_passes(self.mixture, args.gradient_accumulation_steps)
        self._train_batch_size = _set_batch_size(args, self.mixture.sampler.rank_batch)
        self.mixture.accumulate(args.gradient_accumulation_steps)
        self._collate_with(options.get("data_collator"))
        self.add_callback(_SaveStates(self))  # type: ignore[attr-defined]

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
        self._rows = {n: prepare(one, *rest, **options) for n, one in self._rows.items()}
        for name, rows in self._rows.items():
            if not len(rows):
                raise SamplerError(
                    f"train_dataset: nothing of domain {name!r} is left when it is prepared: every"
                    " token is masked, or cut off by max_length"
                )
        return dataset

    def get_train_dataloader(self) -> Any:
        """Return the batches with `labels`."""
        return TrainerBatches(self.mixture, masks=self._prepares)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **options: Any) -> Any:
        """Take what is not for the model out of a batch; override to use `inputs['domain']`."""
        ours = self.mixture.fields.values()
        given = model_inputs(self.model, inputs, ours, self._unused_columns())  # type: ignore[attr-defined]
        return super().compute_loss(model, given, *rest, **options)  # type: ignore[misc]

    def log(self, logs: dict[str, float], *rest: Any, **options: Any) -> None:
        """Log the realised share of each domain as `mixture/<domain>` beside the training loss."""
        if "loss" in logs and isinstance(self.mixture, MixtureLoader):
            logs |= self.mixture.realised().metrics
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
            for name, one in self.stateful().items():
                one.load_state_dict(read_state(Path(resume_from_checkpoint) / name))
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **options)  # type: ignore[misc]

    def stateful(self) -> dict[str, Any]:
        """Return what has a state beside the Trainer's, by the file that it is saved in."""
        return {STATE_FILE: self.mixture}


class MixtureTrainer(MixtureTrainerMixin, Trainer):  # type: ignore[misc]
    """Hugging Face's Trainer on a mixture."""


class _SaveStates(TrainerCallback):  # type: ignore[misc]
    """Save the states of batches and driver beside the Trainer's."""

    def __init__(self, trainer: MixtureTrainerMixin) -> None:
        self._trainer = trainer

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Write the states; they are the same on every rank, which is checked."""
        check_ranks(self._trainer.mixture.sampler)
        for name, one in self._trainer.stateful().items():
            content = one.state_dict()  # every rank is asked
            if state.is_world_process_zero:
                folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                write_sealed(folder / name, content)


def _checked(args: TrainingArguments) -> TrainingArguments:
    """Return the arguments of a Trainer that skips no batches on resume."""
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
    """Let the Trainer count the rows that a rank gets, by which it reports its speed."""
    name, devices = "per_device_train_batch_size", max(1, args.n_gpu)
    given, default = args.per_device_train_batch_size, TrainingArguments.per_device_train_batch_size
    if given not in {default, rows // devices}:
        raise SamplerError(
            f"{name}={given}, but a rank gets {rows} rows of each batch of the sampler: leave it"
            f" out, or give MixtureSampler(batch_size=) of {given * devices} a rank"
        )
    args.per_device_train_batch_size = rows // devices
    return int(args.train_batch_size)


def _check_passes(mixture: Batches, accumulation: int) -> None:
    batches = mixture.sampler.batches
    if batches is not None and batches % accumulation:
        raise SamplerError(
            f"MixtureSampler(batches={batches}) with gradient_accumulation_steps={accumulation}:"
            " the Trainer would cut the last step of each pass short; give"
            f" batches={batches + -batches % accumulation}"
        )


def read_state(file: Path) -> Any:
    """Read a state that is saved beside the Trainer's."""
    if not file.exists():
        raise SamplerError(
            f"{file}: not found: the checkpoint was not made by such a Trainer; start with"
            " load_state_dict(state) and train() without it"
        )
    return read_sealed(file, hint="train from another checkpoint", error=SamplerError)


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
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **options: Any
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
