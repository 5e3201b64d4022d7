"""The model that a run starts from, held whole by as few processes as can be.

Where ranks shard the weights, rank 0 builds or reads the model as a single process does, and the
others build it on torch's meta device, without weights; they get their parts when it is sharded
(mixopt.pretraining.shard_filling). A model that cannot be built so, or is another model then, is
built whole on every rank, and a line names it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.model_outline import outline_fault, outline_of
from mixopt.pretraining.model_start import initial_model, unfilled_model
from mixopt.pretraining.ranks import Ranks


@dataclass(frozen=True, eq=False)
class StartingModel:
    """A model before it is on its ranks' devices.

    Attributes:
        module: On the CPU; of the meta device where `held_by_first`, on all ranks but the first.
        held_by_first: Whether rank 0 alone has weights.
    """

    module: nn.Module
    held_by_first: bool


def starting_model(
    config: PretrainConfig, vocab_size: int, out: Path, ranks: Ranks
) -> StartingModel:
    """Build or read what a run starts from; every rank calls it.

    Args:
        config: The run's, resolved.
        vocab_size: Ids of the text.
        out: The directory.
        ranks: This rank and the others.

    Raises:
        MixoptError: The model cannot be built, or the weights do not fit it.
    """

    def whole() -> nn.Module:
        return initial_model(config, vocab_size, out)

    if ranks.count == 1 or config.parallel not in ("fsdp", "hsdp"):
        return StartingModel(ranks.each(whole), held_by_first=False)
    model = ranks.each(lambda: whole() if ranks.is_first else None)
    outline = ranks.first(lambda: [] if model is None else outline_of(model))
    module, fault = (model, None) if ranks.is_first else _unfilled(config, vocab_size, out, outline)
    faults = [one for one in ranks.gathered(fault) if one is not None]
    if faults:
        _warn(config, ranks, faults[0])
        module = ranks.each(whole) if model is None else ranks.each(lambda: model)
    assert module is not None, "without a fault there is a model"
    return StartingModel(module, held_by_first=not faults)


def _unfilled(
    config: PretrainConfig, vocab_size: int, out: Path, outline: Sequence[str]
) -> tuple[nn.Module | None, str | None]:
    """Return the model without weights, or else why there is none."""
    try:
        model = unfilled_model(config, vocab_size, out)
        fault = outline_fault(model, outline)
    except Exception as error:  # whatever a constructor raises that wants values
        lines = [*filter(None, map(str.strip, str(error).splitlines())), type(error).__name__]
        return None, lines[0][:200]
    return (model, None) if fault is None else (None, fault)


def _warn(config: PretrainConfig, ranks: Ranks, fault: str) -> None:
    if ranks.is_first:
        logging.getLogger("mixopt.pretraining").warning(
            "%s: every rank holds the whole model at the start, for it cannot be built on torch's"
            " meta device: %s",
            config.model.name,
            fault,
        )
