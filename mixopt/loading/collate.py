"""Put samples together as a batch of numpy arrays; torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np

from mixopt.errors import SamplerError

Batch = dict[str, Any]


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
        return len(self.batch["row"])

    @overload
    def __getitem__(self, index: int) -> Batch: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Batch]: ...

    def __getitem__(self, index: int | slice) -> Batch | Sequence[Batch]:
        """Return one sample, or some."""
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        parts = self.batch.items()
        return {name: part[index] for name, part in parts if name != "cu_seqlens"}


def stack_samples(samples: Sequence[Any]) -> Batch:
    """Stack the fields of samples that have one shape; other fields become lists.

    As `collate_fn` of a DataLoader with workers it is much quicker than the default, because
    arrays go through a pipe and each tensor would take a file descriptor and a mapping.

    Raises:
        SamplerError: Arrays of different shapes.
    """
    if isinstance(samples, TokenSamples):
        return samples.batch
    return {name: _stacked(name, [sample[name] for sample in samples]) for name in samples[0]}


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
