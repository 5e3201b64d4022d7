"""Score tasks with a trained model in float32, and export it as a transformers folder.

Shapes: B windows or sequences in a pass, T tokens, V vocabulary, P scored tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mixopt.corpus import (
    RowBatches,
    Tokenizer,
    chosen_items,
    encode_task,
    export_tokenizer,
    read_items,
    task_files,
    task_rows,
)
from mixopt.errors import PluginError, RunError
from mixopt.pretraining.config import ModelConfig
from mixopt.pretraining.model_start import open_origin
from mixopt.pretraining.models import (
    causal_models,
    folder_model,
    hugging_face_config,
    load_folder,
    logits_of,
    quietly,
)
from mixopt.pretraining.ranks import device_named
from mixopt.reporting import table_text
from mixopt.system import Array, progress, writing

_SHARD = "5GB"  # maximum size of a weight file
TOLERANCE = 1e-5  # relative to the largest logit, at least 1
_PASS_TOKENS = 8192  # maximum tokens of a pass
_PASS_LOGITS = 1 << 27  # maximum logits of a pass
USUAL_LENGTH = 2048  # tokens of a sequence, for a model without a maximum length
_COMPARED = 64  # tokens in each of two compared sequences


def score_tasks(
    path: str | Path,
    folder: str | Path,
    *,
    items: int | None = None,
    device: str = "auto",
    trust: bool = False,
) -> dict[str, Any]:
    """Score tasks with a model.

    Args:
        path: A pretraining, one of its checkpoints or a transformers model, as for `open_origin`.
        folder: Folder of `tasks/*.jsonl`.
        items: Items of each task; None: all.
        device: `auto`, `cpu` or `cuda`.
        trust: Whether code named by the run directory may be imported.

    Returns:
        `checkpoint`, its folder; `step`; `length`, the model's maximum length; and `tasks`, by
        name: `items`, `bits_per_byte` and `cut`, the number of items longer than `length`.
    """
    files = task_files(folder)
    chosen = {name: chosen_items(read_items(file), items) for name, file in files.items()}
    origin = open_origin(path, trust=trust)
    chosen_device = device_named(device)
    tokenizer = origin.tokenizer()
    length = origin.length or USUAL_LENGTH
    tasks = [encode_task(name, rows, tokenizer) for name, rows in chosen.items()]
    limit = min(_PASS_TOKENS, _PASS_LOGITS // tokenizer.vocab_size)
    batches = RowBatches(task_rows(tasks), longest=length, tokens=limit)
    model = origin.module().to(chosen_device).eval()
    log_P = _log_probabilities(model, batches, chosen_device)
    ends = np.cumsum([task.rows for task in tasks])
    parts = np.split(batches.sums(log_P), ends[:-1])
    scores: dict[str, Any] = {}
    for task, part in zip(tasks, parts, strict=True):
        lengths_R = np.diff(task.start_R) - 1
        scores[task.name] = {
            "items": task.rows,
            "bits_per_byte": task.bits_per_byte(part),
            "cut": int((lengths_R > length).sum()),
        }
    step = origin.step or 0
    return {"checkpoint": str(origin.path), "step": step, "length": length, "tasks": scores}


@torch.no_grad()
def _log_probabilities(model: nn.Module, rows: RowBatches, device: torch.device) -> Array:
    """Return the log probability of each scored token, in nats, shape (P,)."""
    parts = [np.zeros(0)]
    with progress("scoring tasks", len(rows.batches)) as update:
        for number, batch in enumerate(rows.batches, start=1):
            tokens_BT = torch.from_numpy(np.ascontiguousarray(batch.tokens_BW[:, :-1])).to(device)
            place_P = torch.from_numpy(np.ascontiguousarray(batch.place_P)).to(device)
            target_P = torch.from_numpy(np.ascontiguousarray(batch.targets_P)).to(device)
            logits_PV = logits_of(model(tokens_BT)).flatten(0, 1)[place_P].float()
            losses_P = functional.cross_entropy(logits_PV, target_P, reduction="none")
            parts.append(-losses_P.double().cpu().numpy())
            update(number, f"{number} of {len(rows.batches)}")
    return np.concatenate(parts)


def scores_text(scores: Mapping[str, Any]) -> str:
    """Return the scores as a table for the terminal."""
    title = f"{Path(scores['checkpoint']).name}, {scores['length']:,} tokens at once, float32"
    rows = [
        (name, f"{task['bits_per_byte']:.4f}", f"{task['items']:,}", f"{task['cut']:,}")
        for name, task in scores["tasks"].items()
    ]
    return table_text(title, ("task", "bits per byte", "items", "cut"), rows)


def export_model(path: str | Path, out: str | Path, *, trust: bool = False) -> dict[str, Any]:
    """Export a model as a transformers folder with its tokenizer.

    The export is loaded again and its logits are compared with the run's before the folder gets its
    name, so that it is a complete and equal model, or absent.

    Args:
        path: A pretraining, or one of its checkpoints, as for `open_origin`.
        out: The folder to write.
        trust: Whether code named by the run directory may be imported.

    Returns:
        `path`, the folder; `checkpoint`, the run's; `architecture`, the type in transformers;
        `parameters`, their number; `files`, their names; and `largest_logit_difference`.
    """
    out = Path(out).expanduser()
    if out.exists():
        raise RunError(f"{out}: exists already; give a folder that does not")
    origin = open_origin(path, trust=trust)
    name = str(origin.path)
    length = origin.length or USUAL_LENGTH
    export = write_export(origin.module().eval(), origin.tokenizer(), length, out, name)
    return {"path": str(out), "checkpoint": name} | export


def write_export(
    model: nn.Module, tokenizer: Tokenizer, length: int, out: Path, name: str
) -> dict[str, Any]:
    """Export a model on the CPU (`export_model`); `name` is for errors."""
    from transformers import GenerationConfig

    end = tokenizer.end_of_document
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{out.name}", dir=out.parent) as temporary:
            folder = Path(temporary) / out.name
            folder.mkdir()
            kind = _write_model(model, end, folder)
            export_tokenizer(tokenizer, folder, length=length)
            GenerationConfig(eos_token_id=end, pad_token_id=end).save_pretrained(folder)
            written = load_folder(folder, folder_model(folder)).eval()
            draw = torch.Generator().manual_seed(0)
            shape = (2, min(_COMPARED, length))
            tokens_BT = torch.randint(tokenizer.vocab_size, shape, generator=draw)
            with torch.no_grad():
                logits_BTV = logits_of(model(tokens_BT)).float()
                written_BTV = logits_of(written(tokens_BT)).float()
            difference = float((logits_BTV - written_BTV).abs().max())
            scale = max(1.0, float(logits_BTV.abs().max()))
            if not difference <= TOLERANCE * scale:
                raise RunError(
                    f"{name}: as {kind} its logits differ by {difference:.2g}, more than rounding"
                    f" ({TOLERANCE:g}); nothing is written"
                )
            files = sorted(path.name for path in folder.iterdir())
            folder.replace(out)
    return {
        "architecture": kind,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "files": files,
        "largest_logit_difference": difference,
    }


def _write_model(model: nn.Module, end: int, folder: Path) -> str:
    """Write configuration and weights; return the type in transformers."""
    from huggingface_hub import save_torch_state_dict
    from transformers import PreTrainedModel

    form = getattr(model, "transformers_form", None)
    weights: dict[str, torch.Tensor] = {}
    if isinstance(model, PreTrainedModel):
        config: Any = model.config
    elif form is not None:
        fields, weights = form()
        options = dict(fields)
        kind = options.pop("model_type")
        config = hugging_face_config(ModelConfig(name=kind, options=options))
        _, classes = causal_models()
        config.architectures = [classes[kind]]
        config.dtype = "float32"
    else:
        raise PluginError(
            f"model {type(model).__name__}: has no form in transformers: it needs a method"
            " transformers_form (mixopt.pretraining.models says what it returns)"
        )
    config.eos_token_id = end
    config.use_cache = True  # for generation
    if hasattr(config, "output_router_logits"):
        config.output_router_logits = False
    if isinstance(model, PreTrainedModel):
        with quietly():
            model.save_pretrained(folder, max_shard_size=_SHARD)
    else:
        config.save_pretrained(folder)
        save_torch_state_dict(weights, folder, max_shard_size=_SHARD)
    return str(config.model_type)
