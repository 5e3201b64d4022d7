"""Train on a mixture with torchtitan.

    from mixopt.integrations.torchtitan import MixtureDataLoader

    config.dataloader = MixtureDataLoader.Config(corpus="runs/web/corpus", mixture="mixture.yaml")

torchtitan builds the loader with the data-parallel rank of its mesh, so that peers in tensor,
pipeline and context parallelism get the same rows. Its own loaders save a state per rank and refuse
another number of ranks; the state of this loader is a single entry of the checkpoint, which loads
on any number.

The release builds loaders with `seq_len` and `local_batch_size` and takes rows; its main branch
uses `max_context_length` and `num_tokens_per_batch`, and takes the concatenated tokens of a batch.
This module supports both.

Shapes: B rows of this rank, L tokens of a row that the model reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro  # type: ignore[import-not-found,unused-ignore]

from mixopt.errors import SamplerError
from mixopt.integrations.dcp import MixtureState
from mixopt.loading import NO_LOSS, Batch, MixtureDataset, MixtureLoader, positions_in
from mixopt.mixture import Mixture
from mixopt.sampling import MixtureSampler, Schedule, ScheduleEntry, is_schedule

try:  # the main branch
    from torchtitan.components.data.loader import BaseDataLoader  # type: ignore[import-not-found,unused-ignore]
except ImportError:  # 0.3
    from torchtitan.components.dataloader import BaseDataLoader  # type: ignore[import-not-found,unused-ignore]


class MixtureDataLoader(BaseDataLoader):  # type: ignore[misc,unused-ignore]
    """Batches of this data-parallel rank in torchtitan's format, with `positions` by document."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):  # type: ignore[misc,unused-ignore]
        """The data to train on.

        Attributes:
            corpus: A corpus folder written by `mixopt run`; rows are one token longer than the
                sequence, so that labels are the next tokens.
            mixture: A file of weights (a proposal, a recommendation, a mixture), or a schedule,
                whose batch is that of an optimizer step.
            seed: Seed of the order of rows.
            document_end: The tokenizer's end-of-document id: positions restart after it, and the
                first token of the next document is not predicted.
            split: `train`, or `validation` for a validator's loader.
            rows: The user's own dataset instead of `corpus`.
        """

        corpus: str = ""
        mixture: str = ""
        seed: int = 0
        document_end: int | None = None
        split: str = "train"
        rows: Annotated[MixtureDataset | None, tyro.conf.Suppress] = None

    def __init__(
        self,
        config: Config,
        *,
        dp_world_size: int,
        dp_rank: int,
        seq_len: int | None = None,
        local_batch_size: int | None = None,
        max_context_length: int | None = None,
        num_tokens_per_batch: int | None = None,
        **_: Any,
    ) -> None:
        """Open the corpus; torchtitan calls this.

        Args:
            config: The data to train on.
            dp_world_size: Number of data-parallel ranks.
            dp_rank: This data-parallel rank.
            seq_len: Tokens of a sequence, in the release.
            local_batch_size: Sequences of a rank's batch, in the release.
            max_context_length: Tokens of a sequence, in the main branch.
            num_tokens_per_batch: Tokens of a rank's batch, in the main branch.

        Raises:
            SamplerError: Neither a corpus nor rows, no mixture, or tokens that are not a multiple
                of the sequence length.
        """
        self.flat = num_tokens_per_batch is not None
        length = max_context_length if self.flat else seq_len
        if length is None:
            raise SamplerError("MixtureDataLoader needs seq_len=; torchtitan's Trainer passes it")
        rows = local_batch_size or 1
        if num_tokens_per_batch is not None:
            rows, rest = divmod(num_tokens_per_batch, length)
            if rest or not rows:
                raise SamplerError(
                    f"training.num_tokens_per_microbatch_per_dp_rank {num_tokens_per_batch} is not"
                    f" a multiple of max_context_length {length}; use {max(rows, 1) * length}"
                )
        self.length = length
        dataset = _open_dataset(config, length)
        batch = rows * dp_world_size
        mixture, schedule = _mixtures(config, batch, length)
        sampler = MixtureSampler(
            dataset.sizes,
            mixture,
            batch_size=batch,
            schedule=schedule,
            seed=config.seed,
            rank=dp_rank,
            world_size=dp_world_size,
        )
        self.mixture = MixtureLoader(dataset, sampler)
        self._state = MixtureState(self.mixture)
        self._batches: Iterator[Batch] | None = None

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        self.close()
        batches = self._batches = iter(self.mixture)
        for batch in batches:
            yield self._as_torchtitan(batch)

    def close(self) -> None:
        """Stop the prefetching thread."""
        if self._batches is not None:
            self._batches.close()  # type: ignore[attr-defined]
            self._batches = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the last received batch, as one entry; compare the ranks."""
        return self._state.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a state; if empty, start from the beginning, as torchtitan's loaders do."""
        if state_dict:
            self._state.load_state_dict(state_dict)

    def _as_torchtitan(self, batch: Batch) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        tokens = torch.as_tensor(batch["input_ids"])
        if tokens.ndim != 2 or tokens.shape[1] != self.length + 1:
            raise SamplerError(
                f"rows have the shape {tuple(tokens.shape[1:])}; sequences of {self.length} tokens"
                f" need rows of {self.length + 1}: MixtureDataset(length={self.length + 1})"
            )
        labels = torch.as_tensor(batch.get("labels", tokens))[:, 1:].clone()
        positions = torch.as_tensor(positions_of(batch))
        labels[positions[:, 1:] == 0] = NO_LOSS
        inputs = {"input": tokens[:, :-1], "positions": positions[:, :-1]}
        if self.flat:
            return {name: value.reshape(-1) for name, value in inputs.items()}, labels.reshape(-1)
        return {name: value.contiguous() for name, value in inputs.items()}, labels


