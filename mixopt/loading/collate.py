"""Collate samples to batches of numpy arrays, and count their tokens; without torch.

Tokens are `input_ids` without padding by `attention_mask` or `document` (-1); tokens with loss are
`labels` other than -100. Without labels all tokens carry loss.

Shapes: B samples, D domains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mixopt.errors import CorpusError, SamplerError
from mixopt.loading.packing import NO_LOSS, batch_bounds
from mixopt.loading.sources import TokenRows
from mixopt.sampling import MixtureSampler, Unit
from mixopt.system import IntArray

Batch = dict[str, Any]

# Fields that mixopt adds to samples and batches.
ADDED = frozenset(
    ("domain", "row", "lengths", "batch", "position", "mixture", "tokens", "supervised")
)

OF_BATCHES = ("cu_seqlens", "max_seqlen")  # fields of batches, not of samples
_OF_PACKED = ("document", "position_ids")


class TokenSamples(Sequence[Batch]):
    """The samples of a batch that was read at once, created lazily."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch["input_ids"])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        parts = self.batch.items()
        return {name: part[index] for name, part in parts if name not in OF_BATCHES}


def stack_samples(samples: Sequence[Any]) -> Batch:
    """Stack fields whose shapes agree; other fields become lists.

    As `collate_fn` of a DataLoader with workers it is much faster than the default, because arrays
    go through a pipe, while each tensor needs a file descriptor and a mapping. Batches of packed
    rows also have `cu_seqlens` and `max_seqlen`.

    Raises:
        SamplerError: Samples have different fields, or arrays different shapes.
    """
    if isinstance(samples, TokenSamples):
        return samples.batch
    check_alike(samples)
    batch = {name: _stacked(name, [sample[name] for sample in samples]) for name in samples[0]}
    if all(getattr(batch.get(name), "ndim", 0) == 2 for name in _OF_PACKED):
        batch |= batch_bounds(batch["document"])
    return batch


def check_alike(samples: Sequence[Any], names: Callable[[int], str] = "sample {}".format) -> None:
    """Check that samples of all domains in a batch have the same fields."""
    first = samples[0].keys()
    for k, sample in enumerate(samples):
        if sample.keys() != first:
            lacks, has = (k, 0) if first - sample.keys() else (0, k)
            field = min(map(str, samples[has].keys() - samples[lacks].keys()))
            raise SamplerError(
                f"{names(lacks)}: no column {field!r}, which {names(has)} has, and they are in one"
                " batch; give all domains the same columns, or pass MixtureLoader(collate=)"
            )


def _stacked(name: str, values: Sequence[Any]) -> Any:
    if isinstance(values[0], str | bytes | Mapping) or values[0] is None:
        return list(values)
    try:
        return np.stack([np.asarray(value) for value in values])
    except ValueError as error:
        shapes = sorted({str(np.shape(value)) for value in values})
        raise SamplerError(
            f"field {name!r}: samples of shapes {', '.join(shapes)} cannot be stacked; pass"
            " MixtureLoader(collate=)"
        ) from error


class TokenCounts(NamedTuple):
    """Tokens of each sample, and those with loss, shape (B,)."""

    tokens_B: IntArray
    supervised_B: IntArray

    def of(self, unit: Unit) -> IntArray:
        """Return the counts in a unit."""
        return self.supervised_B if unit == "supervised" else self.tokens_B

    def by_domain(self, domain_B: IntArray, domains: int) -> TokenCounts:
        """Sum by domain, shape (D,)."""
        return TokenCounts(
            *(np.bincount(domain_B, each, domains).astype(np.int64) for each in self)
        )


def count_samples(samples: Sequence[Any]) -> TokenCounts | None:
    """Count the tokens of samples; None if they have no known token fields."""
    counts = [_counted(sample) for sample in samples]
    if None in counts:
        return None
    return TokenCounts(*np.array(counts, np.int64).reshape(-1, 2).T)


def _counted(sample: Any) -> tuple[int, int] | None:
    ids = sample.get("input_ids") if isinstance(sample, Mapping) else None
    if ids is None:
        return None
    tokens, labels = len(ids), sample.get("labels")
    document, mask = sample.get("document"), sample.get("attention_mask")
    if document is not None and np.shape(document) == (len(ids),):
        tokens = int(np.count_nonzero(np.asarray(document) >= 0))
    elif mask is not None and np.shape(mask) == (len(ids),):
        tokens = int(np.count_nonzero(mask))
    if labels is None or np.ndim(labels) != 1:
        return tokens, tokens
    return tokens, int(np.count_nonzero(np.asarray(labels) != NO_LOSS))


def sample_fields(where: str, sample: Any) -> Mapping[str, Any]:
    """Return the fields of a sample; raise for a column named like a field that mixopt adds."""
    fields = sample if isinstance(sample, Mapping) else {"sample": sample}
    if not ADDED.isdisjoint(fields):
        name = min(ADDED.intersection(fields))
        raise CorpusError(
            f"{where}: has a column {name!r}, the name of a field that mixopt adds to batches;"
            f" rename it, as in source.rename_column({name!r}, 'my_{name}')"
        )
    return fields


def label(batch: Batch, sampler: MixtureSampler, number: int) -> Batch:
    """Add number, first position and mixture to a rank's batch."""
    batch["batch"] = number
    batch["position"] = number * sampler.batch_size + sampler.rank * sampler.rank_batch
    batch["mixture"] = sampler.mixture_at(number).fingerprint
    return batch


def columns_of(source: Any) -> tuple[str, ...]:
    """Return the columns of a dataset's rows after its transform."""
    if isinstance(source, TokenRows):
        return ("input_ids",)
    columns: Iterable[str] | None = getattr(source, "column_names", None)
    view: Any = getattr(source, "format", None)
    is_transformed = isinstance(view, Mapping) and view.get("type") == "custom"
    if columns is not None and not is_transformed:
        return tuple(columns)
    first = source[0] if len(source) else None
    return tuple(map(str, first)) if isinstance(first, Mapping) else ("sample",)
