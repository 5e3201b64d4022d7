"""The definition of a stream of samples: its layout and the mixtures over time.

Shapes: D domains.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from mixopt.mixture import Mixture
from mixopt.sampling.order import (
    UNIT,
    Origin,
    RampEnd,
    ShareChange,
    ShareLine,
    Timeline,
    whole_shares,
)
from mixopt.sampling.sample_order import StreamLayout


class MixtureEnd(NamedTuple):
    """Where shares that go linearly arrive, and the mixture from there on."""

    position: int
    mixture: Mixture


class MixtureChange(NamedTuple):
    """A mixture of tokens from a position on, with where it goes if it does not stay."""

    position: int
    mixture: Mixture
    end: MixtureEnd | None = None


@dataclass(frozen=True)
class GivenChanges:
    """The changes that a sampler was made with."""

    changes: Timeline[ShareChange] = field(default_factory=Timeline)

    @cached_property
    def digest(self) -> str:
        """A hash of them."""
        text = json.dumps(list(self.changes), separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class StreamSpec:
    """What a stream of samples follows from.

    Attributes:
        layout: Domains, sizes, seed, window, limits.
        tokens_per_sample: Mean length of a sample of each domain; None where all are alike.
        mixtures: Shares of tokens.
        changes: The same as whole shares of samples.
        origin: Where the stream starts, if not at its beginning.
        given: The changes that this process's sampler was made with.
        by_hand: The changes beside those; None where those to come are not those that were given.
    """

    layout: StreamLayout
    tokens_per_sample: tuple[float, ...] | None
    mixtures: Timeline[MixtureChange] = field(default_factory=Timeline)
    changes: Timeline[ShareChange] = field(default_factory=Timeline)
    origin: Origin | None = None
    given: GivenChanges = field(default_factory=GivenChanges)
    by_hand: Timeline[ShareChange] | None = None

    @classmethod
    def over(
        cls,
        layout: StreamLayout,
        tokens_per_sample: tuple[float, ...] | None,
        mixture: Mixture,
        schedule: Iterable[MixtureChange] = (),
    ) -> StreamSpec:
        """Start a stream with a mixture of tokens, and with changes that are known beforehand."""
        stream = cls(layout, tokens_per_sample).changed(MixtureChange(0, mixture))
        given: Timeline[ShareChange] = Timeline()
        for one in schedule:
            stream = stream.changed(one)
            given = given.changed(stream.change_at(one.position))
        return replace(stream, given=GivenChanges(given), by_hand=Timeline())

    @property
    def start(self) -> int:
        """The first position."""
        return 0 if self.origin is None else self.origin.position

    def changed(self, change: MixtureChange) -> StreamSpec:
        """Return the stream with another mixture from a position on."""
        end = change.end and RampEnd(change.end.position, self._shares(change.end.mixture))
        shares = ShareChange(change.position, self._shares(change.mixture), end)
        return replace(
            self,
            mixtures=self.mixtures.changed(change),
            changes=self.changes.changed(shares),
            by_hand=None if self.by_hand is None else self.by_hand.changed(shares),
        )

    def with_shares(self, changes: Timeline[ShareChange]) -> StreamSpec:
        """Return the stream with the mixtures of a state."""
        mixtures = (
            MixtureChange(
                change.position,
                self.as_tokens(change.shares),
                change.end and MixtureEnd(change.end.position, self.as_tokens(change.end.shares)),
            )
            for change in changes
        )
        return replace(self, mixtures=Timeline(mixtures), changes=changes)

    def since(self, position: int) -> list[ShareChange]:
        """Return the change that holds at a position, and those after it."""
        return [self.change_at(position), *self.changes.after(position)]

    def change_at(self, position: int) -> ShareChange:
        """Return the change that holds at a position; the first before it."""
        return self.changes.at(position) or next(iter(self.changes))

    def mixture_at(self, position: int, ahead: int = 0) -> Mixture:
        """Return the mixture that was set for a position; of a ramp, some positions ahead."""
        found = self.mixtures.at(position) or next(iter(self.mixtures))
        if found.end is None:
            return found.mixture
        if position + ahead >= found.end.position:
            return found.end.mixture
        return self.as_tokens(ShareLine.of(self.change_at(position)).at(position + ahead))

    def until(self, position: int) -> StreamSpec:
        """Return the stream without the mixtures that begin to hold at a position or later."""
        return replace(
            self,
            mixtures=Timeline(one for one in self.mixtures if one.position < position),
            changes=Timeline(one for one in self.changes if one.position < position),
            by_hand=None,
        )

    def as_tokens(self, shares: Sequence[int]) -> Mixture:
        """Turn shares of samples into a mixture of tokens."""
        tokens = [s / UNIT * t for s, t in zip(shares, self._lengths(), strict=True)]
        total = math.fsum(tokens)
        return Mixture.from_array(self.layout.names, [t / total for t in tokens])

    def _shares(self, mixture: Mixture) -> tuple[int, ...]:
        tokens = mixture.array.tolist()
        return tuple(whole_shares([w / t for w, t in zip(tokens, self._lengths(), strict=True)]))

    def _lengths(self) -> tuple[float, ...]:
        return self.tokens_per_sample or (1.0,) * len(self.layout.names)