def positions_of(batch: Batch) -> Any:
    """Return the position of each token in its document, from 0, shape (B, L + 1)."""
    if "position_ids" in batch:
        return batch["position_ids"]
    document = batch.get("document", np.zeros(batch["input_ids"].shape))
    return positions_in(np.asarray(document))


def _open_dataset(config: Any, length: int) -> MixtureDataset:
    if (config.rows is None) == (not config.corpus):
        raise SamplerError("MixtureDataLoader.Config: give exactly one of corpus= and rows=")
    if config.rows is not None:
        rows: MixtureDataset = config.rows
        return rows
    return MixtureDataset.from_corpus(
        config.corpus, length=length + 1, split=config.split, document_end=config.document_end
    )


def _mixtures(config: Any, batch: int, length: int) -> tuple[Mixture, list[ScheduleEntry]]:
    """Return the first mixture, and schedule entries by first batch of the loader."""
    if not config.mixture:
        raise SamplerError("MixtureDataLoader.Config: mixture= is missing; name a file of weights")
    path = Path(config.mixture)
    if not is_schedule(path):
        return Mixture.from_file(path), []
    schedule = Schedule.from_file(path)
    if schedule.batch % batch:
        raise SamplerError(
            f"{path}: batch: {schedule.batch} sequences of a step are not a multiple of {batch},"
            " the local batch over all data-parallel ranks"
        )
    if schedule.sequence_length != length:
        raise SamplerError(
            f"{path}: sequence_length: {schedule.sequence_length}; torchtitan trains on sequences"
            f" of {length}"
        )
    batches_per_step = schedule.batch // batch
    entries = [_in_batches(entry, batches_per_step) for entry in schedule.entries]
    return entries[0][1], entries  # the first entry as well, since it may be linear


def _in_batches(entry: ScheduleEntry, batches_per_step: int) -> ScheduleEntry:
    """Return a schedule entry with steps counted in batches of the loader."""
    if len(entry) == 2:
        start, mixture = entry
        return start * batches_per_step, mixture
    start, mixture, end, last = entry
    return start * batches_per_step, mixture, end * batches_per_step, last
