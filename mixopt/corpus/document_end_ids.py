"""Which ids end a document in a corpus: its tokenizer's, and those that domains of tokens state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mixopt.corpus.corpus import Corpus
from mixopt.corpus.tokenizer import saved_tokenizer
from mixopt.errors import CorpusError, PluginError

_FIELD = "document_end"


def document_ends(corpus: Corpus) -> tuple[int, ...]:
    """Return the ids that end a document.

    Args:
        corpus: Of text, or of tokens whose `document_end` was stated.

    Raises:
        CorpusError: None is known.
    """
    ends = set(_stated(corpus.provenance.get("sources")))
    try:
        ends.add(saved_tokenizer(corpus.path, corpus.tokenizer).end_of_document)
    except (CorpusError, PluginError) as error:  # tokens of another tool, without its tokenizer
        if not ends:
            raise CorpusError(
                f"mask_documents: it is not known which id ends a document of {corpus.path}, since"
                " there is no tokenizer with it; state document_end of its domains, or leave"
                " mask_documents out"
            ) from error
    return tuple(sorted(ends))


def _stated(made_from: Any) -> Iterator[int]:
    """Yield what sources state, parts of mixed domains too."""
    for name, value in made_from.items() if isinstance(made_from, dict) else ():
        if name == _FIELD and type(value) is int:
            yield value
        yield from _stated(value)
