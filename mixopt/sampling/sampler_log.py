"""The log of a stream: its weights over time, and the domains that ran out."""

from __future__ import annotations

from dataclasses import dataclass

from mixopt.mixture import Mixture
from mixopt.sampling.sample_order import SampleOrder
from mixopt.sampling.stream_spec import StreamSpec
from mixopt.sampling.token_order import TokenOrder


@dataclass(frozen=True)
class LogEntry:
    """Weights of the stream and where they hold from.

    Attributes:
        batch: The global batch with which (where a domain ran out: in which) they begin to hold.
        position: The first sample.
        mixture: Shares of tokens.
        reason: `start`, `set`, or `exhausted: DOMAIN`.
        end_batch: The batch from which the end of a ramp holds, to which shares go linearly.
        end_mixture: Shares of tokens there.
    """

    batch: int
    position: int
    mixture: Mixture
    reason: str
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
            None if end is None else -(-end.position // batch_size),
            None if end is None else end.mixture,
        )
        for k, (position, mixture, end) in enumerate(stream.mixtures)
    ]
    for position, domain in order.exhausted(reached):
        left = order.shares_at(position)
        mixture = stream.as_tokens(left)
        reason = f"exhausted: {stream.layout.names[domain]}"
        entries.append(LogEntry(position // batch_size, position, mixture, reason))
    return sorted(entries, key=lambda entry: entry.position)
