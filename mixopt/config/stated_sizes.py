"""Stated sizes of domains of which only a sample of text is prepared.

Sizes are stated by domain, as `tokens` or `bytes` of its source, or in the file that
`corpus.inventory` names. What the file says is kept in the sources, so that the configuration
that a run records has all sizes and needs no file. Sizes are stated of all domains or of none: a
stated size beside the size of a sample gives shares that mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mixopt.config.given_values import domain_sizes
from mixopt.errors import ConfigError

if TYPE_CHECKING:
    from mixopt.config.corpus_section import CorpusConfig, SourceConfig
    from mixopt.config.experiment import Config
    from mixopt.config.yaml_sections import Location

INVENTORY = ("corpus", "inventory")


def with_stated_sizes(config: Config, *, trust: bool = True) -> Config:
    """Return the experiment with the sizes of the inventory file in its sources.

    Args:
        config: An experiment; one without `corpus.inventory` is returned as it is.
        trust: Whether the configuration may name a file outside its run.

    Raises:
        ConfigError: The file cannot be read, has other domains or no sizes, or states another
            size than a source does.
    """
    if config.corpus.inventory is None:
        return config
    if not trust:
        raise ConfigError(
            f"corpus.inventory: {config.corpus.inventory}: a recorded configuration contains the "
            "sizes themselves; state tokens or bytes of each domain"
        )
    sizes = _read(config.corpus.inventory, config.corpus)
    domains = {
        name: source.model_copy(update=sizes.get(name, {}))
        for name, source in config.corpus.domains.items()
    }
    corpus = config.corpus.model_copy(update={"domains": domains, "inventory": None})
    return config.model_copy(update={"corpus": corpus})


def size_faults(config: Config) -> Iterable[tuple[Location, str]]:
    """Find sizes that are stated of some domains only, or of a target."""
    for name, source in config.evaluation.items():
        for field in ("tokens", "bytes"):
            if getattr(source, field) is not None:
                message = "a target is not trained on, so its size is not used; leave it out"
                yield ("evaluation", name, field), message
    sources = config.corpus.domains
    sized = [name for name, source in sources.items() if source.is_sized]
    if not sized or config.corpus.inventory is not None:
        return
    for name, source in sources.items():
        if not source.is_sized:
            message = (
                f"its size is not stated, but that of {sized[0]!r} is: give tokens or bytes of "
                "every domain, or of none (mixopt count CONFIG finds them)"
            )
            yield ("corpus", "domains", name), message


def stated_tokens(sources: Mapping[str, SourceConfig]) -> dict[str, int] | None:
    """Return the tokens of each domain where all are stated as such; None where not."""
    known = {name: source.tokens for name, source in sources.items() if source.tokens is not None}
    return known if len(known) == len(sources) else None


def _read(path: str, corpus: CorpusConfig) -> dict[str, dict[str, Any]]:
    """Read the file, as what is to be changed of each source."""
    sizes = domain_sizes(path, corpus.domains)
    _check_complete(path, corpus.domains, sizes)
    for name, (kind, size) in sizes.items():
        source = corpus.domains[name]
        if source.is_tokens and kind == "bytes":
            raise ConfigError(
                f"{path}: domain {name!r}: bytes are a size of text, but this domain is tokens; "
                f"give `{name}: 5e9`, its tokens"
            )
        own = "tokens" if source.tokens is not None else "bytes"
        value = getattr(source, own)
        if source.is_sized and (own, value) != (kind, size):
            raise ConfigError(
                f"corpus.domains.{name}.{own}: {value}, and {path} has {kind}: {size} for it; "
                "keep one of them"
            )
    return {name: {kind: size} for name, (kind, size) in sizes.items()}


def _check_complete(
    path: str, sources: Mapping[str, SourceConfig], sizes: Mapping[str, Sequence[Any]]
) -> None:
    for name, source in sources.items():
        if name not in sizes and not source.is_sized:
            raise ConfigError(
                f"{path}: domain {name!r} is missing; add its tokens or bytes, as in"
                f" `{name}: 5e9` (mixopt count CONFIG finds them)"
            )
