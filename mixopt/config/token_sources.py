"""Check domains and targets that are given as tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mixopt.config.corpus_section import SourceConfig

if TYPE_CHECKING:
    from mixopt.config.experiment import Config
    from mixopt.config.yaml_sections import Location

_TRAINED = "bpe:"


def token_source_faults(config: Config) -> Iterable[tuple[Location, str]]:
    """Find tokens beside a tokenizer that the run would train, which cannot be theirs."""
    places: dict[Location, Mapping[str, SourceConfig]] = {
        ("corpus", "domains"): config.corpus.sources,
        ("evaluation",): config.evaluation,
    }
    found = [
        (*place, name)
        for place, sources in places.items()
        for name, source in sources.items()
        if source.is_tokens
    ]
    if found and config.corpus.tokenizer.startswith(_TRAINED):
        message = (
            f"{config.corpus.tokenizer} is trained by the run, but {found[0][-1]!r} is already "
            "tokens: name the tokenizer that made them, or a folder with its tokenizer.json"
        )
        yield ("corpus", "tokenizer"), message
