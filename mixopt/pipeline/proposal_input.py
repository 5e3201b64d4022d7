"""What a proposal from tables needs besides the fit: limits and inventories, from YAML files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mixopt.config import ConstraintsConfig
from mixopt.constraints import Constraints
from mixopt.errors import ConfigError, did_you_mean


def corpus_inventory(directory: Path) -> dict[str, int] | None:
    """Return the tokens of each domain where the folder has a corpus."""
    from mixopt.corpus import Corpus

    path = directory / "corpus"
    return Corpus.open(path, verify=False).inventory if path.exists() else None


def read_inventory(path: str | Path, domains: tuple[str, ...]) -> dict[str, int]:
    """Return the tokens of each domain, in the order of `domains`.

    Raises:
        ConfigError: The file cannot be read, or has other domains or no numbers of tokens.
    """
    content = _yaml(Path(path))
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a number of tokens for each domain, `web: 5e9` a line")
    for name in content:
        if name not in domains:
            raise ConfigError(f"{path}: unknown domain {name!r}{did_you_mean(str(name), domains)}")
    return {name: _tokens(content, name, path) for name in domains}


def _tokens(content: Mapping[str, Any], name: str, path: str | Path) -> int:
    try:
        tokens = float(content[name])  # YAML takes 5e9 for a string
    except KeyError:
        raise ConfigError(
            f"{path}: domain {name!r} is missing; say how many tokens it has"
        ) from None
    except (TypeError, ValueError):
        tokens = math.nan
    if not 1 <= tokens < 1e18:
        raise ConfigError(f"{path}: {name}: {content[name]!r} is no number of tokens, such as 5e9")
    return int(tokens)


def constraints_on(
    config: ConstraintsConfig,
    inventory: dict[str, int] | None,
    domains: tuple[str, ...],
    tokens: int | None,
) -> Constraints:
    """Return the constraints of a file or a run on the domains of a fit.

    Raises:
        ConfigError: `max_epochs` without an inventory, or an unknown domain.
        InfeasibleError: No mixture meets them.
    """
    if config.max_epochs is not None and inventory is None:
        raise ConfigError(
            "constraints.max_epochs: needs the tokens of each domain; say them in a YAML file,"
            " `web: 5e9` a line: --inventory FILE"
        )
    return Constraints.from_config(
        config, inventory=inventory or dict.fromkeys(domains, 1), target_tokens=tokens
    )


def read_constraints(path: Path) -> ConstraintsConfig:
    """Read a YAML file of constraints.

    Raises:
        ConfigError: It cannot be read, or a field of it is unknown or cannot be right.
    """
    try:
        return ConstraintsConfig.model_validate(_yaml(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        if first["type"] == "extra_forbidden":
            near = did_you_mean(field, ConstraintsConfig.model_fields)
            raise ConfigError(f"{path}: {field}: unknown field{near}") from error
        raise ConfigError(f"{path}: {field}: {first['msg']}, got {first['input']!r}") from error


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
