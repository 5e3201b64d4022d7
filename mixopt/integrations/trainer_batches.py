"""Batches in the form of Hugging Face's Trainer, and the fields that its model receives.

Shapes: B rows, L tokens of a row.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from mixopt.loading import Batch, MixtureLoader, MixtureStream

IGNORED = -100
_PACKED = ("position_ids", "document", "cu_seqlens", "max_seqlen")


class TrainerBatches:
    """Batches with `labels`; not a torch DataLoader, so that none wraps it."""

    def __init__(self, mixture: MixtureLoader | MixtureStream, *, masks: bool = False) -> None:
        """Wrap a loader."""
        self._mixture = mixture
        self._masks = masks

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches."""
        for batch in self._mixture:
            if "input_ids" in batch:
                batch.setdefault("labels", _labels(batch))
                if self._masks and not {"attention_mask", "position_ids"} & batch.keys():
                    batch["attention_mask"] = batch["input_ids"].new_ones(batch["labels"].shape)
            yield batch

    def __len__(self) -> int:
        """Count the batches of one pass; without an end this raises TypeError."""
        return len(self._mixture)


def _labels(batch: Batch) -> Any:
    """Return the tokens, but for the first of each document and padding, which nothing predicts."""
    labels = batch["input_ids"].clone()
    if "position_ids" in batch:
        labels[batch["position_ids"] == 0] = IGNORED
    if "document" in batch:
        labels[batch["document"] < 0] = IGNORED
    return labels


def model_inputs(
    model: Any, batch: Mapping[str, Any], ours: Collection[str], unused: Collection[str]
) -> dict[str, Any]:
    """Return what of a batch a model is given."""
    if hasattr(model, "get_base_model"):  # of PEFT
        model = model.get_base_model()
    forward = inspect.signature(type(model).forward).parameters
    takes_all = any(one.kind is one.VAR_KEYWORD for one in forward.values())
    left_out = {*ours, *_PACKED, *unused} - forward.keys()
    kept = {name: value for name, value in batch.items() if name not in left_out}
    told: dict[str, Any] = {}
    if "position_ids" in batch:
        told["position_ids"] = batch["position_ids"]
    if "cu_seqlens" in batch and "max_seqlen" in batch:
        longest = int(batch["max_seqlen"])
        told |= dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), batch["cu_seqlens"])
        told |= dict.fromkeys(("max_length_q", "max_length_k"), longest)
    return kept | {name: value for name, value in told.items() if takes_all or name in forward}
