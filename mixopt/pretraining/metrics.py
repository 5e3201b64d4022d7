"""Metrics of a run, one line of JSON at a time: losses by domain, throughput, MFU.

Lines have steps, never gaps or repeats: what was written after the checkpoint that a run resumes
from is cut off. Time is that of training steps; evaluations and checkpoints are left out.

Shapes: D domains.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from mixopt.errors import RunError
from mixopt.online import COUNT, LOSS, ROWS, UNIT, DomainLosses, HeldOut, Reduction, is_first
from mixopt.pretraining.balance import ExpertBalance
from mixopt.pretraining.config import PretrainConfig
from mixopt.system import StateFields

# Dense bfloat16 (V100: float16), as the makers state it without sparsity; the first that fits.
_PEAK_FLOPS = (
    ("B200", 2.25e15),
    ("GH200", 989e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("A40", 150e12),
    ("A10", 125e12),
    ("L40S", 362e12),
    ("L4", 121e12),
    ("V100", 125e12),
    ("MI300X", 1307e12),
    ("MI250X", 191e12),
)


_ADDED = ("auxiliary_loss", "z_loss")  # what a step may add to the cross-entropy
_LEAST = -(1 << 62)


@dataclass(frozen=True)
class StepOutcome:
    """What a step came to.

    Attributes:
        learning_rate: Of the step.
        gradient_norm: Before clipping; NaN or infinite where the step was skipped for it.
        skipped: Whether a loss or gradient was not finite, so that the weights stayed.
        stopping: Whether a rank was asked to stop.
        failed: Whether a rank knows of a checkpoint that could not be written.
        parts: Losses of this rank, shape (B, T), and domains, shape (B,), of each pass.
        added_P: What this rank's passes added to their losses to balance experts; None where
            nothing was.
        z_loss_P: What they added as `training.z_loss`; None where that is not asked for.
    """

    learning_rate: float
    gradient_norm: float
    skipped: bool
    stopping: bool
    failed: bool
    parts: list[tuple[Tensor, Tensor]]
    added_P: Tensor | None = None
    z_loss_P: Tensor | None = None


class MetricsFile:
    """Lines of one file; rank 0 writes, on the others nothing happens."""

    def __init__(self, path: Path | None) -> None:
        """Name the file; None for none."""
        self._path = path
        self.size = 0

    def cut(self, size: int) -> None:
        """Go on after so many bytes."""
        self.size = size
        with self._opened() as stream:
            stream.truncate(min(size, stream.tell()))

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line, with the time; NaN is not allowed."""
        timed = {**line, "time": round(time.time(), 3)}
        content = (json.dumps(timed, ensure_ascii=False, allow_nan=False) + "\n").encode()
        self.size += len(content)
        with self._opened() as stream:
            stream.write(content)

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        if self._path is None:
            yield io.BytesIO()
            return
        try:
            with self._path.open("ab") as stream:
                yield stream
        except OSError as error:
            raise RunError(f"{self._path}: cannot be written: {error.strerror}") from error


