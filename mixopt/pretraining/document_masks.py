"""Documents of a row that do not see each other: positions that restart, and a check of the model.

A row is cut from documents one after the other, each followed by the end-of-document id. As a
target that id ends a document; as an input it begins the next one, so that a document's first token
is predicted from it alone, as where tasks are scored (mixopt.corpus.tasks). Every token of a row is
trained on, and no loss depends on another document. Rows of mixopt.loading.packing have one id for
both, at the end of its document, and no loss on the first token instead.

A model is told by `position_ids`, which begin at 0 with each document, as transformers reads packed
rows. Whether it attends by them is not a matter of its name: two short documents are put through
it.

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mixopt.errors import ConfigError
from mixopt.pretraining.models import logits_of

_FIELD = "training.mask_documents"
_SHORT = 12  # tokens of the two documents that a model is checked with
_LEAK = 1e-4  # of what a token does to a later one of its own document


class DocumentMasks:
    """Makes what a model is called with besides tokens."""

    def __init__(self, model: nn.Module, ends: Sequence[int]) -> None:
        """Look at what a model takes."""
        if "position_ids" not in _taken(model):
            raise ConfigError(
                f"{_FIELD}: {type(model).__name__} takes no position_ids, which would tell it where"
                " documents begin; leave it out"
            )
        self._ends, self._fixed = ends, _fixed(model)

    def inputs(self, tokens_BT: Tensor) -> dict[str, Any]:
        """Return the arguments of a call besides the tokens."""
        return {"position_ids": document_positions(tokens_BT, self._ends), **self._fixed}


def document_positions(tokens_BT: Tensor, ends: Sequence[int]) -> Tensor:
    """Return each token's place in its document, from 0, shape (B, T)."""
    place_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device).expand_as(tokens_BT)
    begins_BT = torch.stack([tokens_BT == end for end in ends]).any(0)
    return place_BT - torch.where(begins_BT, place_BT, 0).cummax(1).values


def check_apart(model: nn.Module, length: int, vocab_size: int) -> None:
    """Check that a document's outputs are the same whatever comes before it in its row."""
    half, name = min(length, _SHORT) // 2, type(model).__name__
    if half < 2 or vocab_size < 4:
        return
    kind = str(getattr(getattr(model, "config", None), "_attn_implementation", ""))
    if kind.startswith("flash"):
        raise ConfigError(
            f"{_FIELD}: model.options.attn_implementation: {kind} keeps documents apart in single"
            " rows only; give sdpa or flex_attention"
        )
    try:
        cross, alone, within = _influences(model, half, vocab_size)
    except Exception as error:  # whatever a model raises that is not made for it
        lines = [*filter(None, map(str.strip, str(error).splitlines())), type(error).__name__]
        raise ConfigError(f"{_FIELD}: {name} cannot be called so: {lines[0][:200]}") from error
    if not max(cross, alone) <= _LEAK * within:
        raise ConfigError(
            f"{_FIELD}: {name} does not keep documents apart by position_ids: what it predicts in"
            " one depends on the one before it; leave it out, or take another model"
        )


@torch.no_grad()
def _influences(model: nn.Module, half: int, vocab_size: int) -> tuple[float, float, float]:
    """Return how much outputs for a document change by what surrounds it, and by itself."""
    draws = torch.Generator().manual_seed(0)
    before, other, own = torch.randint(vocab_size, (3, half), generator=draws)
    other = torch.where(other == before, (other + 1) % vocab_size, other)
    changed = own.clone()
    changed[0] = (own[0] + 1) % vocab_size
    rows = torch.stack([torch.cat(p) for p in ((before, own), (other, own), (before, changed))])
    places = torch.arange(half).repeat(3, 2)
    known = _fixed(model)
    was_training = model.training
    model.eval()
    try:
        output = logits_of(model(rows, position_ids=places, **known))[:, half:]
        alone = logits_of(model(own[None], position_ids=places[:1, :half], **known))[0]
    finally:
        model.train(was_training)
    same, elsewhere, moved = output
    largest = [(same - one).abs().max().item() for one in (elsewhere, alone)]
    return largest[0], largest[1], (same - moved)[1:].abs().max().item()


def _fixed(model: nn.Module) -> dict[str, Any]:
    """Return what goes with positions: with a cache transformers makes no masks of them."""
    return {"use_cache": False} if "use_cache" in _taken(model) else {}


def _taken(model: nn.Module) -> Mapping[str, Any]:
    return inspect.signature(model.forward).parameters
