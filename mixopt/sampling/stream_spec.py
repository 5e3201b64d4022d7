"""What a stream of samples follows from: its layout and the mixtures over time.

Shapes: D domains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mixopt.mixture import Mixture
from mixopt.sampling.order import UNIT, Origin, ShareChange, whole_shares
from mixopt.sampling.sample_order import StreamLayout


@dataclass(frozen=True)
class StreamSpec:
    """What a stream of samples follows from.

    Attributes:
        layout: Domains, sizes, seed, window, limits.
        tokens_per_sample: Mean length of a sample of each domain; None where all are alike.
        mixtures: Shares of tokens by the position from which they hold.
        changes: The same as whole shares of samples, in order.
        origin: Where the stream starts, if not at its beginning.
    """

    layout: StreamLayout
    tokens_per_sample: tuple[float, ...] | None
    mixtures: dict[int, Mixture]
    changes: tuple[ShareChange, ...]
    origin: Origin | None = None

    @classmethod
    def over(
        cls, layout: StreamLayout, tokens_per_sample: tuple[float, ...] | None, mixture: Mixture
    ) -> StreamSpec:
        """Start a stream with a mixture of tokens."""
        return cls(layout, tokens_per_sample, {}, ()).changed(0, mixture)

    @cached_property
    def positions(self) -> list[int]:
        """Where the mixtures begin to hold, in order."""
        return [change.position for change in self.changes]

    def changed(self, position: int, mixture: Mixture) -> StreamSpec:
        """Return the stream with another mixture from a position on."""
        tokens = mixture.array.tolist()
        samples = [w / t for w, t in zip(tokens, self._lengths(), strict=True)]
        changes = {c.position: c for c in self.changes}
        changes[position] = ShareChange(position, tuple(whole_shares(samples)))
        return replace(
            self,
            mixtures={**self.mixtures, position: mixture},
            changes=tuple(changes[p] for p in sorted(changes)),
        )

    def until(self, position: int) -> StreamSpec:
        """Return the stream without the mixtures that begin to hold at a position or later."""
        kept = tuple(change for change in self.changes if change.position < position)
        mixtures = {p: mixture for p, mixture in self.mixtures.items() if p < position}
        return replace(self, changes=kept, mixtures=mixtures)

    def as_tokens(self, shares: Sequence[int]) -> Mixture:
        """Turn shares of samples into a mixture of tokens."""
        tokens = [s / UNIT * t for s, t in zip(shares, self._lengths(), strict=True)]
        total = math.fsum(tokens)
        return Mixture.from_array(self.layout.names, [t / total for t in tokens])

    def _lengths(self) -> tuple[float, ...]:
        return self.tokens_per_sample or (1.0,) * len(self.layout.names)
