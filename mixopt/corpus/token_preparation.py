"""The domains of a corpus that are tokens: opened, split and written beside those of text.

Tokens have a tokenizer already, which `corpus.tokenizer` names. Where its files are not here, the
ids are still tokens: losses on them are known in nats per token alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus.domain_tokens import DomainTokens
from mixopt.corpus.text import DomainText, Spool, content_digest
from mixopt.corpus.token_files import TokenRules, token_digest
from mixopt.corpus.tokenizer import Tokenizer, bpe_vocabulary, open_tokenizer
from mixopt.corpus.vocabulary import Vocabulary
from mixopt.errors import CorpusError, PluginError
from mixopt.system import Say, count_text


def known_tokenizer(name: str) -> Tokenizer | None:
    """Return a tokenizer by name or folder; None where its files are not here, or not yet made."""
    try:
        return None if bpe_vocabulary(name) is not None else open_tokenizer(name)
    except (CorpusError, PluginError):
        return None


def check_tokens_have_tokenizer(config: CorpusConfig) -> None:
    """Check that the tokenizer of a corpus with tokens is not one that the run would train.

    Raises:
        CorpusError: It is.
    """
    of_tokens = [name for name, source in config.domains.items() if source.is_tokens]
    if of_tokens and bpe_vocabulary(config.tokenizer) is not None:
        raise CorpusError(
            f"corpus.tokenizer: {config.tokenizer} is trained by the run, and {of_tokens[0]!r} is"
            " tokens already: name their tokenizer, or a folder with its tokenizer.json"
        )


def read_tokens(
    config: CorpusConfig,
    evaluation: Mapping[str, SourceConfig],
    tokenizer: Tokenizer | None,
    seed: int,
    progress: Say,
) -> list[DomainTokens]:
    """Open the domains and targets that are tokens, and choose what is held out.

    Args:
        config: Domains, and what is held out.
        evaluation: Targets.
        tokenizer: Of the corpus; None where its files are not here.
        seed: Which documents are held out.
        progress: Receives a line for each.

    Raises:
        CorpusError: Files that are missing, damaged or of another format, or an id beyond the
            vocabulary.
    """
    size = None if tokenizer is None else tokenizer.vocab_size
    rules = TokenRules(Vocabulary.of(config.tokenizer, size), tokenizer)
    found = []
    for name, source in {**config.domains, **evaluation}.items():
        if source.is_tokens:
            domain = DomainTokens(name, source.under(config.root), config, rules)
            domain.hold_all() if name in evaluation else domain.split(seed)
            progress(f"{name}: {count_text(len(domain.held_out))} pieces of tokens are held out")
            found.append(domain)
    return found


def keep_apart(
    texts: Iterable[DomainText], tokens: Iterable[DomainTokens], tokenizer: Tokenizer | None
) -> None:
    """Leave what is held out of any domain out of the training tokens and text of all.

    A document of text and one of tokens are the same where its tokenizer makes one of the other.
    """
    texts, tokens = list(texts), list(tokens)
    if not tokens:
        return
    as_text = {digest for text in texts for digest in text.validation.digests()}
    as_text |= {content_digest(text) for domain in tokens for text in domain.held_out_texts()}
    as_tokens = {digest for domain in tokens for digest in domain.held_out}
    if tokenizer is not None:
        for text in texts:
            as_tokens |= _as_tokens(text.validation, tokenizer)
    for text in texts:
        text.drop_equal_to(as_text)
    for domain in tokens:
        domain.drop_equal_to(as_tokens)


def _as_tokens(documents: Spool, tokenizer: Tokenizer) -> set[bytes]:
    end = tokenizer.end_of_document
    contents = (document.content.decode() for document in documents)
    return {token_digest(tokenizer.encode([text]), end) for text in contents}
