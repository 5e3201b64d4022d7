"""Train on a mixture with Megatron-Core: a dataset in place of its BlendedDataset.

Megatron's samplers count samples over all data-parallel ranks: `dataset[n]` is the n-th sample of
the run, and a run resumes at `consumed_samples`. A MixtureSampler computes its order up to that
number, tens of thousands of batches a second, so there is no state: any number of ranks, micro
batches and workers reads the same stream. Weights may change by schedule.

Shapes: L tokens of a sequence, W = L + 1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from mixopt.errors import SamplerError
from mixopt.loading import MixtureDataset, positions_in
from mixopt.sampling import MixtureSampler, Schedule, ScheduleEntry, Weights, at_least


class MegatronMixture(Dataset[dict[str, Any]]):
    """The samples of a run in order, with the fields of Megatron's batches."""

    def __init__(
        self,
        datasets: Mapping[str, Any] | MixtureDataset,
        weights: Weights | None = None,
        *,
        samples: int,
        global_batch_size: int | None = None,
        seed: int = 0,
        schedule: Schedule | Sequence[ScheduleEntry | tuple[int, Weights]] = (),
        max_epochs: float | Mapping[str, float] | None = None,
        attention_mask: bool = False,
    ) -> None:
        """Lay out the order.

        Args:
            datasets: Each domain's GPTDataset of one epoch, as `epochs_of` builds them, or a
                MixtureDataset of rows of L + 1 tokens.
            weights: Share of each domain.
            samples: Samples of the whole run: `train_iters` times the global batch size.
            global_batch_size: Samples of an optimizer step, which are shuffled together.
            seed: Seed of the order.
            schedule: Later weights, each with its first global batch; or a Schedule in place of
                `weights` and `global_batch_size`.
            max_epochs: Maximum passes over a domain, one number or by domain.
            attention_mask: Add a mask by document to rows of a MixtureDataset, shape (1, L, L),
                True for hidden tokens, like `create_attention_mask` of a GPTDataset.

        Raises:
            SamplerError: The order has fewer samples, or an invalid setting.
            MixtureError: Weights that are not a mixture of these domains.
        """
        self._datasets = datasets
        self._samples = at_least(1, "samples", samples)
        self._attention_mask = attention_mask
        if isinstance(datasets, MixtureDataset):
            sizes = datasets.sizes
        else:
            sizes = {name: len(dataset) for name, dataset in datasets.items()}
        self.sampler = MixtureSampler(
            sizes,
            weights,
            batch_size=global_batch_size,
            seed=seed,
            rank=0,  # Megatron's sampler splits samples over ranks
            world_size=1,
            schedule=schedule,
            max_epochs=max_epochs,
        )
        size = self.sampler.batch_size
        if max_epochs is not None and not self.sampler.order.has((samples - 1) // size):
            available = (self.sampler.order.end() or 0) * size
            raise SamplerError(
                f"the domains end after {available} samples with max_epochs={max_epochs}, but the "
                f"run needs {samples}; lower train_iters or raise max_epochs"
            )
        self._offsets = np.array(list(accumulate(sizes.values(), initial=0)), np.int64)

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, index: int | None) -> dict[str, Any]:
        place = 0 if index is None else int(index)
        if not 0 <= place < self._samples:
            raise IndexError(f"sample {place} of {self._samples}")
        batch, number = divmod(place, self.sampler.batch_size)
        row = int(self.sampler.batch_rows(batch)[0, number])
        domain = int(np.searchsorted(self._offsets, row, side="right")) - 1
        if isinstance(self._datasets, MixtureDataset):
            sample = self._fields(self._datasets.read([row]))
        else:
            name = self.sampler.domains[domain]
            sample = dict(self._datasets[name][row - int(self._offsets[domain])])
        if index is None:
            sample["loss_mask"] = torch.zeros_like(sample["loss_mask"])
        return {"dataset_id": domain} | sample

    def _fields(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Convert a row of L + 1 tokens to the fields of Megatron's GPTDataset."""
        tokens = torch.from_numpy(batch["input_ids"][0].astype(np.int64))
        document_1W = np.zeros((1, len(tokens)), np.int64)
        if "document" in batch:
            document_1W = batch["document"][:1]
        documents = torch.from_numpy(document_1W[0].astype(np.int64))
        fields = {
            "tokens": tokens[:-1],
            "labels": tokens[1:],
            "loss_mask": (documents[1:] == documents[:-1]).float(),
            "position_ids": torch.from_numpy(positions_in(document_1W)[0, :-1]),
        }
        if self._attention_mask:
            visible = torch.tril(documents[:-1, None] == documents[None, :-1])
            fields["attention_mask"] = ~visible[None]
        return fields


def epochs_of(
    prefixes: Mapping[str, str], config: Any, is_built_on_rank: Callable[[], bool]
) -> dict[str, Any] | None:
    """Build each domain's GPTDataset of one epoch with Megatron's own builder, on every rank.

    Args:
        prefixes: Path of each domain's `.bin` and `.idx` without the suffix.
        config: A GPTDatasetConfig; its blends and splits are replaced.
        is_built_on_rank: Argument of Megatron's builder.

    Returns:
        The datasets by domain; None on ranks where the builder builds none.
    """
    from megatron.core.datasets.blended_megatron_dataset_builder import (  # type: ignore[import-not-found,unused-ignore]
        BlendedMegatronDatasetBuilder,
    )
    from megatron.core.datasets.gpt_dataset import GPTDataset  # type: ignore[import-not-found,unused-ignore]

    datasets = {}
    for name, prefix in prefixes.items():
        domain_config = replace(config, blend=([prefix], None), blend_per_split=None, split="1,0,0")
        builder = BlendedMegatronDatasetBuilder(
            GPTDataset, [None] * 3, is_built_on_rank, domain_config
        )
        train, _, _ = builder.build()
        datasets[name] = train
    return None if None in datasets.values() else datasets
