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
        name = self.vocabulary.tokenizer if self.vocabulary else ""
        return saved_tokenizer(self.path.resolve().parent.parent / TOKENIZER, name)

    def compared(self, text: VocabularyConfig) -> str | None:
        """Check the model's vocabulary against a text's; return what could not be compared."""
        if _are_compared(self.checkpoint, self.vocabulary, text):
            return None
        ids = (
            f"has {self._ids:,} ids, and the corpus's tokenizer {text.tokenizer!r} has {text.ids:,}"
        )
        if text.ids > self._ids:
            raise ConfigError(
                f"{self.checkpoint}: {ids}; prepare the corpus with the model's tokenizer"
            )
        without = "the model" if self.vocabulary is None else "the corpus"
        return (
            f"{self.checkpoint}: its tokenizer could not be compared with the corpus's, since"
            f" {without} has no tokenizer with it; it {ids}"
        )

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Return the optimizer state, if any, by names such as `state.embedding.exp_avg`."""
        return {} if self.run is None else read_tensors(self.path, OPTIMIZER)


def open_origin(path: str | Path, *, trust: Trust = False) -> ModelOrigin:
    """Open a start checkpoint: verify its files and read its description.

    Args:
        path: The directory of a `mixopt pretrain` (for its newest checkpoint), one of its
            checkpoints, a transformers folder, or a name on the hub.
        trust: Whether code named by a run directory may be imported, or the names that may be.

    Raises:
        MixoptError: It is missing, damaged or of an unsupported kind.
    """
    name, folder = str(path), local_folder(str(path))
    if not folder.is_dir():
        raise RunError(f"{name!r}: no such folder; {_EXPECTED}")
    if folder != local_path(name):
        return _of_folder(folder, f"{name.partition('@')[0]}@{folder.name}")
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
    model = config.model
    if last_checkpoint(out / CHECKPOINTS) is not None:  # differences are reported later
        previous = recorded_pretraining(out).model
        options = model.options if model.start is None else previous.options | model.options
        fields = {"name": model.name or previous.name, "options": options}
        recorded = {"origin": previous.origin, "vocabulary": previous.vocabulary}
        return _with_model(config, **fields, **recorded), None
    if model.start is None:
        return config, None
    with field_named("model.from"):
        origin = open_origin(model.start, trust=(model.name,))
    _check(config, origin)
    record = OriginConfig(checkpoint=origin.checkpoint, sha256=origin.sha256)
    options = origin.model.options | model.options
    return _with_model(config, name=origin.model.name, options=options, origin=record), origin


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
        step = "" if origin.step is None else f"step {origin.step:,}, "
        has_optimizer = origin.run is not None and config.model.optimizer is not False
        state = f"{'with its' if has_optimizer else 'without an'} optimizer's state"
        weights = f"{origin.checkpoint} ({step}weights {origin.sha256[:8]})"
        say(f"pretrain: starts from {weights}, {state}; steps count from 0")
    return _with_model(config, vocabulary=text)


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
        load_training(path, model, None if config.model.optimizer is False else optimizer)


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
    name, text = config.model.name, config.model.vocabulary
    if ":" in name and not (trust if isinstance(trust, bool) else name in trust):
        raise PluginError(
            f"{record}: names the model {name!r}, which is code; if you trust it, add --trust, or"
            f" set model.name: {name} in your own configuration that starts from it"
        )
    if text is None:
        raise RunError(f"{record}: model.vocabulary: is not recorded; resume that run once")
    try:
        state = whole_state(path)
    except MixoptError as error:
        older = [old for old in found_checkpoints(path.parent) if old.name < path.name]
        hint = f"the one before it is {older[-1]}" if older else "the run has no older checkpoint"
        raise RunError(f"{error}; {hint}") from error
    options = {k: v for k, v in config.model.options.items() if k != "attn_implementation"}
    options.setdefault("vocab_size", text.ids)
    return ModelOrigin(
        path=path,
        checkpoint=str(path),
        model=ModelConfig(name=name, options=options),
        length=config.training.sequence_length,
        vocabulary=text if text.sha256 else None,
        sha256=_weights_hash({n: f for n, f in state.files.items() if n.endswith(".safetensors")}),
        run=config,
        step=state.step,
    )


def _of_folder(folder: Path, checkpoint: str) -> ModelOrigin:
    model, records = folder_model(folder), folder_records(folder)
    length = getattr(hugging_face_config(model), "max_position_embeddings", None)
    if not isinstance(model.options.get("vocab_size"), int):
        raise RunError(f"{folder / 'config.json'}: vocab_size: is missing")
    vocabulary = folder_vocabulary(folder)
    return ModelOrigin(
        path=folder,
        checkpoint=checkpoint,
        model=model,
        length=length if isinstance(length, int) else None,
        vocabulary=vocabulary
        and VocabularyConfig(tokenizer=str(folder), ids=vocabulary[0], sha256=vocabulary[1]),
        sha256=_weights_hash(records),
    )


def _weights_hash(files: Mapping[str, FileRecord]) -> str:
    """Return one hash for all weight files."""
    text = "".join(f"{name} {files[name].sha256}\n" for name in sorted(files))
    return hashlib.sha256(text.encode()).hexdigest()


def _check(config: PretrainConfig, origin: ModelOrigin) -> None:
    model, where = config.model, origin.checkpoint
    if model.name and model.name != origin.model.name:
        raise ConfigError(
            f"model.name: {model.name!r}, and {where} is of {origin.model.name!r}: leave it out"
        )
    if model.optimizer and origin.run is None:
        raise ConfigError(
            f"model.optimizer: true, and {where} has no optimizer's state: leave it out"
        )
    changed = {"max_position_embeddings", "n_positions"} & set(model.options)
    length = config.training.sequence_length
    if origin.run is None and origin.length and length > origin.length and not changed:
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
