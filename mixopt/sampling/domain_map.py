"""Resume from a state whose domains have been renamed, removed, added or grown.

What was drawn of a domain and what it is owed go with it. A domain with another number of rows
begins its next epoch, because its old order of rows is gone.

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from mixopt.errors import SamplerError, did_you_mean
from mixopt.sampling.order import Origin, Timeline
from mixopt.sampling.sample_order import SampleOrder, StreamLayout
from mixopt.sampling.stream_spec import MixtureChange, MixtureEnd, StreamSpec
from mixopt.system import shown_value


def map_stream(
    saved: StreamSpec, here: StreamSpec, position: int, map_domains: Mapping[str, str | None]
) -> StreamSpec:
    """Return the stream that resumes at `position` with the domains that are here.

    Args:
        saved: The stream of the state.
        here: The stream that resumes; its weights hold from here on.
        position: Where the state is.
        map_domains: The state's name of a domain to the name here, or None where it is gone;
            names that stay may be left out.

    Raises:
        SamplerError: A name that is unknown on its side, a domain of the state that is neither
            here nor mapped, two that go to one, another seed, or a state in the middle of a window.
    """
    _check_names(map_domains)
    before = _sources(saved.layout.names, here.layout.names, map_domains)
    if saved.layout.seed != here.layout.seed:
        raise SamplerError(
            f"the state's seed is {saved.layout.seed}, here it is {here.layout.seed}"
        )
    if position % saved.layout.window:
        raise SamplerError(
            f"map_domains: the state is at sample {position}, in the middle of a window of "
            f"{saved.layout.window}, which was shuffled with the old domains; resume without "
            "map_domains until its end first"
        )
    place = _place(saved, position)
    moved = [_moved(saved.layout, place, before.get(name)) for name in here.layout.names]
    named = list(zip(here.layout.names, here.layout.sizes, moved, strict=True))
    layout = here.layout._replace(
        window=saved.layout.window,
        row_keys=tuple(one.key or name for name, _, one in named),
        shift=tuple(one.next_row(size) - one.counted for _, size, one in named),
    )
    origin = Origin(
        position,
        tuple(one.counted for one in moved),
        tuple(one.owed for one in moved),
        None if place.tokens_D is None else tuple(one.tokens for one in moved),
    )
    return _from_here(here, layout, origin)


def _check_names(map_domains: object) -> None:
    pairs = map_domains.items() if isinstance(map_domains, Mapping) else ((None, None),)
    if not all(isinstance(old, str) and isinstance(new, str | None) for old, new in pairs):
        raise SamplerError(
            f"map_domains: {shown_value(map_domains)} is not a mapping of the state's names of "
            "domains to names here, or to None"
        )


class _Moved(NamedTuple):
    """What goes with one domain: the key of its rows, counts, what it is owed and had, its size."""

    key: str | None = None
    counted: int = 0
    drawn: int = 0
    owed: int = 0
    tokens: int = 0
    size: int = 0

    def next_row(self, size: int) -> int:
        """Return how many rows count as drawn, now that the domain has `size` of them."""
        if self.size in {0, size}:
            return self.drawn
        epochs_begun = -(-self.drawn // self.size)
        return epochs_begun * size


def _place(saved: StreamSpec, position: int) -> Origin:
    """Return where the state's stream is; an order by tokens is saved as just that."""
    if saved.origin is not None and saved.origin.tokens_D is not None:
        return saved.origin
    order = SampleOrder(saved.layout, saved.changes, saved.origin)
    counts, owed = order.planned_counts(position), order.owed(position)
    return Origin(position, tuple(counts.tolist()), tuple(owed.tolist()))


def _moved(layout: StreamLayout, place: Origin, old: int | None) -> _Moved:
    if old is None:
        return _Moved()
    counted, shift = place.counts_D[old], layout.shift
    return _Moved(
        (layout.row_keys or layout.names)[old],
        counted,
        counted + (shift[old] if shift else 0),
        place.owed_D[old],
        place.tokens_D[old] if place.tokens_D else 0,
        layout.sizes[old],
    )


def _sources(
    theirs: tuple[str, ...], ours: tuple[str, ...], map_domains: Mapping[str, str | None]
) -> dict[str, int]:
    """Return which domain of the state each domain here continues."""
    sources: dict[str, int] = {}
    for name in map_domains:
        if name not in theirs:
            raise SamplerError(
                f"map_domains: the state has no {name!r}{did_you_mean(name, theirs)}"
            )
    for k, name in enumerate(theirs):
        target = map_domains.get(name, name)
        if target is None:
            continue
        if target not in ours:
            raise SamplerError(
                f"map_domains: the state's domain {name!r} would continue as {target!r}, which is "
                f"not here; map it to a domain or to None{did_you_mean(target, ours)}"
            )
        if target in sources:
            raise SamplerError(
                f"map_domains: {theirs[sources[target]]!r} and {name!r} both go to {target!r}"
            )
        sources[target] = k
    return sources


def _from_here(here: StreamSpec, layout: StreamLayout, origin: Origin) -> StreamSpec:
    """Keep the weights that hold from the origin on."""
    by_hand = here.by_hand and Timeline(here.by_hand.after(origin.position))
    now = MixtureChange(origin.position, here.mixture_at(origin.position), _end(here, origin))
    mixtures = Timeline[MixtureChange]()
    stream = replace(here, layout=layout, mixtures=mixtures, changes=Timeline(), origin=origin)
    for change in (now, *here.mixtures.after(origin.position)):
        stream = stream.changed(change)
    return replace(stream, by_hand=by_hand)


def _end(here: StreamSpec, origin: Origin) -> MixtureEnd | None:
    """Return where a ramp goes that the origin is in the middle of."""
    change = here.mixtures.at(origin.position)
    end = None if change is None else change.end
    return end if end is None or end.position > origin.position else None
