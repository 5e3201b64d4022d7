"""The start checkpoint of a model (`model.from`): find, check, record and load it.

The resolved configuration can build the model, so that a run with its own checkpoint resumes even
if the start checkpoint is gone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn, optim

from mixopt.corpus import Tokenizer, folder_vocabulary, open_tokenizer, saved_tokenizer
from mixopt.errors import ConfigError, MixoptError, PluginError, RunError
from mixopt.pretraining.checkpoints import (
    CHECKPOINTS,
    OPTIMIZER,
    STATE,
    CheckpointState,
    found_checkpoints,
    last_checkpoint,
    load_training,
    read_tensors,
    whole_state,
)
from mixopt.pretraining.config import ModelConfig, OriginConfig, PretrainConfig, VocabularyConfig
from mixopt.pretraining.directory import (
    TOKENIZER,
    corpus_folder,
    recorded_pretraining,
    text_vocabulary,
)
from mixopt.pretraining.models import (
    CONFIG,
    build_model,
    folder_model,
    folder_records,
    hugging_face_config,
    load_folder,
    local_folder,
)
from mixopt.system import FileRecord, Say, Trust, check_links, local_path

_EXPECTED = (
    "expected a folder of transformers (config.json and safetensors), the directory of a mixopt"
    " pretrain, or one of its checkpoints"
)


@dataclass(frozen=True, eq=False)
class ModelOrigin:
    """A checkpoint that a model starts from.

    Attributes:
        path: The folder of its weights.
        checkpoint: Name to record: the folder, or the hub's name with revision.
        model: Configuration of the model, with `vocab_size` among its options.
        length: Maximum sequence length of training or model; None if unknown.
        vocabulary: Vocabulary of its ids; None without a tokenizer.
        sha256: Hash over the hashes of its weight files.
        run: Configuration of its run; None for other tools' models.
        step: Steps of that run; None for other tools' models.
    """

    path: Path
    checkpoint: str
    model: ModelConfig
    length: int | None
    vocabulary: VocabularyConfig | None
    sha256: str
    run: PretrainConfig | None = None
    step: int | None = None

    @property
    def _ids(self) -> int:
        return int(self.model.options["vocab_size"])

    def module(self) -> nn.Module:
        """Return the model with its weights in float32 on the CPU, without a process group."""
        if self.run is None:
            return load_folder(self.path, self.model)
        model = build_model(self.model, self._ids, self.length or 1, seed=0)
        load_training(self.path, model, None)
        return model

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer of its ids."""
        if self.run is None:
            return open_tokenizer(str(self.path))
        name = "" if self.vocabulary is None else self.vocabulary.tokenizer
        run_directory = self.path.resolve().parent.parent
        return saved_tokenizer(run_directory / TOKENIZER, name)

    def compared(self, text: VocabularyConfig) -> str | None:
        """Check the model's vocabulary against a text's; return what could not be compared."""
        if _are_compared(self.checkpoint, self.vocabulary, text):
            return None
        sizes = (
            f"has {self._ids:,} ids, and the corpus's tokenizer {text.tokenizer!r} has {text.ids:,}"
        )
        if text.ids > self._ids:
            raise ConfigError(
                f"{self.checkpoint}: {sizes}; prepare the corpus with the model's tokenizer"
            )
        without = "the model" if self.vocabulary is None else "the corpus"
        return (
            f"{self.checkpoint}: its tokenizer could not be compared with the corpus's, since"
            f" {without} comes without a tokenizer; it {sizes}"
        )

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Return the optimizer state, if any, by names such as `state.embedding.exp_avg`."""
        if self.run is None:
            return {}
        return read_tensors(self.path, OPTIMIZER)


def open_origin(path: str | Path, *, trust: Trust = False) -> ModelOrigin:
    """Open a start checkpoint: verify its files and read its description.

    Args:
        path: The directory of a `mixopt pretrain` (for its newest checkpoint), one of its
            checkpoints, a transformers folder, or a name on the hub.
        trust: Whether code named by a run directory may be imported, or the names that may be.

    Raises:
        MixoptError: It is missing, damaged or of an unsupported kind.
    """
    name = str(path)
    folder = local_folder(name)
    if not folder.is_dir():
        raise RunError(f"{name!r}: no such folder; {_EXPECTED}")
    if folder != local_path(name):
        hub_name = name.partition("@")[0]
        return _of_folder(folder, f"{hub_name}@{folder.name}")
    is_checkpoint = (folder / STATE).exists() or folder.parent.name == CHECKPOINTS
    checkpoint = folder if is_checkpoint else last_checkpoint(folder / CHECKPOINTS)
    if checkpoint is not None:
        return _of_checkpoint(checkpoint, trust)
    if (folder / CONFIG).exists() or any(folder.glob("*.safetensors")):
        return _of_folder(folder, str(folder))
    is_run = (folder / "config.yaml").exists()
    fault = "the run has no checkpoints yet" if is_run else "has no model"
    raise RunError(f"{name!r}: {fault}; {_EXPECTED}")


@contextmanager
def field_named(field: str) -> Iterator[None]:
    """Name the field of a configuration in errors about its start checkpoint."""
    try:
        yield
    except MixoptError as error:
        raise type(error)(f"{field}: {error}") from error


def with_origin(config: PretrainConfig, out: Path) -> tuple[PretrainConfig, ModelOrigin | None]:
    """Return the configuration completed by the model and start checkpoint."""
    if last_checkpoint(out / CHECKPOINTS) is not None:
        return _with_recorded_origin(config, out), None
    model = config.model
    if model.start is None:
        return config, None
    with field_named("model.from"):
        origin = open_origin(model.start, trust=(model.name,))
    _check(config, origin)
    completed = _with_model(
        config,
        name=origin.model.name,
        options=origin.model.options | model.options,
        origin=OriginConfig(checkpoint=origin.checkpoint, sha256=origin.sha256),
    )
    return completed, origin


def _with_recorded_origin(config: PretrainConfig, out: Path) -> PretrainConfig:
    """Return a resumed run's configuration; its differences are reported later."""
    model = config.model
    recorded = recorded_pretraining(out).model
    options = model.options
    if model.start is not None:
        options = recorded.options | model.options
    return _with_model(
        config,
        name=model.name or recorded.name,
        options=options,
        origin=recorded.origin,
        vocabulary=recorded.vocabulary,
    )


