"""The log of a stream: its weights over time, and the domains that ran out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mixopt.mixture import Mixture
from mixopt.sampling.sample_order import SampleOrder
from mixopt.sampling.stream_spec import StreamSpec
from mixopt.sampling.token_order import TokenOrder


@dataclass(frozen=True)
class LogEntry:
    """Weights of the stream and the batch from which they apply.

    Attributes:
        batch: The global batch with which (where a domain ran out: in which) they begin to hold.
        position: The first sample.
        mixture: Shares of tokens.
        reason: `start`, `set`, or `exhausted: DOMAIN`.
        realised: Shares of the tokens that were delivered while they held; None where nothing was,
            or where it is not known any more.
        end_batch: The batch from which the end of a ramp holds, to which shares go linearly.
        end_mixture: Shares of tokens there.
    """

    batch: int
    position: int
    mixture: Mixture
    reason: str
    realised: dict[str, float] | None = None
    end_batch: int | None = None
    end_mixture: Mixture | None = None


def read_log(
    stream: StreamSpec, order: SampleOrder | TokenOrder, batch: int, batch_size: int
) -> list[LogEntry]:
    """Return the weights so far and those to come, and what ran out before a batch."""
    reached = order.reach(batch * batch_size)
    entries = [
        LogEntry(
            position // batch_size,
            position,
            mixture,
            "set" if k else "start",
            end_batch=None if end is None else -(-end.position // batch_size),
            end_mixture=None if end is None else end.mixture,
        )
        for k, (position, mixture, end) in enumerate(stream.mixtures)
    ]
    for position, domain in order.exhausted(reached):
        left = order.shares_at(position)
        mixture = stream.as_tokens(left)
        reason = f"exhausted: {stream.layout.names[domain]}"
        entries.append(LogEntry(position // batch_size, position, mixture, reason))
    entries.sort(key=lambda entry: entry.position)
    stops = [entry.position for entry in entries[1:]]
    return [
        replace(entry, realised=_realised(stream, order, entry.position, min(stop, reached)))
        for entry, stop in zip(entries, [*stops, reached], strict=True)
    ]


def _realised(
    stream: StreamSpec, order: SampleOrder | TokenOrder, start: int, stop: int
) -> dict[str, float] | None:
    """Return the shares of the tokens of positions [start, stop)."""
    if stop <= start:
        return None
    before, after = _had(stream, order, start), _had(stream, order, stop)
    if before is None or after is None:
        return None
    tokens = [now - then for now, then in zip(after, before, strict=True)]
    total = math.fsum(tokens)
    shares = [count / total if total else 0.0 for count in tokens]
    return dict(zip(stream.layout.names, shares, strict=True))


def _had(
    stream: StreamSpec, order: SampleOrder | TokenOrder, position: int
) -> Sequence[float] | None:
    if isinstance(order, TokenOrder):
        return order.had(position)
    means = stream.tokens_per_sample or (1.0,) * len(stream.layout.names)
    counts = order.counts(position).tolist()
    return [count * mean for count, mean in zip(counts, means, strict=True)]
