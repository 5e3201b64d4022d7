"""An inventory: the size of each domain, in a file or a mapping."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixopt.config.sections import Positive, Section, checked, given_content, one_given
from mixopt.errors import ConfigError, did_you_mean


class SizeConfig(Section):
    """The size of a domain in a file of sizes: exactly one of the two."""

    tokens: Positive | None = None
    bytes: Positive | None = None

    def model_post_init(self, _: object) -> None:
        """Raise unless exactly one field is given."""
        one_given(self, "tokens", "bytes")


def read_inventory(
    source: str | Path | Mapping[str, Any],
    domains: Sequence[str],
    *,
    tokens_per_byte: Mapping[str, float] | None = None,
) -> dict[str, int]:
    """Return the distinct tokens of each domain, in the order of `domains`."""
    where, sizes = read_sizes(source, domains)
    rates = tokens_per_byte or {}
    by_domain: dict[str, int] = {}
    for name in domains:
        if name not in sizes:
            raise ConfigError(f"{where}: domain {name!r} is missing; state its tokens")
        size = sizes[name]
        if size.bytes is not None and name not in rates:
            raise ConfigError(
                f"{where}: {name}: converting bytes to tokens needs a prepared corpus of its "
                "text, but there is none; state tokens"
            )
        by_domain[name] = size.tokens or round((size.bytes or 0) * rates[name])
    return by_domain


def read_sizes(
    source: str | Path | Mapping[str, Any], domains: Iterable[str]
) -> tuple[str, dict[str, SizeConfig]]:
    """Return the name of a source of sizes for errors, and the size of each listed domain."""
    content, where = given_content("inventory", source)
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"{where}: expected a number of tokens for each domain, such as `web: 5e9`"
        )
    domain_names = list(domains)
    sizes: dict[str, SizeConfig] = {}
    for name, value in content.items():
        if name not in domain_names:
            raise ConfigError(
                f"{where}: unknown domain {name!r}{did_you_mean(str(name), domain_names)}"
            )
        fields = value if isinstance(value, Mapping) else {"tokens": value}
        sizes[name] = checked(SizeConfig, fields, f"{where}: {name}")
    return where, sizes