def with_vocabulary(
    config: PretrainConfig, out: Path, origin: ModelOrigin | None, say: Say
) -> PretrainConfig:
    """Return the configuration with the vocabulary of its prepared text."""
    text = text_vocabulary(corpus_folder(config, out), keep=out / TOKENIZER)
    where = f"{out}: the run was begun with another tokenizer"
    _are_compared(where, config.model.vocabulary, text)
    if origin is not None:
        with field_named("model.from"):
            line = origin.compared(text)
        if line is not None:
            say(f"pretrain: {line}")
        say(_start_line(config, origin))
    return _with_model(config, vocabulary=text)


def _start_line(config: PretrainConfig, origin: ModelOrigin) -> str:
    step = "" if origin.step is None else f"step {origin.step:,}, "
    weights = f"{origin.checkpoint} ({step}weights {origin.sha256[:8]})"
    has_optimizer = origin.run is not None and config.model.optimizer is not False
    state = "with its optimizer's state" if has_optimizer else "without an optimizer's state"
    return f"pretrain: starts from {weights}, {state}; steps count from 0"


def initial_model(config: PretrainConfig, vocab_size: int, out: Path) -> nn.Module:
    """Return the initial model of a run on the CPU in float32, the same in every process."""
    if last_checkpoint(out / CHECKPOINTS) is None:
        path = _origin_path(config)
        if path is not None and not (path / STATE).exists():
            return load_folder(path, config.model)
    return build_model(config.model, vocab_size, config.training.sequence_length, config.seed)


def take_checkpoint(config: PretrainConfig, model: nn.Module, optimizer: optim.Optimizer) -> None:
    """Load the start checkpoint into model and optimizer, on every rank."""
    path = _origin_path(config)
    if path is not None and (path / STATE).exists():
        loaded_optimizer = None if config.model.optimizer is False else optimizer
        load_training(path, model, loaded_optimizer)


