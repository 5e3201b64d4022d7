"""Which ids end a document in the text of a run: the tokenizer's, and those that domains state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from mixopt.config import SourceConfig
from mixopt.corpus import Corpus, Tokenizer, saved_tokenizer
from mixopt.errors import ConfigError, CorpusError, PluginError
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.text.corpus_input import corpus_path
from mixopt.pretraining.text.stream_input import StreamedText


def document_ends(
    config: PretrainConfig, text: Corpus | StreamedText, out: Path
) -> tuple[int, ...]:
    """Return the ids that end a document.

    Args:
        config: The run's.
        text: Its text.
        out: Its directory.

    Raises:
        ConfigError: None is known.
    """
    given = {*_stated(config), *(_recorded(text) if isinstance(text, Corpus) else ())}
    try:
        given.add(_tokenizer(config, text, out).end_of_document)
    except (CorpusError, PluginError) as error:  # tokens of another tool, without its tokenizer
        if not given:
            raise ConfigError(
                "training.mask_documents: it is not known which id ends a document, since the"
                " corpus has no tokenizer with it; state document_end of its domains, or leave it"
                " out"
            ) from error
    return tuple(sorted(given))


def _stated(config: PretrainConfig) -> Iterator[int]:
    """Yield what the configuration says of domains of tokens."""
    domains = config.corpus.domains if config.corpus is not None else {}
    sources: Mapping[str, SourceConfig] = {**domains, **config.evaluation}
    yield from (one.document_end for one in sources.values() if one.document_end is not None)


def _recorded(corpus: Corpus) -> Iterator[int]:
    """Yield what a prepared corpus says that it was made with."""
    sources = corpus.provenance.get("sources")
    for source in sources.values() if isinstance(sources, dict) else ():
        end = source.get("document_end") if isinstance(source, dict) else None
        if isinstance(end, int):
            yield end


def _tokenizer(config: PretrainConfig, text: Corpus | StreamedText, out: Path) -> Tokenizer:
    if isinstance(text, StreamedText):
        return text.tokenizer
    return saved_tokenizer(corpus_path(config, out), text.tokenizer)
