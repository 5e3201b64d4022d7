"""A trained model in float32: scoring of tasks, and export as a transformers folder.

Shapes: R rows, B windows or sequences in a pass, T tokens, V vocabulary, P scored tokens.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from mixopt.corpus import (
    RowBatches,
    Tokenizer,
    chosen_items,
    encode_task,
    export_tokenizer,
    open_tokenizer,
    read_items,
    saved_tokenizer,
    task_files,
    task_rows,
)
from mixopt.errors import PluginError, RunError, did_you_mean
from mixopt.pretraining.checkpoints import CHECKPOINTS, found_checkpoints
from mixopt.pretraining.config import ModelConfig
from mixopt.pretraining.directory import TOKENIZER
from mixopt.pretraining.model_start import open_origin
from mixopt.pretraining.models import causal_models, hugging_face_config, logits_of
from mixopt.pretraining.parallel import device_named
from mixopt.pretraining.transformers_folder import (
    folder_model,
    is_transformers_folder,
    load_folder,
    quietly,
)
from mixopt.reporting import table_text
from mixopt.system import Array, progress, writing

_SHARD = "5GB"  # maximum size of a weight file
TOLERANCE = 1e-5  # relative to the largest logit, at least 1
_PASS_TOKENS = 8192
_PASS_LOGITS = 1 << 27
_USUAL_LENGTH = 2048  # of a model without a maximum length
_COMPARED = 64  # tokens in each of two compared sequences


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A causal language model, its tokenizer, and its maximum length."""

    model: nn.Module
    tokenizer: Tokenizer
    length: int
    device: torch.device
    checkpoint: Path
    step: int

    @classmethod
    def open(
        cls,
        run: str | Path,
        *,
        checkpoint: str | None = None,
        device: str = "auto",
        trust: bool = False,
    ) -> TrainedModel:
        """Load a checkpoint of a pretraining, or a transformers model."""
        run = Path(run).expanduser()
        if is_transformers_folder(run) and not (run / CHECKPOINTS).exists():
            if checkpoint is not None:
                raise RunError(f"{run}: is one model, without checkpoints such as {checkpoint!r}")
            origin, tokenizer = open_origin(run), open_tokenizer(str(run))
        else:
            origin = open_origin(_checkpoint(run, checkpoint), trust=trust)
            name = origin.vocabulary.tokenizer if origin.vocabulary else ""
            tokenizer = saved_tokenizer(run / TOKENIZER, name)
        place = device_named(device)
        model = origin.module().to(place).eval().requires_grad_(False)
        length = origin.length or _USUAL_LENGTH
        return cls(model, tokenizer, length, place, origin.path, origin.step or 0)

    @torch.no_grad()
    def score(
        self,
        rows: Iterable[tuple[NDArray[Any], int]],
        update: Callable[[int, int], None] = lambda done, total: None,
    ) -> Array:
        """Return the log probability of each row's scored tokens, in nats, shape (R,)."""
        limit = min(_PASS_TOKENS, _PASS_LOGITS // self.tokenizer.vocab_size)
        read = RowBatches(rows, longest=self.length, tokens=limit)
        parts = [np.zeros(0)]
        for number, batch in enumerate(read.batches, start=1):
            tokens_BT, place_P, target_P = (
                torch.from_numpy(np.ascontiguousarray(part)).to(self.device)
                for part in (batch.tokens_BW[:, :-1], batch.place_P, batch.targets_P)
            )
            logits_PV = logits_of(self.model(tokens_BT)).flatten(0, 1)[place_P].float()
            losses_P = functional.cross_entropy(logits_PV, target_P, reduction="none")
            parts.append(losses_P.double().cpu().numpy())
            update(number, len(read.batches))
        return -read.sums(np.concatenate(parts))


def _checkpoint(run: Path, name: str | None) -> Path:
    known = {path.name: path for path in found_checkpoints(run / CHECKPOINTS)}
    if not known:
        raise RunError(
            f"{run}: has no checkpoints; give the directory of a mixopt pretrain, or a folder"
            " of transformers"
        )
    if name is not None and name not in known:
        near = did_you_mean(name, known)
        raise RunError(
            f"{run / CHECKPOINTS}: has no checkpoint {name!r}{near}; available: {', '.join(known)}"
        )
    return known[name or max(known)]


def score_tasks(
    run: str | Path,
    folder: str | Path,
    *,
    checkpoint: str | None = None,
    items: int | None = None,
    device: str = "auto",
    trust: bool = False,
) -> dict[str, Any]:
    """Score tasks with a checkpoint of a pretraining or a transformers model.

    Returns:
        `checkpoint`, its folder; `step`; `length`, the model's maximum length; and `tasks`, by
        name: `items`, `bits_per_byte` and `cut`, the number of items longer than `length`.
    """
    files = task_files(folder)
    chosen = {name: chosen_items(read_items(path), items) for name, path in files.items()}
    model = TrainedModel.open(run, checkpoint=checkpoint, device=device, trust=trust)
    tasks = [encode_task(name, some, model.tokenizer) for name, some in chosen.items()]
    with progress("scoring tasks", 1.0) as update:
        found_R = model.score(
            task_rows(tasks), lambda done, all: update(done / all, f"{done} of {all}")
        )
    parts = np.split(found_R, np.cumsum([task.rows for task in tasks])[:-1])
    scored = {
        task.name: {
            "items": task.rows,
            "bits_per_byte": task.bits_per_byte(part),
            "cut": int((np.diff(task.start_R) - 1 > model.length).sum()),
        }
        for task, part in zip(tasks, parts, strict=True)
    }
    about = {"checkpoint": str(model.checkpoint), "step": model.step, "length": model.length}
    return {**about, "tasks": scored}


def scores_text(scores: Mapping[str, Any]) -> str:
    """Return the scores as a table for the terminal."""
    title = f"{Path(scores['checkpoint']).name}, {scores['length']:,} tokens at once, float32"
    rows = [
        (name, f"{task['bits_per_byte']:.4f}", f"{task['items']:,}", f"{task['cut']:,}")
        for name, task in scores["tasks"].items()
    ]
    return table_text(title, ("task", "bits per byte", "items", "cut"), rows)


def export_model(
    run: str | Path, out: str | Path, *, step: int | None = None, trust: bool = False
) -> dict[str, Any]:
    """Export a checkpoint of a pretraining as a transformers model with its tokenizer.

    The export is loaded again and its logits are compared with the run's before the folder gets its
    name, so that it is a complete and equal model, or absent.

    Returns:
        `path`, the folder; `checkpoint`, the run's; `architecture`, the type in transformers;
        `parameters`, their number; `files`, their names; and `largest_logit_difference`.
    """
    name = None if step is None else f"step-{step:08d}"
    out = Path(out).expanduser()
    if out.exists():
        raise RunError(f"{out}: exists already; give a folder that does not")
    return write_export(TrainedModel.open(run, checkpoint=name, device="cpu", trust=trust), out)


def write_export(trained: TrainedModel, out: Path) -> dict[str, Any]:
    """Export a loaded model on the CPU (`export_model`)."""
    from transformers import GenerationConfig

    with _whole_or_not(out) as folder:
        kind = _write_model(trained, folder)
        export_tokenizer(trained.tokenizer, folder, length=trained.length)
        end = trained.tokenizer.end_of_document
        GenerationConfig(eos_token_id=end, pad_token_id=end).save_pretrained(folder)
        difference = _checked(trained, folder, kind)
        files = sorted(path.name for path in folder.iterdir())
    return {
        "path": str(out),
        "checkpoint": str(trained.checkpoint),
        "architecture": kind.name,
        "parameters": sum(weight.numel() for weight in trained.model.parameters()),
        "files": files,
        "largest_logit_difference": difference,
    }


def export_lines(export: Mapping[str, Any]) -> list[str]:
    """Return a summary of the export for the terminal."""
    size = f"{export['architecture']}, {export['parameters']:,} parameters"
    return [
        f"{export['path']}: {size}, from {Path(export['checkpoint']).name}",
        f"logits equal the run's: largest difference {export['largest_logit_difference']:.1e}",
        f'AutoModelForCausalLM.from_pretrained("{export["path"]}")',
    ]


@contextmanager
def _whole_or_not(out: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed if the block ends without an error."""
    folder = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with writing(out):
            folder.mkdir(parents=True)
            yield folder
            folder.replace(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_model(trained: TrainedModel, folder: Path) -> ModelConfig:
    """Write configuration and weights; return architecture and number of parameters."""
    from huggingface_hub import save_torch_state_dict
    from transformers import PreTrainedModel

    model, end = trained.model, trained.tokenizer.end_of_document
    if isinstance(model, PreTrainedModel):
        _adapt(model.config, end)
        with quietly():
            model.save_pretrained(folder, max_shard_size=_SHARD)
        return ModelConfig(name=model.config.model_type)
    form = getattr(model, "transformers_form", None)
    if form is None:
        raise PluginError(
            f"model {type(model).__name__}: has no form in transformers: it needs a method"
            " transformers_form (mixopt.pretraining.models says what it returns)"
        )
    values, weights = form()
    fields = {name: value for name, value in values.items() if name != "model_type"}
    kind = ModelConfig(name=values["model_type"], options=fields)
    config = hugging_face_config(kind)
    _adapt(config, end)
    config.architectures = [causal_models()[1][kind.name]]
    config.dtype = "float32"
    config.save_pretrained(folder)
    save_torch_state_dict(weights, folder, max_shard_size=_SHARD)
    return kind


def _adapt(config: Any, end: int) -> None:
    """Adjust the configuration from training to generation."""
    config.eos_token_id, config.use_cache = end, True
    if hasattr(config, "output_router_logits"):
        config.output_router_logits = False


@torch.no_grad()
def _checked(trained: TrainedModel, folder: Path, kind: ModelConfig) -> float:
    """Load the export, and return the largest difference of its logits from the run's."""
    written = load_folder(folder, folder_model(folder)).eval()
    draw, ids = torch.Generator().manual_seed(0), trained.tokenizer.vocab_size
    tokens_BT = torch.randint(ids, (2, min(_COMPARED, trained.length)), generator=draw)
    expected = logits_of(trained.model(tokens_BT)).float()
    difference = float((expected - logits_of(written(tokens_BT)).float()).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise RunError(
            f"{trained.checkpoint}: as {kind.name} its logits differ by {difference:.2g}, more than"
            f" rounding ({TOLERANCE:g}); nothing is written"
        )
    return difference
