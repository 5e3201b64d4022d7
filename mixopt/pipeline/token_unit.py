"""Whether losses on tokens are known in the unit of the objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.errors import ConfigError

if TYPE_CHECKING:
    from mixopt.config import Config


def check_token_unit(config: Config) -> None:
    """Check for a tokenizer to tell the bytes of tokens, where the objective needs them.

    Raises:
        ConfigError: There is none.
    """
    sources = {**config.corpus.sources, **config.evaluation}
    of_tokens = [name for name, source in sources.items() if source.is_tokens]
    if not of_tokens or config.objective.unit != "bits_per_byte":
        return
    from mixopt.corpus import known_tokenizer

    name = config.corpus.tokenizer
    if known_tokenizer(name) is None:
        raise ConfigError(
            f"objective.unit: bits_per_byte needs the bytes of each token, and the tokenizer"
            f" {name!r} of {of_tokens[0]!r} is not here: set objective.unit: nats_per_token, or"
            " corpus.tokenizer to a folder with its tokenizer.json"
        )
