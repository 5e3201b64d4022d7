"""Read the choices of a router in the current pass, token by token.

A choice is made for a token as a rule. Where it is made for a patch of tokens or for a sequence, it
is the choice of each of its tokens: so labels may be of tokens all the same, and padding is left
out exactly.

Shapes: N choices, T tokens, K places of a token, E experts, H outputs of an expert.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mixopt.errors import RoutingError
from mixopt.routing.counters.adapters import EXAMPLE, FoundRouter

_SHOWN = 200  # letters of another's error
UNUSED = -1  # the id that stands for a place without an expert


class RoutedTokens(NamedTuple):
    """What a router chose.

    Attributes:
        ids: Experts of each token, shape (T, K): -1 stands for a place that is not used and, where
            the router drops, E for a choice that was dropped.
        logits: Of all experts, shape (T, E), or None.
        weights: With which the output of each chosen expert is taken, shape (T, K), or None.
        shared: Share of the shared experts in each token's output, shape (T,), or None.
        outputs: What each expert gave for each token, shape (T, E, H), or None.
    """

    ids: Tensor
    logits: Tensor | None = None
    weights: Tensor | None = None
    shared: Tensor | None = None
    outputs: Tensor | None = None


def read_output(router: FoundRouter, output: Any, tokens: int, sequences: int) -> RoutedTokens:
    """Return what a router chose for each token.

    Args:
        router: The router.
        output: What its module returned.
        tokens: T of the batch, padding included.
        sequences: Of the batch.

    Raises:
        RoutingError: The output is not what the adapter says, or of another number of tokens.
    """
    try:
        read: Any = _read(router, output)  # what is not a tensor is found when it is used
        given = RoutedTokens(*read)
        ids = _of_gates(router, given.weights) if given.ids is None else given.ids
        odd = ids.is_floating_point() or ids.dtype == torch.bool or ids.shape[-1] != router.top_k
    except (IndexError, AttributeError, TypeError, KeyError) as error:
        raise _unreadable(router, f"cannot be read: {_said(error)}") from error
    if odd:
        raise _unreadable(
            router,
            f"gave ids of {ids.dtype} and shape {tuple(ids.shape)}; integers of shape"
            f" (tokens, {router.top_k}) are needed",
        )
    ids = ids.reshape(-1, router.top_k)
    choices = ids.shape[0]
    times = _tokens_of_a_choice(router, choices, tokens, sequences)
    of_tokens = _parts_of_tokens(router, given, choices, times)
    if router.idle:  # what no expert computes is counted as dropped
        ids = ids.clamp(max=router.experts)
    return of_tokens._replace(ids=_repeated(ids, times))


def _read(router: FoundRouter, output: Any) -> Any:
    """Return what an adapter reads; whatever it raises is the adapter's, but a lack of memory."""
    try:
        return router.read(output)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise _unreadable(router, f"cannot be read: {_said(error)}") from error


def _said(error: Exception) -> str:
    """Return an error on one line."""
    first = (str(error).strip().splitlines() or [""])[0][:_SHOWN]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _parts_of_tokens(
    router: FoundRouter, given: RoutedTokens, choices: int, times: int
) -> RoutedTokens:
    """Return what was given beside the ids, checked, of tokens."""
    logits, weights, shared, outputs = given[1:]
    every = router.experts + router.idle
    if logits is not None:
        logits = _of_tokens(router, "logits", logits, choices, (every,), times)
    if weights is not None:
        weights = _of_tokens(router, "weights", weights, choices, (router.top_k,), times)
    if shared is not None:
        shared = _of_tokens(router, "shared", shared, choices, (), times)
    if outputs is not None:
        outputs = _of_tokens(router, "outputs", outputs, choices, (router.experts, -1), times)
    return RoutedTokens(given.ids, logits, weights, shared, outputs)


def _of_gates(router: FoundRouter, weights: Tensor | None) -> Tensor:
    """Return the ids of gates over all experts: those above 0 are chosen."""
    if weights is None:
        raise TypeError("neither ids nor weights")
    if weights.shape[-1] != router.experts:
        raise TypeError(f"weights of {weights.shape[-1]} experts; it has {router.experts}")
    numbers_E = torch.arange(router.experts, device=weights.device)
    return torch.where(weights > 0, numbers_E, UNUSED)


def _tokens_of_a_choice(router: FoundRouter, choices: int, tokens: int, sequences: int) -> int:
    """Return how many tokens a choice is for, one after the other in the batch."""
    if router.span == "sequence":
        fits, span = choices == sequences, tokens // max(sequences, 1)
    else:
        fits, span = choices * router.span == tokens, router.span
    if fits:
        return span
    what = "tokens" if router.span == 1 else f"choices, each for a {_span_text(router.span)}"
    raise RoutingError(
        f"router {router.name!r} ran on {choices} {what}; the domains are of {tokens}, in"
        f" {sequences} sequences: give `stats.domains` those of this forward pass, padding included"
    )


def _span_text(span: int | str) -> str:
    return "whole sequence" if span == "sequence" else f"patch of {span} tokens"


def _of_tokens(
    router: FoundRouter, name: str, part: Tensor, choices: int, width: tuple[int, ...], times: int
) -> Tensor:
    wanted = part.shape[len(part.shape) - len(width) :]
    if wanted != width and any(w not in {-1, size} for w, size in zip(width, wanted, strict=True)):
        if name == "logits":
            raise _unreadable(router, f"gave logits of {part.shape[-1]} experts; it has {width[0]}")
        raise _unreadable(router, f"gave {name} of shape {tuple(part.shape)}")
    part, shape = part.detach(), (choices, *wanted)
    if part.shape == shape:
        return _repeated(part, times)
    if part.numel() != math.prod(shape):
        raise _unreadable(router, f"gave {name} of shape {tuple(part.shape)} for {choices} tokens")
    return _repeated(part.reshape(shape), times)


def _repeated(part: Tensor, times: int) -> Tensor:
    return part if times == 1 else part.repeat_interleave(times, 0)


def _unreadable(router: FoundRouter, what: str) -> RoutingError:
    kind = type(router.module).__name__
    return RoutingError(
        f"router {router.name!r}: what {kind} returns {what}; give"
        f" attach(adapters=[...]), such as {EXAMPLE}"
    )
