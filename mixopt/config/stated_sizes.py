"""Values that files and options state: sizes of domains, inventories, choices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import ValidationError

from mixopt.config.constraints_section import ConstraintsConfig
from mixopt.config.objective_section import ObjectiveConfig
from mixopt.config.section import Section
from mixopt.errors import ConfigError, did_you_mean
from mixopt.system import local_copy, naming, read_yaml

if TYPE_CHECKING:
    from mixopt.config.corpus_section import CorpusConfig, SourceConfig
    from mixopt.config.experiment import Config
    from mixopt.config.yaml_sections import Location

Given = TypeVar("Given", bound=Section)
Unit = Literal["tokens", "bytes"]  # what a size is of


def read_inventory(
    source: str | Path | Mapping[str, Any],
    domains: Sequence[str],
    *,
    tokens_per_byte: Mapping[str, float] | None = None,
) -> dict[str, int]:
    """Return the distinct tokens of each domain, in the order of `domains`."""
    where = str(source) if isinstance(source, (str, Path)) else "inventory"
    sizes, rates = domain_sizes(source, domains), tokens_per_byte or {}
    for name in domains:
        if name not in sizes:
            raise ConfigError(f"{where}: domain {name!r} is missing; give its tokens")
        if sizes[name][0] == "bytes" and name not in rates:
            raise ConfigError(
                f"{where}: {name}: converting bytes to tokens needs a prepared corpus of its "
                "text, and there is none; state tokens"
            )
    return {
        name: sizes[name][1] if sizes[name][0] == "tokens" else round(sizes[name][1] * rates[name])
        for name in domains
    }


def domain_sizes(
    source: str | Path | Mapping[str, Any], domains: Iterable[str]
) -> dict[str, tuple[Unit, int]]:
    """Return what is stated of each domain that has a size: `tokens` or `bytes`, and how many."""
    where, content = _content("inventory", source)
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"{where}: expected a number of tokens for each domain, such as `web: 5e9`"
        )
    known = list(domains)
    for name in content:
        if name not in known:
            raise ConfigError(f"{where}: unknown domain {name!r}{did_you_mean(str(name), known)}")
    return {name: _size(content[name], name, where) for name in known if name in content}


def read_constraints(source: str | Path | Mapping[str, Any]) -> ConstraintsConfig:
    """Return constraints as checked values."""
    where, content = _content("constraints", source)
    return checked(ConstraintsConfig, content, where)


def read_objective(source: str | Path | Mapping[str, Any]) -> ObjectiveConfig:
    """Return an objective as checked values."""
    where, content = _content("objective", source)
    if isinstance(content, Mapping) and set(content) == {"objective"}:
        content = content["objective"]
    return checked(ObjectiveConfig, content, where)


def token_count(tokens: float | str | None, name: str = "tokens") -> int | None:
    """Return the length of a run; None where none is given."""
    if tokens is None:
        return None
    try:
        number = float(tokens)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{name} {tokens!r}: is not a number of tokens, such as 25e9") from None
    if not 1 <= number < 1e18:
        raise ConfigError(f"{name} {number:g}: must be at least 1, and less than 1e18")
    return int(tokens) if isinstance(tokens, int) else int(number)


def one_of(name: str, value: str, known: Sequence[str]) -> str:
    """Check that a value is a known one."""
    if value not in known:
        raise ConfigError(f"{name} {value}: unknown{did_you_mean(str(value), known)}")
    return value


def checked(section: type[Given], content: Any, where: str) -> Given:
    """Return a section of the configuration from plain values."""
    try:
        return section.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            near = did_you_mean(field, section.model_fields)
            raise ConfigError(f"{where}: {field}: unknown field{near}") from error
        place = f"{where}: {field}" if field else where
        raise ConfigError(f"{place}: {first['msg']}, got {first['input']!r}") from error


def _content(name: str, source: Any) -> tuple[str, Any]:
    """Return what an error calls a value, and the value; a file's content where it is one."""
    if not isinstance(source, (str, Path)):
        return name, source
    path = local_copy(source, ConfigError)
    with naming(path, str(source)):
        return str(source), read_yaml(path)


def _size(value: Any, name: str, where: str) -> tuple[Unit, int]:
    if not isinstance(value, Mapping):
        return "tokens", _whole(value, f"{where}: {name}", "tokens")
    given = sorted(value)
    if given not in (["bytes"], ["tokens"]):
        found = ", ".join(map(str, given)) or "nothing"
        raise ConfigError(f"{where}: {name}: give exactly one of tokens and bytes, got {found}")
    unit: Unit = given[0]
    return unit, _whole(value[unit], f"{where}: {name}.{unit}", unit)


def _whole(value: Any, where: str, unit: Unit) -> int:
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # YAML takes 5e9 for text
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 1 <= number < 1e18:
        raise ConfigError(f"{where}: {value!r} is not a number of {unit}, such as 5e9")
    return value if isinstance(value, int) else int(number)


def with_stated_sizes(config: Config, *, trust: bool = True) -> Config:
    """Return the experiment with the sizes of the inventory file in its sources."""
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
