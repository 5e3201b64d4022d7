"""From items to token ids: which tokens are scored, and how many bytes they stand for.

The context with its answer is encoded as one text, since a model meets it so in training. Every
token that ends after the context is scored, and the bytes of exactly these tokens count. Where
context and answer share a token, the part of the context in it is scored with the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mixopt.config import OF_CHOICES
from mixopt.errors import ConfigError
from mixopt.system import IntArray
from mixopt.tasks.encoded_task import EncodedTask
from mixopt.tasks.items import Item


class Spans(NamedTuple):
    """A text as tokens, and the bytes of UTF-8 of it that each stands for.

    Attributes:
        tokens_T: Token ids.
        end_T: Bytes up to the end of each token.
    """

    tokens_T: NDArray[Any]
    end_T: IntArray


class TextTokens(Protocol):
    """What tasks need of a tokenizer (mixopt.corpus.Tokenizer)."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    @property
    def end_of_document(self) -> int:
        """Id that follows every document."""
        ...

    def spans(self, texts: Sequence[str]) -> list[Spans]:
        """Return the tokens of each text, and where they end."""
        ...


class _AnswerRow(NamedTuple):
    item: int
    choice: int
    context: str
    answer: str


def encode_task(
    name: str,
    items: Sequence[Item],
    metrics: Sequence[str],
    normalisation: str,
    tokenizer: TextTokens,
) -> EncodedTask:
    """Encode the items that a task's metrics need.

    Args:
        name: The task.
        items: At least one.
        metrics: What is measured; all choices are encoded where a metric compares them.
        normalisation: What choices are compared by.
        tokenizer: The corpus's.

    Raises:
        ConfigError: A metric that compares choices, of items that have one; or `unconditional`, of
            items that have no context without the question; or an answer without a token.
    """
    compared = [metric for metric in metrics if metric in OF_CHOICES]
    rows = _rows(name, items, compared[0] if compared else None, normalisation)
    encoded = tokenizer.spans([row.context + row.answer for row in rows])
    tokens, starts, scored, sizes = [], [0], [], []
    for row, spans in zip(rows, encoded, strict=True):
        first = scored_from(spans, row.context)
        if first == len(spans.end_T):
            raise ConfigError(
                f"task {name!r}: item {items[row.item].id!r}: the tokenizer has no token for the"
                f" answer {row.answer[:40]!r}; leave the item out, or use another tokenizer"
            )
        before = int(spans.end_T[first - 1]) if first else 0
        tokens += [np.array([tokenizer.end_of_document]), spans.tokens_T]
        starts.append(starts[-1] + 1 + len(spans.tokens_T))
        scored.append(1 + first)
        sizes.append(int(spans.end_T[-1]) - before)
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    return EncodedTask(
        name,
        tuple(metrics),
        normalisation,
        np.concatenate(tokens).astype(dtype),
        np.array(starts),
        np.array(scored),
        np.array(sizes),
        np.array([len(row.answer) for row in rows]),
        np.array([row.item for row in rows]),
        np.array([row.choice for row in rows]),
        np.array([item.gold for item in items]),
        np.array([item.weight for item in items]),
        tuple(item.id for item in items),
    )


def scored_from(spans: Spans, context: str) -> int:
    """Return which token of a context with its answer is the first that ends after the context."""
    return int(np.searchsorted(spans.end_T, len(context.encode()), side="right"))


def _rows(
    name: str, items: Sequence[Item], compared: str | None, normalisation: str
) -> list[_AnswerRow]:
    rows = []
    for place, item in enumerate(items):
        if compared is None:
            rows.append(_AnswerRow(place, item.gold, item.contexts[item.gold], item.answer))
            continue
        if len(item.choices) < 2:
            raise ConfigError(
                f"task {name!r}: item {item.id!r} has one answer, but {compared} compares "
                "several; set metric: bits_per_byte"
            )
        pairs = enumerate(zip(item.contexts, item.choices, strict=True))
        rows += [_AnswerRow(place, k, context, answer) for k, (context, answer) in pairs]
        if normalisation == "unconditional":
            if item.unconditional is None:
                raise ConfigError(
                    f"task {name!r}: item {item.id!r} has no field 'unconditional', which "
                    "normalisation: unconditional needs"
                )
            plain = item.unconditional
            rows += [_AnswerRow(place, -1 - k, plain, text) for k, text in enumerate(item.choices)]
    return rows
