"""Write a checkpoint as a folder that transformers loads: the library side of `export-model`.

A model of Hugging Face's is saved as it is; a plug-in says by `transformers_form` which one it
equals (mixopt.pretraining.models). What was written is loaded again, and its logits are compared
with the run's before the folder gets its name, so that DIR is a whole and equal model, or absent.

Shapes: B sequences, T tokens.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mixopt.corpus import export_tokenizer
from mixopt.errors import ConfigError, PluginError, RunError
from mixopt.pretraining.checkpoints import AVERAGE, OPTIMIZER, read_tensors
from mixopt.pretraining.models import causal_models, hugging_face_config, logits_of
from mixopt.pretraining.trained_model import TrainedModel
from mixopt.pretraining.training_config import ModelConfig
from mixopt.pretraining.transformers_folder import folder_model, load_folder, quietly

SHARD = "5GB"
TOLERANCE = 1e-5  # of the largest logit, or of 1
_COMPARED = (2, 64)
_SIZE = re.compile(r"[1-9]\d*(KB|MB|GB|TB)")


@dataclass(frozen=True)
class ModelExport:
    """What was written.

    Attributes:
        path: The folder.
        checkpoint: Where the weights are from.
        architecture: The model type in transformers.
        parameters: How many numbers its weights have.
        files: Names of the files, sorted.
        difference: The largest difference between its logits and the run's, on random tokens.
    """

    path: Path
    checkpoint: Path
    architecture: str
    parameters: int
    files: tuple[str, ...]
    difference: float

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {
            "path": str(self.path),
            "checkpoint": str(self.checkpoint),
            "architecture": self.architecture,
            "parameters": self.parameters,
            "files": list(self.files),
            "largest_logit_difference": self.difference,
        }


def export_model(
    run: str | Path,
    out: str | Path,
    *,
    step: int | None = None,
    averaged: bool = False,
    shard: str = SHARD,
    trust: bool = False,
) -> ModelExport:
    """Write a checkpoint of a pretraining as a model of transformers, with its tokenizer."""
    out = Path(out).expanduser()
    _check_absent(out)
    if _SIZE.fullmatch(shard) is None:
        raise ConfigError(f"--shard: {shard!r} is not a size such as 500MB or 5GB")
    name = None if step is None else f"step-{step:08d}"
    trained = TrainedModel.open(run, checkpoint=name, device="cpu", trust=trust)
    if averaged:
        _take_average(trained)
    return write_export(trained, out, shard=shard)


def write_export(trained: TrainedModel, out: Path, *, shard: str = SHARD) -> ModelExport:
    """Write a model that is open, on the CPU; see `export_model`."""
    from transformers import GenerationConfig

    _check_absent(out)
    with _whole_or_not(out) as folder:
        kind = _write_model(trained, folder, shard)
        export_tokenizer(trained.tokenizer, folder, length=trained.length)
        end = trained.tokenizer.end_of_document
        GenerationConfig(eos_token_id=end, pad_token_id=end).save_pretrained(folder)
        difference = _checked(trained, folder, kind)
        files = tuple(sorted(path.name for path in folder.iterdir()))
    parameters = sum(weight.numel() for weight in trained.model.parameters())
    return ModelExport(out, trained.checkpoint, kind.name, parameters, files, difference)


def export_lines(export: ModelExport) -> list[str]:
    """Return what was written, for a terminal."""
    size = f"{export.architecture}, {export.parameters:,} parameters"
    return [
        f"{export.path}: {size}, from {export.checkpoint.name}",
        f"logits equal the run's: largest difference {export.difference:.1e}",
        f'AutoModelForCausalLM.from_pretrained("{export.path}")',
    ]


def _take_average(trained: TrainedModel) -> None:
    """Give a model the average of its weights; what is not trained has none."""
    state = read_tensors(trained.checkpoint, OPTIMIZER, f".{AVERAGE}")
    if not state:
        raise RunError(
            f"{trained.checkpoint}: has no averaged weights: the run has no training.ema_decay"
        )
    for name, weight in trained.model.named_parameters():
        if (average := state.get(f"state.{name}.{AVERAGE}")) is not None:
            weight.data.copy_(average)


def _check_absent(out: Path) -> None:
    if out.exists():
        raise RunError(f"{out}: exists already; give a folder that does not")


@contextmanager
def _whole_or_not(out: Path) -> Iterator[Path]:
    """Give a folder that gets its name when the block ends without an error."""
    folder = out.with_name(f".{out.name}.tmp")
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        yield folder
        folder.replace(out)
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_model(trained: TrainedModel, folder: Path, shard: str) -> ModelConfig:
    """Write configuration and weights; return what the model is."""
    from huggingface_hub import save_torch_state_dict
    from transformers import PreTrainedModel

    model, end = trained.model, trained.tokenizer.end_of_document
    if isinstance(model, PreTrainedModel):
        _adapt(model.config, end)
        with quietly():
            model.save_pretrained(folder, max_shard_size=shard)
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
    save_torch_state_dict(weights, folder, max_shard_size=shard)
    return kind


def _adapt(config: Any, end: int) -> None:
    """Set what generating wants, where training wanted something else."""
    config.eos_token_id, config.use_cache = end, True
    if hasattr(config, "output_router_logits"):
        config.output_router_logits = False


def _checked(trained: TrainedModel, folder: Path, kind: ModelConfig) -> float:
    """Load what was written, and return by how much its logits differ from the run's."""
    written = load_folder(folder, folder_model(folder)).eval()
    sequences, length = _COMPARED
    draw = torch.Generator().manual_seed(0)
    ids = trained.tokenizer.vocab_size
    tokens_BT = torch.randint(ids, (sequences, min(length, trained.length)), generator=draw)
    with torch.no_grad():
        expected = logits_of(trained.model(tokens_BT)).float()
        found = logits_of(written(tokens_BT)).float()
    difference = float((expected - found).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise RunError(
            f"{trained.checkpoint}: as {kind.name} its logits differ by {difference:.2g}, more than"
            f" rounding ({TOLERANCE:g}); nothing is written"
        )
    return difference
