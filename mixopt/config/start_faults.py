"""What cannot be right of what trials begin with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixopt.config.experiment import Config
    from mixopt.config.yaml_sections import Location

CONTINUED = "continued"
_FROM_NOTHING = ("decoder", "ngram", "command")


def start_faults(config: Config) -> Iterable[tuple[Location, str]]:
    """Find what cannot be right of what trials begin with: where, and what."""
    proxy, rails = config.proxy, config.constraints.guardrails
    if proxy.name == CONTINUED and proxy.start is None:
        message = "is missing: name: continued needs a run of mixopt pretrain, a checkpoint, or"
        yield ("proxy", "from"), f"{message} a folder of transformers"
    if proxy.name in _FROM_NOTHING and proxy.start is not None:
        message = f"trials of proxy {proxy.name!r} begin with random weights: give name:"
        yield ("proxy", "from"), f"{message} {CONTINUED}, or leave it out"
    if proxy.start_hash is not None and proxy.start is None:
        yield ("proxy", "from_hash"), "is written by mixopt, beside 'from'; leave it out"
    if rails is not None and rails.reference == "base" and proxy.start is None:
        message = "base is the checkpoint that trials begin with, and these begin with none: give"
        place = ("constraints", "guardrails", "reference")
        yield place, f"{message} proxy: {{name: continued, from: ...}}, or natural"
