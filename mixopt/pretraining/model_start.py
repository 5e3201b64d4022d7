"""What a run's model starts from, as `model.from` says: found, checked, recorded and loaded.

It is opened once, before the first step. The resolved configuration then has all that builds the
model, so that a run that has a checkpoint of its own resumes even when its origin is gone; while
that is there, it must not have changed.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn, optim

from mixopt.errors import ConfigError, MixoptError, RunError
from mixopt.pretraining.checkpoint_files import STATE, last_checkpoint
from mixopt.pretraining.checkpoints import load_optimizer
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.directory import CHECKPOINTS, recorded_config
from mixopt.pretraining.hub_model import hub_folder, is_hub_name
from mixopt.pretraining.model_config import ModelConfig, OriginConfig, VocabularyConfig
from mixopt.pretraining.model_origin import ModelOrigin, fill, open_origin
from mixopt.pretraining.models import build_model
from mixopt.pretraining.text_vocabulary import (
    check_same_vocabulary,
    expected_vocabulary,
    text_vocabulary,
)
from mixopt.pretraining.transformers_folder import load_folder, unfilled_folder_model
from mixopt.system import Say, checked_as, local_path


def with_origin(config: PretrainConfig, out: Path) -> tuple[PretrainConfig, ModelOrigin | None]:
    """Return the configuration with what its model is, and the checkpoint that it starts from.

    Args:
        config: The run's.
        out: Its directory.

    Returns:
        No origin where the model starts from random weights, or the run resumes.

    Raises:
        MixoptError: `model.from` cannot be used, or has changed since the run was begun.
    """
    before = _recorded(out)
    if before is not None:
        return _resumed(config, before), None
    if config.model.start is None:
        return config, None
    origin = open_origin(config.model.start, trust=(config.model.name,))
    _check(config, origin)
    _check_expected(config, out, origin)
    origin = origin.with_options(config.model.options)
    record = OriginConfig(checkpoint=origin.checkpoint, sha256=origin.sha256)
    return _with_model(config, origin.model, origin=record), origin


def with_vocabulary(
    config: PretrainConfig, out: Path, origin: ModelOrigin | None, say: Say
) -> PretrainConfig:
    """Return the configuration with what the ids of its text stand for, which is prepared already.

    Args:
        config: The run's.
        out: Its directory.
        origin: What it starts from, if anything.
        say: Receives a line about that.

    Raises:
        ConfigError: The ids of the text are not those of the model.
    """
    text, before = text_vocabulary(config, out), config.model.vocabulary
    if before is not None:
        _check_resumed(before, text, out)
    if origin is not None:
        line = check_same_vocabulary(origin.vocabulary, origin.vocab_size, text, origin.checkpoint)
        if line is not None:
            say(f"pretrain: {line}")
        say(f"pretrain: {_start_line(config, origin)}")
    return _with_model(config, config.model, vocabulary=text)


def initial_model(config: PretrainConfig, vocab_size: int, out: Path) -> nn.Module:
    """Return the model of a run on the CPU in float32, the same in every process.

    It has the weights that the run starts from, unless a checkpoint of its own replaces them.

    Args:
        config: The run's, resolved.
        vocab_size: Ids of the text.
        out: The directory.

    Raises:
        MixoptError: The model cannot be built, or the weights do not fit it.
    """
    path = _weights_path(config, out)
    if path is not None and not (path / STATE).exists():
        return load_folder(path, config.model)
    model = _built(config, vocab_size)
    if path is not None:
        fill(model, path)
    return model


def unfilled_model(config: PretrainConfig, vocab_size: int, out: Path) -> nn.Module:
    """Return the model that `initial_model` returns on torch's meta device, without its weights.

    Args:
        config: The run's, resolved.
        vocab_size: Ids of the text.
        out: The directory.

    Raises:
        Exception: Whatever the constructor raises where it asks for values.
    """
    path = _weights_path(config, out)
    if path is not None and not (path / STATE).exists():
        return unfilled_folder_model(config.model)
    with torch.device("meta"):
        return _built(config, vocab_size)


def take_optimizer(config: PretrainConfig, model: nn.Module, optimizer: optim.Optimizer) -> None:
    """Fill the optimiser from what the run starts from, where it has a state; every rank calls it.

    Raises:
        RunError: It is of another model.
    """
    path = _origin_path(config)
    if path is not None and (path / STATE).exists() and config.model.optimizer is not False:
        load_optimizer(path, model, optimizer)


def _recorded(out: Path) -> ModelConfig | None:
    """Return the model that a run that resumes was begun with."""
    if last_checkpoint(out / CHECKPOINTS) is None:
        return None
    record = out / "config.yaml"
    content = recorded_config(record).get("model")
    if content is None:  # open_directory says what the record lacks
        return None
    model: ModelConfig = checked_as(ModelConfig, content, f"{record}: model")
    return model


def _resumed(config: PretrainConfig, before: ModelConfig) -> PretrainConfig:
    """Return the configuration with what was recorded; what is asked differently is kept."""
    model = config.model
    if model.start is None:
        return _with_model(config, model, vocabulary=before.vocabulary)
    if before.origin is not None:
        _check_unchanged(before.origin, model)
    named = ModelConfig(name=model.name or before.name, options={**before.options, **model.options})
    return _with_model(config, named, origin=before.origin, vocabulary=before.vocabulary)


def _check_unchanged(origin: OriginConfig, model: ModelConfig) -> None:
    """Refuse weights that are still there and are others than those that a run began with."""
    if not local_path(origin.checkpoint).exists():
        return
    mend = "restore it, or move it away to resume without it"
    try:
        now = open_origin(origin.checkpoint, trust=(model.name,))
    except MixoptError as error:
        raise RunError(f"{error}; this run started from it: {mend}") from error
    if now.sha256 != origin.sha256:
        raise RunError(
            f"{origin.checkpoint}: has other weights ({now.sha256[:8]}) than when this run started"
            f" from it ({origin.sha256[:8]}): {mend}"
        )


def _check_resumed(before: VocabularyConfig, text: VocabularyConfig, out: Path) -> None:
    if None not in (before.sha256, text.sha256) and before.sha256 != text.sha256:
        raise ConfigError(
            f"{out}: the run was begun with the tokenizer {before.tokenizer!r}"
            f" ({before.ids:,} ids), and the corpus has another, {text.tokenizer!r}"
            f" ({text.ids:,} ids); give a corpus of that tokenizer"
        )


def _check(config: PretrainConfig, origin: ModelOrigin) -> None:
    model, where = config.model, origin.checkpoint
    if model.name and model.name != origin.model.name:
        raise ConfigError(
            f"model.name: {model.name!r}, and {where} is of {origin.model.name!r}: leave it out"
        )
    if model.optimizer and not origin.is_ours:
        raise ConfigError(
            f"model.optimizer: true, and {where} has no optimizer's state: leave it out"
        )
    positions = None if origin.is_ours else origin.length
    changed = {"max_position_embeddings", "n_positions"} & set(model.options)
    if positions is not None and config.training.sequence_length > positions and not changed:
        raise ConfigError(
            f"training.sequence_length: {config.training.sequence_length}, and {where} has"
            f" max_position_embeddings {positions}: lower it, or set"
            " model.options.max_position_embeddings"
        )


def _check_expected(config: PretrainConfig, out: Path, origin: ModelOrigin) -> None:
    """Refuse another vocabulary before text is read for hours, where it is known already."""
    text = expected_vocabulary(config, out)
    if text is not None:
        check_same_vocabulary(origin.vocabulary, origin.vocab_size, text, origin.checkpoint)


def _start_line(config: PretrainConfig, origin: ModelOrigin) -> str:
    step = "" if origin.step is None else f"step {origin.step:,}, "
    taken = origin.is_ours and config.model.optimizer is not False
    return (
        f"starts from {origin.checkpoint} ({step}weights {origin.sha256[:8]}),"
        f" {'with its' if taken else 'without an'} optimizer's state; steps count from 0"
    )


def _built(config: PretrainConfig, vocab_size: int) -> nn.Module:
    return build_model(
        config.model,
        vocab_size=vocab_size,
        sequence_length=config.training.sequence_length,
        seed=config.seed,
    )


def _weights_path(config: PretrainConfig, out: Path) -> Path | None:
    """Return where the first weights of a run are, unless a checkpoint of its own has others."""
    return None if last_checkpoint(out / CHECKPOINTS) is not None else _origin_path(config)


def _origin_path(config: PretrainConfig) -> Path | None:
    origin = config.model.origin
    if config.model.start is None or origin is None:
        return None
    path = local_path(origin.checkpoint)
    if path.exists() or not is_hub_name(origin.checkpoint):
        return path
    return hub_folder(origin.checkpoint)


def _with_model(config: PretrainConfig, model: ModelConfig, **fields: object) -> PretrainConfig:
    """Return the configuration with the name and options of a model, and some of its fields."""
    named = {"name": model.name, "options": model.options, **fields}
    return config.model_copy(update={"model": config.model.model_copy(update=named)})
