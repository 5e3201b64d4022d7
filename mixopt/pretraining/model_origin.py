"""What a model starts from: a checkpoint of `mixopt pretrain`, a folder of transformers, the hub.

`open_origin` checks files and hashes and reads what the model is; weights are read by `module`. A
name that a run directory records is imported where it is an entry point alone: a plug-in by its
path is code, which a user's own configuration names (mixopt.system.plugins).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mixopt.corpus import VocabularyIdentity, folder_vocabulary
from mixopt.errors import MixoptError, PluginError, RunError
from mixopt.pretraining.checkpoint_files import (
    STATE,
    CheckpointState,
    file_fault,
    found_checkpoints,
    older_checkpoint,
    read_state,
)
from mixopt.pretraining.checkpoint_tensors import MODEL, OPTIMIZER, read_tensors
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.directory import CHECKPOINTS, recorded_config
from mixopt.pretraining.hub_model import hub_folder, is_hub_name, pinned_name
from mixopt.pretraining.model_config import ModelConfig, VocabularyConfig
from mixopt.pretraining.models import build_model, hugging_face_config
from mixopt.pretraining.text_vocabulary import recorded_vocabulary
from mixopt.pretraining.transformers_folder import (
    folder_model,
    folder_records,
    is_transformers_folder,
    load_folder,
)
from mixopt.system import Trust, check_links, checked_as, local_path

_POSITIONS = re.compile(r"(^|[._])(embed_positions|position_embeddings?|wpe)[._]")
_EXPECTED = (
    "expected a folder of transformers (config.json and safetensors), the directory of a mixopt"
    " pretrain, or one of its checkpoints"
)


@dataclass(frozen=True, eq=False)
class ModelOrigin:
    """A checkpoint that a model starts from.

    Attributes:
        path: The folder with its weights.
        checkpoint: What a run records: the same, or a name on the hub with its revision.
        model: What the model is built from, its vocabulary's size among the options.
        vocab_size: Ids that it was built for.
        length: Most tokens that it was trained on, or built for, at once; None where not known.
        vocabulary: What its ids stand for; None where no tokenizer is with it.
        sha256: A hash over those of its files of weights.
        run: The configuration of its run; None of another tool's.
        step: Steps that were taken in that run; None of another tool's.
    """

    path: Path
    checkpoint: str
    model: ModelConfig
    vocab_size: int
    length: int | None
    vocabulary: VocabularyIdentity | None
    sha256: str
    run: PretrainConfig | None
    step: int | None

    @property
    def is_ours(self) -> bool:
        """Whether it is a checkpoint of `mixopt pretrain`, which has the optimiser's state."""
        return self.step is not None

    def with_options(self, options: Mapping[str, Any]) -> ModelOrigin:
        """Return the same with some options of its model replaced."""
        model = self.model.model_copy(update={"options": self.model.options | dict(options)})
        return replace(self, model=model)

    def module(self, *, sequence_length: int | None = None) -> nn.Module:
        """Return the model with its weights, in float32 on the CPU; needs no process group.

        Args:
            sequence_length: Most tokens that it will read at once; its own when None.

        Raises:
            MixoptError: The weights do not fit the model, or cannot be read.
        """
        if not self.is_ours:
            return load_folder(self.path, self.model)
        length = sequence_length or self.length or 1
        model = build_model(self.model, vocab_size=self.vocab_size, sequence_length=length, seed=0)
        fill(model, self.path)
        return model

    def optimizer_tensors(self) -> dict[str, Tensor] | None:
        """Return the optimiser's state by names such as `state.embedding.exp_avg`.

        They are those of torch.distributed's flat optimiser state dictionary. None where the
        checkpoint is another tool's.

        Raises:
            RunError: The shards cannot be read.
        """
        return read_tensors(self.path, OPTIMIZER) if self.is_ours else None


def open_origin(path: str | Path, *, trust: Trust = False) -> ModelOrigin:
    """Open what a model starts from: check its files, and read what it is.

    Args:
        path: The directory of a `mixopt pretrain` (its newest checkpoint is meant, and refused
            where it is damaged), one of its checkpoints, a folder of transformers, or a name on
            the hub.
        trust: Whether a model that a run directory names by a path may be imported, or such names.

    Raises:
        RunError: There is nothing of the kind, or it is damaged.
        MixoptError: The model or its tokenizer cannot be used.
    """
    given = str(path)
    folder = local_path(given)
    if not folder.exists() and is_hub_name(given):
        folder = hub_folder(given)
        return _of_folder(folder, pinned_name(given, folder))
    if not folder.is_dir():
        raise RunError(f"model.from: {given!r}: no such folder; {_EXPECTED}")
    if (folder / STATE).exists() or folder.parent.name == CHECKPOINTS:
        return _of_checkpoint(folder, trust)
    if (folder / CHECKPOINTS).is_dir():
        return _of_checkpoint(_newest(folder / CHECKPOINTS), trust)
    if is_transformers_folder(folder):
        return _of_folder(folder, str(folder))
    if (folder / "config.yaml").exists():
        raise RunError(f"{folder}: the run has no checkpoints yet; {_EXPECTED}")
    raise RunError(f"model.from: {given!r}: has no model; {_EXPECTED}")


