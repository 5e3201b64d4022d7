"""Put samples together as a batch of numpy arrays; torch is not imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import numpy as np

from mixopt.errors import SamplerError
from mixopt.loading.packing import batch_bounds

Batch = dict[str, Any]

OF_BATCHES = ("cu_seqlens", "max_seqlen")  # fields of a batch that its samples do not have
_OF_PACKED = ("document", "position_ids")


class TokenSamples(Sequence[Batch]):
    """The samples of a batch that was read at once; each is made when it is asked for."""

    def __init__(self, batch: Batch) -> None:
        """Keep the batch.

        Args:
            batch: What MixtureDataset.read returned.
        """
        self.batch = batch

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.batch["input_ids"])

    @overload
    def __getitem__(self, index: int) -> Batch: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Batch]: ...

    def __getitem__(self, index: int | slice) -> Batch | Sequence[Batch]:
        """Return one sample, or some."""
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        parts = self.batch.items()
        return {name: part[index] for name, part in parts if name not in OF_BATCHES}


def stack_samples(samples: Sequence[Any]) -> Batch:
    """Stack the fields of samples that have one shape; other fields become lists.

    As `collate_fn` of a DataLoader with workers it is much quicker than the default, because
    arrays go through a pipe and each tensor would take a file descriptor and a mapping. A batch of
    packed rows also says where documents begin: `cu_seqlens`, `max_seqlen`.

    Raises:
        SamplerError: Samples of different fields, or arrays of different shapes.
    """
    if isinstance(samples, TokenSamples):
        return samples.batch
    check_alike(samples)
    batch = {name: _stacked(name, [sample[name] for sample in samples]) for name in samples[0]}
    if all(getattr(batch.get(name), "ndim", 0) == 2 for name in _OF_PACKED):
        batch |= batch_bounds(batch["document"])
    return batch


def check_alike(samples: Sequence[Any], names: Callable[[int], str] = "sample {}".format) -> None:
    """Check that samples of several domains, which are in one batch, have the same fields.

    Args:
        samples: Of a batch.
        names: What to call a sample in a message, by its place in the batch.

    Raises:
        SamplerError: One has a field that another lacks.
    """
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
