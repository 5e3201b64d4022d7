"""Held-out losses of every member on every evaluation domain.

The windows of all domains go through the stack in batches of the training shape, so that the
compiled training code is reused. Consecutive windows share one token, so each token except the
first is predicted once.

Shapes: K members, B sequences, T tokens, W windows, M evaluation domains.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixopt.corpus import Corpus, Domain, RowBatches, in_bits_per_byte, task_metrics, task_rows
from mixopt.sweeps import Training
from mixopt.trials import Losses
from mixopt_proxies.decoder.devices import to_device
from mixopt_proxies.decoder.trial_batches import long_enough, part_of, steps_of

# Maximum batches of the learning curve, relative to a trial's steps: with seven domains, 70 batches
# in a trial of 1,172 steps took 7.0% of its CPU time, so that a batch costs about a step.
CURVE_SHARE = 0.02
MIN_POINTS = 2  # points before the end, at any cost


class HeldOutWindows:
    """The first tokens of each evaluation domain's held-out text, ready on the device."""

    def __init__(
        self, corpus: Corpus, length: int, batch: int, eval_tokens: int, device: torch.device
    ) -> None:
        """Read windows of `length` tokens, to evaluate `batch` at once."""
        windows = [_windows(domain, length, eval_tokens) for domain in corpus.evaluation]
        self.counts = [len(rows) for rows in windows]
        self._domains = corpus.evaluation
        self._batch = batch
        self._rows_W = to_device(np.concatenate(windows), device)

    def losses(
        self, sequence_losses: Callable[[Tensor], Tensor], members: int, tokens: int
    ) -> list[Losses]:
        """Return each member's losses."""
        parts = []
        for rows in torch.split(self._rows_W, self._batch):
            missing = self._batch - len(rows)
            full = torch.cat([rows, rows[-1:].expand(missing, -1)])
            parts.append(sequence_losses(full.repeat(members, 1, 1)))
        loss_KW = torch.cat(parts, 1)[:, : len(self._rows_W)].double().cpu()
        means_MK = [part.mean(1).tolist() for part in torch.split(loss_KW, self.counts, dim=1)]
        names = [domain.name for domain in self._domains]
        losses = []
        for loss_M in zip(*means_MK, strict=True):
            nats = dict(zip(names, loss_M, strict=True))
            losses.append(Losses(tokens, nats, in_bits_per_byte(nats, self._domains)))
        return losses


def _windows(domain: Domain, length: int, eval_tokens: int) -> NDArray[np.int32]:
    name = f"domain {domain.name!r}: held-out text"
    shards = long_enough(domain.validation, name, length)
    count = max(1, min(eval_tokens, shards.tokens - 1) // length)
    rows = shards.rows(np.arange(count) * length, length + 1)
    return rows.astype(np.int32)


class Evaluations:
    """The evaluation data of trials; complete evaluations follow the steps `at`, and the `last`.

    After the steps `sampled_at` only a `sample` of each evaluation domain is evaluated.
    """

    def __init__(
        self, corpus: Corpus, length: int, batch: int, training: Training, device: torch.device
    ) -> None:
        """Read the held-out text and the tasks, for trials with sequences of `length` tokens."""
        steps = steps_of(training, length * batch)
        first, self.last = part_of(training, length * batch)
        self.windows = HeldOutWindows(corpus, length, batch, training.eval_tokens, device)
        self._tasks = corpus.tasks
        self._rows = RowBatches(task_rows(corpus.tasks), longest=length, tokens=batch * length)
        self._batches: list[tuple[Tensor, Tensor]] = []  # tokens and the places that are scored
        for part in self._rows.batches:
            tokens_BW = to_device(part.tokens_BW, device)
            self._batches.append((tokens_BW, to_device(part.place_P, device)))
        self.sample: HeldOutWindows | None = None
        points = training.curve_points
        if points:
            count, points = sample_size(len(corpus.evaluation), batch, steps, points)
            self.sample = HeldOutWindows(corpus, length, batch, count * length, device)
        points_at = {round(steps * k / (points + 1)) for k in range(points + 1)}
        self.sampled_at = points_at - {0, first, self.last, steps}
        interval = steps
        if training.eval_every:
            interval = max(1, round(training.eval_every / (length * batch)))
        self.at = {*range(interval, steps, interval), self.last}

    def task_scores(
        self, token_losses: Callable[[Tensor, Tensor], Tensor], members: int
    ) -> list[dict[str, float]]:
        """Return each member's task metrics, by column name."""
        if not self._batches:
            return [{} for _ in range(members)]
        parts = []
        for tokens_BW, place_P in self._batches:
            parts.append(token_losses(tokens_BW.expand(members, -1, -1), place_P))
        losses_KP = torch.cat(parts, 1).double().cpu().numpy()
        return [task_metrics(self._tasks, self._rows.sums(-losses_P)) for losses_P in losses_KP]


def sample_size(domains: int, batch: int, steps: int, points: int) -> tuple[int, int]:
    """Return the sampled windows of each domain, and the number of points before the end."""
    affordable = CURVE_SHARE * steps  # batches, over all points and the end
    min_windows = math.ceil(domains / batch)
    points = min(points, max(MIN_POINTS, int(affordable / min_windows) - 1))
    batches = max(min_windows, int(affordable / (points + 1)))
    return max(1, batches * batch // domains), points


def corrected_curve(
    sampled: Sequence[Sequence[Losses]], sampled_end: Sequence[Losses], end: Sequence[Losses]
) -> list[list[Losses]]:
    """Correct points measured on a sample by the sample's difference from all text at the end."""
    return [list(map(_corrected, point, sampled_end, end)) for point in sampled]


def _corrected(point: Losses, sampled_end: Losses, end: Losses) -> Losses:
    """Correct one member's losses at a point, in both units."""
    nats = _shifted(point.nats_per_token, sampled_end.nats_per_token, end.nats_per_token)
    bits = _shifted(point.bits_per_byte, sampled_end.bits_per_byte, end.bits_per_byte)
    return replace(point, nats_per_token=nats, bits_per_byte=bits)


def _shifted(
    values: Mapping[str, float], sampled_end: Mapping[str, float], end: Mapping[str, float]
) -> dict[str, float]:
    """Add the difference at the end to each value, where it is finite."""
    shifted = {}
    for name, value in values.items():
        shift = end[name] - sampled_end[name]
        if not math.isfinite(shift):
            shift = 0.0
        shifted[name] = value + shift
    return shifted
