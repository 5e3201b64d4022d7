"""Metrics of a run: losses by domain, held-out losses, throughput, and counts of experts.

A resumed run writes the same lines and records as an uninterrupted one; time is that of training
steps only. Metrics do not affect training.

Shapes: B sequences, D domains, M evaluation domains, R rows, W tokens of a row.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixopt.corpus import Corpus
from mixopt.errors import RoutingError
from mixopt.online import (
    COUNT,
    LOSS,
    UNIT,
    DomainLosses,
    HeldOut,
    held_out_losses,
    is_first,
    on_first,
    summed,
)
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.ranks import Ranks
from mixopt.pretraining.training_step import StepOutcome, Trainer, token_losses
from mixopt.routing import (
    EXPERTS,
    ExpertRecord,
    RouterStats,
    has_experts,
    named_adapters,
    training_scalars,
)
from mixopt.system import AnyArray, IntArray

# Peaks in dense bfloat16 (V100: float16) as makers state them; the first matching name counts.
_PEAK_FLOPS = {
    "B200": 2.25e15,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "A40": 150e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L4": 121e12,
    "V100": 125e12,
    "MI300X": 1307e12,
    "MI250X": 191e12,
}
WINDOWS = 20  # of expert counts in a run
SHARE_DIGITS = 9  # after the point: a sampler's state does not keep the last ones

Sums = dict[str, tuple[float, int]]  # loss in nats and number of tokens, by evaluation domain


@dataclass(frozen=True)
class LossTotals:
    """Losses of some steps over all ranks, in integer units of 1 / UNIT nats.

    Attributes:
        units_D: Loss of each domain's tokens.
        tokens_D: Tokens of each domain.
        auxiliary_units: Auxiliary losses, each counted once for each sequence of its pass.
        sequences: Sequences with an auxiliary loss.
    """

    units_D: Sequence[int]
    tokens_D: Sequence[int]
    auxiliary_units: int
    sequences: int

    @classmethod
    def of(cls, sums_RD: IntArray) -> LossTotals:
        """Name the sums of DomainLosses, whose last column is for auxiliary losses."""
        units = sums_RD[LOSS].tolist()
        counts = sums_RD[COUNT].tolist()
        return cls(
            units_D=units[:-1],
            tokens_D=counts[:-1],
            auxiliary_units=units[-1],
            sequences=counts[-1],
        )

    @property
    def tokens(self) -> int:
        """Tokens of all domains."""
        return sum(self.tokens_D)

    @property
    def loss(self) -> float | None:
        """Mean loss of a token in nats."""
        return _mean_nats(sum(self.units_D), self.tokens)

    @property
    def auxiliary_loss(self) -> float | None:
        """Mean auxiliary loss in nats."""
        return _mean_nats(self.auxiliary_units, self.sequences)


def _mean_nats(units: int, count: int) -> float | None:
    return units / (UNIT * count) if count else None


class Meter:
    """Accumulates metrics between two lines, on every rank.

    Sums are integers, so that lines do not depend on the numbers of ranks and checkpoints.
    """

    def __init__(
        self, domains: tuple[str, ...], config: PretrainConfig, *, flops: float, peak: float
    ) -> None:
        self._domains = domains
        self._tokens_before = config.tokens_before
        self._flops = flops
        self._peak = peak
        self._losses = DomainLosses([1.0] * (len(domains) + 1))  # the last: auxiliary losses
        self._steps = 0
        self._seconds = 0.0
        self._since = time.monotonic()
        self.skipped = 0

    def add(self, outcome: StepOutcome) -> None:
        """Add a step; losses of a skipped step are left out."""
        self._steps += 1
        if outcome.skipped:
            self.skipped += 1
            return
        for k, (losses_BT, domain_B) in enumerate(outcome.parts):
            self._losses.add(losses_BT, domain_B, None)
            if outcome.added_P is not None:
                added_B = outcome.added_P[k].expand(domain_B.shape)
                self._losses.add(added_B, torch.full_like(domain_B, len(self._domains)), None)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums since the last line over all ranks; all ranks call it."""
        return {"skipped": self.skipped, "sums": summed(self._losses.totals_RD).tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state; rank 0 takes the sums of all ranks."""
        self.skipped = state["skipped"]
        if is_first():
            self._losses.put(torch.tensor(state["sums"]))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time of the block."""
        self._seconds += time.monotonic() - self._since
        yield
        self._since = time.monotonic()

    def line(self, step: int, outcome: StepOutcome, weights: Mapping[str, float]) -> dict[str, Any]:
        """Return the line of the steps since the last one; all ranks call it together."""
        totals = LossTotals.of(summed(self._losses.take()))
        train_loss: dict[str, float | None] = {}
        realised: dict[str, float] = {}
        for name, units, tokens in zip(self._domains, totals.units_D, totals.tokens_D, strict=True):
            if tokens:
                train_loss[name] = _mean_nats(units, tokens)
            if totals.tokens:
                realised[name] = tokens / totals.tokens
        with self.paused():
            tokens_per_second = self._tokens_before(self._steps) / max(self._seconds, 1e-9)
            self._seconds = 0.0
            self._steps = 0
        mfu = None
        if self._flops and self._peak:
            mfu = tokens_per_second * self._flops / self._peak
        norm = outcome.gradient_norm
        line = {
            "step": step,
            "tokens": self._tokens_before(step),
            "loss": totals.loss,
            "auxiliary_loss": totals.auxiliary_loss,
            "learning_rate": outcome.learning_rate,
            "gradient_norm": norm if math.isfinite(norm) else None,
            "skipped": self.skipped,
            "tokens_per_second": tokens_per_second,
            "mfu": mfu,
            "train_loss": train_loss,
            "weight": shares(weights),
            "realised": shares(realised),
        }
        return {name: value for name, value in line.items() if value is not None}


def peak_flops(device: torch.device) -> float:
    """Return the peak FLOPS of a known GPU; 0 for others and CPUs."""
    if device.type != "cuda":
        return 0.0
    name = torch.cuda.get_device_name(device)
    for known_name, flops in _PEAK_FLOPS.items():
        if known_name in name:
            return flops
    return 0.0


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """Return rounded weights."""
    return {name: round(weight, SHARE_DIGITS) for name, weight in weights.items()}


class HeldOutText:
    """Held-out rows of this rank, and their losses by evaluation domain."""

    def __init__(
        self, corpus: Corpus, config: PretrainConfig, ranks: Ranks, trainer: Trainer
    ) -> None:
        """Read the rows, at least one for each evaluation domain."""
        length = config.row_length
        max_rows = max(1, config.held_out.tokens // config.training.sequence_length)
        rows: list[AnyArray] = []
        for domain in corpus.evaluation:
            count = min(max_rows, domain.validation.tokens // length)
            rows.append(domain.validation.rows(np.arange(count) * length, length))
        tokens_RW = np.concatenate(rows).astype(np.int64)
        size = config.rows_of_pass(ranks.count)
        padded = math.ceil(len(tokens_RW) / (size * ranks.count)) * size * ranks.count
        # Rows are repeated to whole passes of all ranks, as rows of a domain after the last.
        counts = [len(domain_rows) for domain_rows in rows]
        counts.append(padded - len(tokens_RW))
        domain_R = np.repeat(np.arange(len(counts)), counts)
        of_rank = slice(ranks.rank, None, ranks.count)
        tokens_PBW = np.resize(tokens_RW, (padded, length)).reshape(-1, size, length)[of_rank]
        domain_PB = domain_R.reshape(-1, size)[of_rank]
        self._passes = list(zip(tokens_PBW, domain_PB, strict=True))
        self.names = corpus.evaluation_names
        self._trainer = trainer
        self._device = ranks.device
        self._sums: Sums | None = None

    def sums(self) -> Sums:
        """Return sums of losses and tokens of this rank, by evaluation domain."""
        if self._sums is not None:
            return self._sums
        sums_2M = torch.zeros(2, len(self.names) + 1, dtype=torch.float64, device=self._device)
        for tokens, domain in self._passes:
            tokens_BW = torch.from_numpy(tokens).to(self._device)
            domain_B = torch.from_numpy(domain).to(self._device)
            output = self._trainer.evaluate(tokens_BW[:, :-1])
            losses_BT = token_losses(output, tokens_BW[:, 1:]).double()
            sums_2B = torch.stack([losses_BT.sum(1), torch.ones_like(losses_BT).sum(1)])
            # Integer units row by row, so that sums do not depend on the number of ranks.
            sums_2M.index_add_(1, domain_B, sums_2B.mul_(UNIT).round_().div_(UNIT))
        losses_M, counts_M = sums_2M.tolist()
        self._sums = {}
        for name, loss, count in zip(self.names, losses_M, counts_M, strict=False):
            self._sums[name] = (loss, int(count))
        return self._sums

    def forget(self) -> None:
        """Discard cached losses after the weights have changed."""
        self._sums = None

    def line(self, step: int) -> dict[str, Any]:
        """Return the line of an evaluation, nats per token."""
        held_out = held_out_losses(self.sums, self.names)
        if not isinstance(held_out, HeldOut):
            return {"step": step, "trouble": held_out}
        losses = dict(zip(self.names, held_out.losses_M.tolist(), strict=True))
        return {"step": step, "held_out_loss": losses}


class ExpertWatch:
    """Counts of a run's experts on one rank; all ranks call the same methods."""

    def __init__(
        self, model: nn.Module, domains: Sequence[str], config: PretrainConfig, out: Path
    ) -> None:
        """Attach to the model before its first step."""
        # The model is in training mode only inside `counting`.
        adapters = named_adapters(config.experts.adapters)
        self.stats = RouterStats.attach(model, domains, adapters=adapters, evaluation=True)
        self.record = ExpertRecord(out / EXPERTS)
        self.every = config.experts.every or math.ceil(config.training.steps / WINDOWS)
        self._begun = 0

    @contextmanager
    def counting(self, domain_B: Tensor, length: int, positions: Sequence[int]) -> Iterator[None]:
        """Count the forward passes of the block."""
        domain_BT = domain_B[:, None].expand(-1, length)
        with _or_uncounted(), self.stats.domains(domain_BT, position=positions):
            yield

    def end_window(self, step: int) -> dict[str, float]:
        """Write the counts since the last window, and return its scalars."""
        self.stats.reduce()
        window = self.stats.window()
        start = self._begun
        self._begun = step
        on_first(lambda: self.record.write_window(start, step, window))
        return training_scalars(window)

    def state(self) -> dict[str, Any]:
        """Return the unfinished window, for a checkpoint."""
        self.stats.reduce()
        return {"begun": self._begun, **self.stats.state_dict()}

    def resume(self, state: Mapping[str, Any] | None, step: int) -> None:
        """Resume after a step; later records are dropped."""
        on_first(lambda: self.record.cut(step))
        self._begun = step
        if state is not None:  # the checkpoint has counts
            self._begun = state["begun"]
            self.stats.load_state_dict(state)


def watch_of(
    model: nn.Module, domains: Sequence[str], config: PretrainConfig, out: Path
) -> ExpertWatch | None:
    """Return the counter of the model's experts; None without experts or if disabled."""
    enabled = config.experts.enabled
    if enabled is False:
        return None
    if enabled == "auto" and not config.experts.adapters and not has_experts(model):
        return None
    with _or_uncounted(f"experts.enabled: {str(enabled).lower()}: "):
        return ExpertWatch(model, domains, config, out)


@contextmanager
def _or_uncounted(where: str = "") -> Iterator[None]:
    """Add to errors of counting how to train without it."""
    try:
        yield
    except RoutingError as error:
        why = f"{where}{error}; experts.enabled: false trains without counting"
        raise RoutingError(why) from error
