"""What the ids of a run's text stand for, and whether a model's ids stand for the same."""

from __future__ import annotations

from pathlib import Path

from mixopt.corpus import (
    VocabularyIdentity,
    identity_of,
    known_tokenizer,
    read_corpus_index,
    read_stream_index,
    saved_tokenizer,
)
from mixopt.errors import ConfigError, CorpusError, PluginError, RunError
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.model_config import VocabularyConfig
from mixopt.pretraining.text import HELD_OUT, corpus_path


def text_vocabulary(config: PretrainConfig, out: Path) -> VocabularyConfig:
    """Return what the ids of a run's text stand for.

    Args:
        config: The run's.
        out: Its directory, where the text is prepared already.

    Returns:
        Without a hash where the tokenizer's files are not with the corpus, as of imported tokens.

    Raises:
        CorpusError: The corpus is damaged.
    """
    if config.stream is not None:
        name = read_stream_index(out / HELD_OUT).tokenizer
        return _recorded(identity_of(name, saved_tokenizer(out / HELD_OUT, name)))
    path = corpus_path(config, out)
    index = read_corpus_index(path, verify=False)
    try:
        found = identity_of(index.tokenizer, saved_tokenizer(path, index.tokenizer))
    except (CorpusError, PluginError):  # tokens of another tool, without its tokenizer
        return VocabularyConfig(tokenizer=index.tokenizer, ids=index.vocab_size)
    return _recorded(found._replace(size=index.vocab_size))


def expected_vocabulary(config: PretrainConfig, out: Path) -> VocabularyConfig | None:
    """Return what the ids of a run's text will stand for; None where only its text can tell.

    Args:
        config: The run's.
        out: Its directory, where nothing need be prepared yet.

    Raises:
        CorpusError: A corpus that is prepared already is damaged.
    """
    if config.prepared_corpus is not None:
        return text_vocabulary(config, out)
    text = config.corpus or config.stream
    tokenizer = None if text is None else known_tokenizer(text.tokenizer)
    if text is None or tokenizer is None:
        return None
    return _recorded(identity_of(text.tokenizer, tokenizer))


def recorded_vocabulary(config: PretrainConfig, run: Path) -> VocabularyConfig:
    """Return the same of a run that was begun before; nothing outside its directory is read.

    Raises:
        RunError: It is not known, since an older version wrote the run.
    """
    if config.model.vocabulary is not None:
        return config.model.vocabulary
    if config.prepared_corpus is None:
        return text_vocabulary(config, run)
    raise RunError(
        f"{run / 'config.yaml'}: model.vocabulary: is not recorded, and the corpus is outside the"
        f" run ({config.prepared_corpus}); resume that run once, which records it"
    )


def check_same_vocabulary(
    model: VocabularyIdentity | None, vocab_size: int, text: VocabularyConfig, where: str
) -> str | None:
    """Check that a model's ids are those of a text.

    Args:
        model: Of the model, if known.
        vocab_size: Ids that it was built for.
        text: Of the text.
        where: The model, for messages.

    Returns:
        A line where they could not be compared; None where they are the same.

    Raises:
        ConfigError: They are others.
    """
    if model is not None and text.sha256 is not None:
        if model.sha256 == text.sha256:
            return None
        here = VocabularyIdentity(text.tokenizer, text.ids, text.sha256)
        raise ConfigError(
            f"model.from: {where}: its tokenizer {model} is not the corpus's, {here}; prepare the"
            " corpus with the model's tokenizer (corpus.tokenizer: its folder), or start from a"
            " model of this vocabulary"
        )
    if text.ids > vocab_size:
        raise ConfigError(
            f"model.from: {where}: has {vocab_size:,} ids, and the corpus's tokenizer"
            f" {text.tokenizer!r} has {text.ids:,}; prepare the corpus with the model's tokenizer"
        )
    return (
        f"{where}: its tokenizer could not be compared with the corpus's, since"
        f" {'the model' if model is None else 'the corpus'} has no tokenizer with it; its"
        f" {vocab_size:,} ids are enough for the corpus's {text.ids:,}"
    )


def _recorded(found: VocabularyIdentity) -> VocabularyConfig:
    return VocabularyConfig(tokenizer=found.tokenizer, ids=found.size, sha256=found.sha256)
