"""The section of the page about the corpus: how much text each domain has, and from where."""

from __future__ import annotations

from mixopt.config import DomainConfig, SourceConfig
from mixopt.corpus import Domain
from mixopt.reporting.page import PageSection, paragraph, table
from mixopt.run_directory import Run
from mixopt.system import bytes_text, count_text, share_text, short_count, without_folders


def corpus_section(run: Run) -> PageSection:
    """Show how much text each domain has, and where it is from."""
    corpus = run.corpus
    config = run.config.corpus
    sources = {**config.domains, **config.parts, **run.config.evaluation}
    order = sorted(corpus.evaluation, key=lambda domain: -run.natural.get(domain.name, 0.0))
    rows = [
        _corpus_row(domain, run.natural.get(domain.name), run.inventory, sources)
        for domain in order
    ]
    body = paragraph(
        f"Tokenizer: {corpus.tokenizer}, {count_text(corpus.vocab_size)} entries. Held-out"
        " documents are never trained on; targets have no training text at all. Shares are of the"
        " whole domains; documents, tokens and text are what was prepared of them."
    )
    prepared = ("documents", "tokens", "text", "held-out tokens")
    columns = ("domain", "share", "whole domain", *prepared, "source")
    styles = ["" if domain.train is not None else "weak" for domain in order]
    return PageSection("corpus", "Corpus", body + table(columns, rows, texts=[7], styles=styles))


def _corpus_row(
    domain: Domain,
    natural: float | None,
    inventory: dict[str, int],
    sources: dict[str, SourceConfig],
) -> tuple[str, ...]:
    source = _source(sources[domain.name])
    here = not domain.validation.is_elsewhere
    held_out = count_text(domain.validation.tokens) if here else ""
    train = domain.train
    if train is None:
        return (domain.name, "target", "", "", "", "", held_out, source)
    share, whole = share_text(natural or 0.0), short_count(inventory[domain.name])
    documents = count_text(train.documents) if train.documents else ""
    length = bytes_text(train.bytes) if train.bytes else ""
    text = (documents, count_text(train.tokens), length)
    text = text if here else ("", "", "")
    return (domain.name, share, whole, *text, held_out, source)


def _source(source: SourceConfig) -> str:
    if source.environment is not None:
        return f"installed packages: {source.environment}"
    if isinstance(source, DomainConfig) and source.mixed is not None:
        return "made of " + ", ".join(source.mixed.domains)
    if not source.has_text:
        return "the trainer's own"
    files = source.data_files or []
    names = [files] if isinstance(files, str) else files
    parts = [*source.paths, source.name or "", *names]
    return without_folders(", ".join(part for part in parts if part))