def fill(model: nn.Module, checkpoint: Path) -> None:
    """Give a model the weights of a checkpoint of `mixopt pretrain`, in one process.

    Raises:
        RunError: They are of another model.
    """
    tensors = read_tensors(checkpoint, MODEL)
    saved = model.state_dict()
    places: dict[str, Tensor] = dict(model.named_parameters())
    places |= {name: one for name, one in model.named_buffers() if name in saved}
    for name in (*places, *tensors):
        if name not in tensors or name not in places:
            absent = name not in tensors
            what, here = ("lacks", "has") if absent else ("has", "does not have")
            raise RunError(
                f"{checkpoint}: {what} the weight {name!r}, which the model {here}: {_OTHER}"
            )
    for name, place in places.items():
        if place.shape != tensors[name].shape:
            saved_as, built_as = tuple(tensors[name].shape), tuple(place.shape)
            raise RunError(
                f"{checkpoint}: weight {name!r} has shape {saved_as}, and in the model {built_as}:"
                f" {_positions_mend(model, name, saved_as, built_as) or _OTHER}"
            )
        place.data.copy_(tensors[name])


def weights_hash(hashes: Mapping[str, str]) -> str:
    """Return one hash for files of weights, from the SHA-256 of each by its name."""
    text = "".join(f"{name} {hashes[name]}\n" for name in sorted(hashes))
    return hashlib.sha256(text.encode()).hexdigest()


_OTHER = "it is of another model; leave out model.name and model.options that change its shape"


def _positions_mend(
    model: nn.Module, name: str, there: tuple[int, ...], here: tuple[int, ...]
) -> str | None:
    """Say what fixes another number of learned positions; None where a weight is no table of them.

    Args:
        model: As it was built.
        name: Of the weight.
        there: Its shape in the checkpoint.
        here: In the model.
    """
    built_for = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    is_table = _POSITIONS.search(name) is not None and len(there) == 2 and there[1:] == here[1:]
    if not (is_table and isinstance(built_for, int)):
        return None
    known = built_for + there[0] - here[0]  # tables of some families have rows beside positions
    option = f"it learned {known} positions: set model.options.max_position_embeddings: {known}"
    return option + (f", and training.sequence_length to {known} or less" * (known < built_for))


def _newest(folder: Path) -> Path:
    found = found_checkpoints(folder)
    if not found:
        raise RunError(f"{folder}: the run has no checkpoints; {_EXPECTED}")
    return found[-1]


def _of_checkpoint(path: Path, trust: Trust) -> ModelOrigin:
    """Open a checkpoint, whose run's directory says what the model is."""
    run = path.resolve().parent.parent
    if not (run / "config.yaml").exists():
        raise RunError(
            f"{path}: config.yaml of its run is not beside {CHECKPOINTS}; keep a checkpoint in its"
            " run's directory"
        )
    if trust is False:  # what a user's own configuration starts from may have links
        check_links(run)
    record = str(run / "config.yaml")
    config: PretrainConfig = checked_as(
        PretrainConfig, recorded_config(run / "config.yaml"), record
    )
    _check_name(config.model.name, record, trust)
    state = _whole(path)
    text = recorded_vocabulary(config, run)
    options = {k: v for k, v in config.model.options.items() if k != "attn_implementation"}
    options.setdefault("vocab_size", text.ids)
    return ModelOrigin(
        path=path,
        checkpoint=str(path),
        model=ModelConfig(name=config.model.name, options=options),
        vocab_size=options["vocab_size"],
        length=config.training.sequence_length,
        vocabulary=_identity(text),
        sha256=weights_hash(_shards(state)),
        run=config,
        step=state.step,
    )


def _identity(text: VocabularyConfig) -> VocabularyIdentity | None:
    if text.sha256 is None:
        return None
    return VocabularyIdentity(text.tokenizer, text.ids, text.sha256)


def _shards(state: CheckpointState) -> dict[str, str]:
    return {n: file.sha256 for n, file in state.files.items() if n.endswith(".safetensors")}


def _whole(path: Path) -> CheckpointState:
    """Return what a checkpoint holds besides tensors; a damaged one is never passed over."""
    try:
        state = read_state(path)
        fault = file_fault(path, state)
    except MixoptError as error:
        raise RunError(f"{error}; {_instead(path)}") from error
    if fault is not None:
        raise RunError(f"{fault}; {_instead(path)}")
    return state


def _instead(path: Path) -> str:
    """Say what to start from where a checkpoint is damaged: the one before it, if there is one."""
    older = older_checkpoint(path)
    if older is None:
        return "the run has no older checkpoint"
    return f"to start from an older checkpoint, name it: model.from: {older}"


def _check_name(name: str, record: str, trust: Trust) -> None:
    trusted = trust if isinstance(trust, bool) else name in trust
    if ":" in name and not trusted:
        raise PluginError(
            f"{record}: names the model {name!r}, which is code; if you trust it, set model.name:"
            f" {name} in your own configuration"
        )


def _of_folder(folder: Path, checkpoint: str) -> ModelOrigin:
    model = folder_model(folder)
    records = folder_records(folder)
    vocabulary = folder_vocabulary(folder)
    size = model.options.get("vocab_size")
    if not isinstance(size, int):
        raise RunError(f"{folder / 'config.json'}: vocab_size: is missing")
    length = getattr(hugging_face_config(model), "max_position_embeddings", None)
    return ModelOrigin(
        path=folder,
        checkpoint=checkpoint,
        model=model,
        vocab_size=size,
        length=length if isinstance(length, int) else None,
        vocabulary=vocabulary,
        sha256=weights_hash({name: one.sha256 for name, one in records.items()}),
        run=None,
        step=None,
    )