class Meter:
    """Adds up what happens between two lines; on every rank.

    Sums are whole numbers, so that lines are the same however many ranks and checkpoints there are.
    """

    def __init__(
        self,
        domains: tuple[str, ...],
        config: PretrainConfig,
        balance: ExpertBalance,
        *,
        flops: float,
        peak: float | None,
    ) -> None:
        """Start the clock."""
        self._domains, self._tokens_before = domains, config.tokens_before
        self._flops, self._peak = flops, peak
        self._losses = DomainLosses([float(config.training.sequence_length)] * len(domains))
        self._balance, self._biases_N = balance, balance.biases()
        self._added = np.zeros((len(_ADDED), 2), np.int64)  # units of a loss, and sequences
        self._steps, self._seconds, self._since = 0, 0.0, time.monotonic()
        self.skipped = 0

    def add(self, outcome: StepOutcome) -> None:
        """Add a step; the losses of one that was skipped are left out."""
        self._steps += 1
        if outcome.skipped:
            self.skipped += 1
            return
        sequences = len(outcome.parts[0][1])
        for row, added_P in enumerate((outcome.added_P, outcome.z_loss_P)):
            if added_P is not None:
                units = [round(one * UNIT) for one in added_P.tolist()]
                self._added[row] += [sum(units) * sequences, len(units) * sequences]
        for losses, domain in outcome.parts:
            self._losses.add(losses, domain, None, None)

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen since the last line, over all ranks; every rank calls it."""
        sums = Reduction(self._losses.peek()).result().tolist()
        state = {"skipped": self.skipped, "domains": list(self._domains), "sums": sums}
        biases = {} if self._biases_N is None else {"biases": self._biases_N.tolist()}
        return {**state, "added": self._all_added().tolist(), **biases}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state; rank 0 keeps what all ranks had seen, unless domains changed."""
        fields = StateFields(state, "the meter's state", RunError)
        skipped, domains = fields.whole("skipped"), fields.texts("domains")
        sums_RD = fields.int_array("sums", (ROWS, len(domains)))
        added = fields.int_array("added", self._added.shape, least=_LEAST)
        now_N, before = self._balance.biases(), None
        if now_N is not None:
            before = fields.maybe("biases", lambda name: fields.array(name, tuple(now_N.shape)))
        self.skipped = skipped
        self._biases_N = now_N if before is None else torch.from_numpy(before).float()
        if is_first():
            self._added = added
            if domains == list(self._domains):
                self._losses.put(torch.from_numpy(sums_RD))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block out."""
        self._seconds += time.monotonic() - self._since
        yield
        self._since = time.monotonic()

    def line(self, step: int, outcome: StepOutcome, weights: Mapping[str, float]) -> dict[str, Any]:
        """Return the line of the steps since the last; all ranks call it together."""
        sums_RD = Reduction(self._losses.take()).result()
        units_D, counts_D = sums_RD[LOSS], sums_RD[COUNT]
        losses = {
            name: units / (UNIT * count)
            for name, units, count in zip(self._domains, units_D, counts_D, strict=True)
            if count
        }
        total = int(counts_D.sum())
        line = {
            "step": step,
            "tokens": self._tokens_before(step),
            "loss": float(units_D.sum() / (UNIT * total)) if total else None,
            **self._take_added(),
            "expert_bias": self._take_biases(),
            "learning_rate": outcome.learning_rate,
            "gradient_norm": _finite(outcome.gradient_norm),
            "skipped": self.skipped,
            **self._speed(step),
            "train_loss": losses,
            "weight": shares(weights),
            "realised": {
                name: round(float(count / total), 9)
                for name, count in zip(self._domains, counts_D, strict=True)
                if total
            },
        }
        return {name: value for name, value in line.items() if value is not None}

    def _all_added(self) -> Any:
        return Reduction(torch.from_numpy(self._added.copy())).result()

    def _take_added(self) -> dict[str, float | None]:
        sums = self._all_added().tolist()
        self._added[:] = 0
        return {
            name: units / (UNIT * count) if count else None
            for name, (units, count) in zip(_ADDED, sums, strict=True)
        }

    def _take_biases(self) -> dict[str, float] | None:
        biases_N, before_N = self._balance.biases(), self._biases_N
        if biases_N is None or before_N is None:
            return None
        self._biases_N = biases_N
        moved = float((biases_N - before_N).abs().mean())
        return {"largest": float(biases_N.abs().max()), "moved": moved}

    def _speed(self, step: int) -> dict[str, float | None]:
        with self.paused():
            seconds, steps = self._seconds, self._steps
            self._seconds, self._steps = 0.0, 0
        tokens = self._tokens_before(step) - self._tokens_before(step - steps)
        speed = tokens / max(seconds, 1e-9)
        mfu = None if self._peak is None else speed * self._flops / self._peak
        return {"tokens_per_second": speed, "mfu": mfu}


def line_names(domains: Sequence[str], evaluations: Sequence[str]) -> list[str]:
    """Return the names that lines of a run can have, as MLflow has them."""
    single = ("tokens", "loss", "learning_rate", "gradient_norm", "skipped", "tokens_per_second")
    balance = ("expert_bias/largest", "expert_bias/moved")
    by_domain = [f"{n}/{d}" for n in ("train_loss", "weight", "realised") for d in domains]
    held_out = [
        f"{n}/{e}" for n in ("held_out_loss", "held_out_bits_per_byte") for e in evaluations
    ]
    return [*single, "mfu", *_ADDED, *balance, *by_domain, *held_out]


def peak_flops(device: torch.device) -> float | None:
    """Return the operations per second of a known GPU; None for others, and for CPUs."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for part, flops in _PEAK_FLOPS if part in name), None)


def held_out_line(
    step: int, names: tuple[str, ...], held_out: HeldOut, bits_M: list[float | None]
) -> dict[str, Any]:
    """Return the line of an evaluation: nats per token, and bits per byte where known."""
    losses = dict(zip(names, held_out.losses_M.tolist(), strict=True))
    bits = {n: losses[n] * b for n, b in zip(names, bits_M, strict=True) if b is not None}
    return {"step": step, "held_out_loss": losses, "held_out_bits_per_byte": bits}


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """Return weights without the last digits, which a sampler's state does not keep."""
    return {name: round(weight, 9) for name, weight in weights.items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
