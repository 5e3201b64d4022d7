"""The cap on epochs: the maximum share of each domain, from the passes that the full run may make.

A domain of n tokens reaches `max_epochs` passes in a run of T tokens at a share of
`max_epochs x n / T`.
"""

from collections.abc import Iterator, Mapping

from mixopt.config import ConstraintsConfig
from mixopt.constraints.limits import LinearLimit
from mixopt.errors import ConfigError

FIELD = "constraints.max_epochs"


def epoch_caps(
    config: ConstraintsConfig, inventory: Mapping[str, int], target_tokens: int | None
) -> Iterator[LinearLimit]:
    """Yield the maximum share of each domain whose epochs are limited."""
    max_epochs = config.max_epochs_of(tuple(inventory))
    if not max_epochs:
        return
    if target_tokens is None:
        raise ConfigError(
            f"{FIELD}: needs the length of the full run; set propose.target_tokens"
            " (or --tokens 25e9)"
        )
    for domain, epochs in max_epochs.items():
        field = FIELD
        if domain in (config.max_epochs or {}):
            field += f".{domain}"
        rate = inventory[domain] / (target_tokens or 1)
        yield LinearLimit(
            (domain,),
            min(epochs * rate, 1.0),
            field,
            setting=epochs,
            rate=rate,
            inventory=inventory[domain],
            target_tokens=target_tokens,
        )