def _of_checkpoint(path: Path, trust: Trust) -> ModelOrigin:
    """Open a checkpoint of a pretraining run, whose directory describes the model."""
    run = path.resolve().parent.parent
    record = run / "config.yaml"
    if not record.exists():
        raise RunError(
            f"{path}: config.yaml of its run is not beside {CHECKPOINTS}; keep a checkpoint in its"
            " run's directory"
        )
    if trust is False:  # a user's own configuration may use links
        check_links(run)
    config = recorded_pretraining(run)
    name = config.model.name
    is_trusted = trust if isinstance(trust, bool) else name in trust
    if ":" in name and not is_trusted:
        raise PluginError(
            f"{record}: names the model {name!r}, which is code; if you trust it, add --trust, or"
            f" set model.name: {name} in your own configuration that starts from it"
        )
    vocabulary = config.model.vocabulary
    if vocabulary is None:
        raise RunError(f"{record}: model.vocabulary: is not recorded; resume that run once")
    state = _whole_state(path)
    options = dict(config.model.options)
    options.pop("attn_implementation", None)
    options.setdefault("vocab_size", vocabulary.ids)
    weights = {name: file for name, file in state.files.items() if name.endswith(".safetensors")}
    return ModelOrigin(
        path=path,
        checkpoint=str(path),
        model=ModelConfig(name=name, options=options),
        length=config.training.sequence_length,
        vocabulary=vocabulary if vocabulary.sha256 else None,
        sha256=_weights_hash(weights),
        run=config,
        step=state.step,
    )


def _whole_state(path: Path) -> CheckpointState:
    """Return the verified state of a checkpoint; the error names the one before it."""
    try:
        return whole_state(path)
    except MixoptError as error:
        older = [old for old in found_checkpoints(path.parent) if old.name < path.name]
        hint = f"the one before it is {older[-1]}" if older else "the run has no older checkpoint"
        raise RunError(f"{error}; {hint}") from error


def _of_folder(folder: Path, checkpoint: str) -> ModelOrigin:
    """Open a transformers folder; its configuration describes the model."""
    model = folder_model(folder)
    records = folder_records(folder)
    length = getattr(hugging_face_config(model), "max_position_embeddings", None)
    if not isinstance(length, int):
        length = None
    if not isinstance(model.options.get("vocab_size"), int):
        raise RunError(f"{folder / 'config.json'}: vocab_size: is missing")
    vocabulary = None
    ids_and_hash = folder_vocabulary(folder)
    if ids_and_hash is not None:
        ids, sha256 = ids_and_hash
        vocabulary = VocabularyConfig(tokenizer=str(folder), ids=ids, sha256=sha256)
    return ModelOrigin(
        path=folder,
        checkpoint=checkpoint,
        model=model,
        length=length,
        vocabulary=vocabulary,
        sha256=_weights_hash(records),
    )


def _weights_hash(files: Mapping[str, FileRecord]) -> str:
    """Return one hash for all weight files."""
    text = "".join(f"{name} {files[name].sha256}\n" for name in sorted(files))
    return hashlib.sha256(text.encode()).hexdigest()


def _check(config: PretrainConfig, origin: ModelOrigin) -> None:
    model = config.model
    where = origin.checkpoint
    if model.name and model.name != origin.model.name:
        raise ConfigError(
            f"model.name: {model.name!r}, and {where} is of {origin.model.name!r}: leave it out"
        )
    if model.optimizer and origin.run is None:
        raise ConfigError(
            f"model.optimizer: true, and {where} has no optimizer's state: leave it out"
        )
    length = config.training.sequence_length
    is_too_long = origin.length is not None and length > origin.length > 0
    is_extended = "max_position_embeddings" in model.options or "n_positions" in model.options
    if origin.run is None and is_too_long and not is_extended:
        raise ConfigError(
            f"training.sequence_length: {length}, and {where} has max_position_embeddings"
            f" {origin.length}: lower it, or set model.options.max_position_embeddings"
        )


def _are_compared(where: str, vocabulary: VocabularyConfig | None, text: VocabularyConfig) -> bool:
    """Check that two vocabularies are equal; return whether both are known."""
    if vocabulary is None or vocabulary.sha256 is None or text.sha256 is None:
        return False
    if vocabulary.sha256 != text.sha256:
        raise ConfigError(
            f"{where}: its tokenizer {vocabulary} is not the corpus's, {text}; prepare the corpus"
            " with the model's tokenizer (corpus.tokenizer: its folder), or start from a model of"
            " this vocabulary"
        )
    return True


def _origin_path(config: PretrainConfig) -> Path | None:
    origin = config.model.origin
    if config.model.start is None or origin is None:
        return None
    return local_folder(origin.checkpoint)


def _with_model(config: PretrainConfig, **fields: object) -> PretrainConfig:
    return config.model_copy(update={"model": config.model.model_copy(update=fields)})
