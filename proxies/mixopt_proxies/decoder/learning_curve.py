"""The learning curve of a stack: held-out losses on the way, on a sample that costs little.

All held-out text at each tenth of a trial would double what a trial costs. So points before the end
are measured on the first windows of each evaluation domain, and moved by what these differ from all
of them at the end: the same windows are as easy or hard at every point, so that the difference of
two points has little of the sample's noise, and the curve ends in the losses of the trial.

Shapes: K members, M evaluation domains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from mixopt.corpus import Corpus
from mixopt.trials import Losses
from mixopt_proxies.decoder.batch_shape import BatchShape
from mixopt_proxies.decoder.held_out_windows import HeldOutWindows

# Of a trial's steps that the curve may read batches: with seven domains, 70 batches in a trial of
# 1,172 steps took 7.0% of its CPU time, so that a batch counts as a step.
SHARE = 0.02
FEWEST = 2  # points before the end, whatever they cost


@dataclass(frozen=True)
class CurveSample:
    """What the curve is measured on, and when.

    Attributes:
        windows: A few of each evaluation domain.
        steps: After how many steps; none of them is the last.
    """

    windows: HeldOutWindows
    steps: frozenset[int]

    @classmethod
    def of(
        cls, corpus: Corpus, size: BatchShape, steps: int, points: int, device: torch.device
    ) -> CurveSample | None:
        """Choose windows and steps; None where no points are asked for.

        Args:
            corpus: Evaluation domains with their held-out text.
            size: Sequence length and batch.
            steps: Of a trial.
            points: Before the end; there are fewer where a window of each domain costs too much.
            device: Where the windows are kept.
        """
        if points == 0:
            return None
        windows, points = sample_size(len(corpus.evaluation), size.batch, steps, points)
        few = HeldOutWindows(corpus, size, windows * size.sequence_length, device)
        places = {round(steps * place / (points + 1)) for place in range(1, points + 1)}
        return cls(few, frozenset(places - {0, steps}))


def sample_size(domains: int, batch: int, steps: int, points: int) -> tuple[int, int]:
    """Return the windows of each domain, and how many points before the end are measured on them.

    Args:
        domains: Evaluation domains, M.
        batch: Windows that are read at once.
        steps: Of a trial.
        points: That are asked for.
    """
    affordable = SHARE * steps  # batches, at all points and at the end
    least = math.ceil(domains / batch)
    points = min(points, max(FEWEST, int(affordable / least) - 1))
    batches = max(least, int(affordable / (points + 1)))
    return max(1, batches * batch // domains), points


def moved_to(
    end: Sequence[Losses], sampled: Sequence[Sequence[Losses]], sampled_end: Sequence[Losses]
) -> list[list[Losses]]:
    """Return the points on a sample as they would be on all held-out text.

    Args:
        end: Of every member at the end, on all of it.
        sampled: Of every member, point by point, on the sample.
        sampled_end: Of every member at the end, on the sample.
    """
    return [
        [_moved(*three) for three in zip(point, sampled_end, end, strict=True)] for point in sampled
    ]


def _moved(point: Losses, sampled_end: Losses, end: Losses) -> Losses:
    return replace(
        point,
        nats_per_token=_shifted(
            point.nats_per_token, sampled_end.nats_per_token, end.nats_per_token
        ),
        bits_per_byte=_shifted(point.bits_per_byte, sampled_end.bits_per_byte, end.bits_per_byte),
    )


def _shifted(
    values: Mapping[str, float], sample: Mapping[str, float], whole: Mapping[str, float]
) -> dict[str, float]:
    shifts = {name: whole[name] - sample[name] for name in values}
    return {
        name: value + (shifts[name] if math.isfinite(shifts[name]) else 0.0)
        for name, value in values.items()
    }
