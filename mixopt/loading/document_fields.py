"""The tokens and labels of one document, from the fields of a sample.

Labels are the tokens that carry loss, -100 elsewhere, not shifted, as in transformers. A mask of
TRL's says the same by zeros and ones; a token that an attention mask leaves out is padding of the
source's own and is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixopt.errors import CorpusError
from mixopt.loading.packing import NO_LOSS
from mixopt.system import IntArray

Tokenize = Callable[[Any], Any]

TOKENS, LABELS, ATTENTION = "input_ids", "labels", "attention_mask"
LOSS_MASKS = ("assistant_masks", "completion_mask")
FIELDS = (TOKENS, LABELS, ATTENTION, *LOSS_MASKS)
_MOST = 2**31 - 1


class TokenDocument(NamedTuple):
    """A document that is tokens.

    Attributes:
        tokens_T: The tokens, in the type that they are given in.
        labels_T: The label of each, not shifted; None where all of them carry loss.
    """

    tokens_T: NDArray[Any]
    labels_T: IntArray | None


def document_of(sample: Any, name: str, tokenize: Tokenize | None = None) -> TokenDocument:
    """Read a sample: a list of tokens, or fields.

    Args:
        sample: Tokens, or `input_ids` with, if you like, `labels`, `attention_mask`,
            `assistant_masks`, `completion_mask`.
        name: What the sample is, for messages.
        tokenize: Turns the sample into such a one.

    Raises:
        CorpusError: No tokens, ids that are no tokens, or fields of different lengths.
    """
    if tokenize is not None:
        sample = tokenize(sample)
    fields = sample if isinstance(sample, Mapping) else {TOKENS: sample}
    if fields.get(TOKENS) is None:
        raise CorpusError(
            f"{name}: has no input_ids, but {', '.join(map(str, fields)) or 'nothing'}; tokenise"
            " it, or give tokenize="
        )
    tokens = _tokens(fields[TOKENS], name)
    labels = _labels(fields, tokens, name)
    if fields.get(ATTENTION) is not None:
        is_there = _as_long(fields, ATTENTION, tokens, name) != 0
        tokens, labels = tokens[is_there], None if labels is None else labels[is_there]
    return TokenDocument(tokens, labels)


def labels_of(documents: Sequence[TokenDocument]) -> list[NDArray[Any]] | None:
    """Return the labels of each document; None where all tokens of all of them carry loss."""
    if all(one.labels_T is None for one in documents):
        return None
    return [one.tokens_T if one.labels_T is None else one.labels_T for one in documents]


def _tokens(values: Any, name: str) -> NDArray[Any]:
    tokens = _array(values)
    if not tokens.size and tokens.ndim == 1:
        return tokens.astype(np.int64)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        kind = f"{tokens.ndim} dimensions of {tokens.dtype}"
        raise CorpusError(f"{name}: input_ids: has {kind}; a document is one list of whole numbers")
    least, most = int(tokens.min()), int(tokens.max())
    if least < 0 or most > _MOST:
        wrong = least if least < 0 else most
        raise CorpusError(f"{name}: input_ids: {wrong} is not a token id; ids are 0 to {_MOST}")
    return tokens


def _labels(fields: Mapping[str, Any], tokens: NDArray[Any], name: str) -> IntArray | None:
    masks = [field for field in LOSS_MASKS if fields.get(field) is not None]
    has_labels = fields.get(LABELS) is not None
    if not masks and not has_labels:
        return None
    given = _as_long(fields, LABELS, tokens, name) if has_labels else tokens
    labels = given.astype(np.int64)
    for field in masks:
        labels[_as_long(fields, field, tokens, name) == 0] = NO_LOSS
    return labels


def _as_long(
    fields: Mapping[str, Any], field: str, tokens: NDArray[Any], name: str
) -> NDArray[Any]:
    values = _array(fields[field])
    if values.shape != tokens.shape:
        raise CorpusError(
            f"{name}: {field}: {len(values)} values for {len(tokens)} input_ids; they must be "
            "equal in number"
        )
    return values


def _array(values: Any) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError:  # rows of different lengths
        return np.empty((0, 0))
