"""Diagnose the experts of all layers: collapse, degradation and underfitting.

The three are those of HoME (Kuaishou, 2024, "Hierarchy of multi-gate experts"), which are about
experts that serve several tasks; here the tasks are domains.

Collapse: few experts of a layer do its work, others are dead. A load is uneven in several ways, and
each has a number that means the same at 8 experts and at 512: the effective number of experts over
their number; dead experts; the assignments beyond a capacity; experts that are busier than the
spread of the others explains; experts that most tokens choose. With the router as it is, an
expert's load is linear in the mixture, so the domain that loads the busiest expert most is known.

Degradation: one domain occupies many more experts than its share of the tokens; where there are
many domains each has a small share, and a smaller part of the experts is too many.

Underfitting: a domain with few tokens has no experts of its own, where others have: its tokens go
as those of the others together do. A layer that does not tell domains apart is not underfitted.

No change of the mixture is suggested: where that was measured, what experts show told no more of
what a domain is worth than its share.

Shapes: D domains, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from mixopt.errors import RoutingError, did_you_mean
from mixopt.routing import measures
from mixopt.routing.assignments import Assignments, LayerAssignments
from mixopt.system import Array, BoolArray, shown_value

Kind = Literal["collapse", "degradation", "underfitting"]
KINDS: tuple[Kind, ...] = ("collapse", "degradation", "underfitting")
BLAMED = 0.1  # of a load above the even one, that the domain to blame has brought
HOT = 2.5  # load over the even one, from which on the spread of the others must explain it
FEW_EXPERTS, FAR = 8, 4.0  # up to so many, what most choose is crowded; else beyond so much load
CHANCE = 1e-4  # that the others' spread explains a hot expert
FEW_DOMAINS = 3  # up to which the experts that one of them occupies are held against as much
TIMES = 1.6  # its share, that a domain of many occupies at the least
# What follows for the mixture from any of them.
NO_CHANGE = (
    "no change of the mixture follows: as measured so far, experts tell no more about a domain than"
    " its share does"
)


@dataclass(frozen=True)
class Thresholds:
    """From where on something is diagnosed.

    Attributes:
        effective: Collapse below: effective number of experts, of all; 1 is even.
        dead: Collapse above: share of a layer's experts that are dead.
        busiest: Collapse above: the busiest expert's load over the even one. None: where it is
            2.5 times the even one or more, and the spread of the others does not explain it.
        overflow: Collapse above: share of the assignments beyond 1.25 times the even load.
        serves: Share of an expert's tokens of one domain from which on it serves that domain.
        occupied: Degradation above: share of the experts that serve one domain, less its share
            of the tokens; of more than three domains, in proportion less.
        rare: A domain has few tokens below this part of an even share.
        apart: Underfitting below: how far a rare domain's experts are from those of the others,
            of how far the middle one of the other domains is...
        others: ...where that is at least so far; 0 is alike, 1 is apart.
        assignments: To an expert, on the mean, that a layer needs to be diagnosed.
    """

    effective: float = 0.66
    dead: float = 0.05
    busiest: float | None = None
    overflow: float = 0.25
    serves: float = 0.8
    occupied: float = 0.25
    rare: float = 0.5
    apart: float = 0.33
    others: float = 0.25
    assignments: int = 1000

    def __post_init__(self) -> None:
        """Check the values."""
        for name, value in asdict(self).items():
            low, high = _RANGES.get(name, (0.0, 1.0))
            if value is None and name == "busiest":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise RoutingError(f"{name}: {shown_value(value)} is not a number")
            if not (low <= value <= high and math.isfinite(value)):
                upper = f" to {high:g}" if math.isfinite(high) else " or more"
                raise RoutingError(f"{name}: {value:g} is not possible; it must be {low:g}{upper}")

    def with_values(self, values: Mapping[str, float], source: str) -> Thresholds:
        """Return thresholds of which some are others.

        Args:
            values: By name.
            source: Where they were given, for a message.

        Raises:
            RoutingError: There is no such threshold, or a value cannot be.
        """
        known = [field.name for field in fields(self)]
        for name in values:
            if name not in known:
                raise RoutingError(
                    f"{source}: {name}: unknown threshold{did_you_mean(name, known)}"
                )
        try:
            return replace(self, **values)  # type: ignore[arg-type]
        except RoutingError as error:
            raise RoutingError(f"{source}: {error}") from error

    def check_reachable(self, highest: float, source: str) -> None:
        """Check that loads can be as high as the threshold of the busiest expert.

        Args:
            highest: The highest load of any router, as `Assignments.highest_load`.
            source: Where thresholds were given, for a message.

        Raises:
            RoutingError: No layer's busiest expert can ever be beyond it.
        """
        if self.busiest is not None and self.busiest >= highest:
            raise RoutingError(
                f"{source}: busiest: {self.busiest:g} cannot be exceeded: an expert that all tokens"
                f" choose has {highest:g} times the even load; give less"
            )


_RANGES = {
    "busiest": (1.0, math.inf),
    "assignments": (0.0, math.inf),
}


@dataclass(frozen=True)
class Diagnosis:
    """Something that is wrong with a layer's experts.

    Attributes:
        kind: Which of the three.
        layer: The model's own number of the layer.
        what: What is wrong, in words.
        domain: The domain that it has to do with; None for none.
        experts: The experts that it is about.
        numbers: What was found.
        alarms: The thresholds that it was held against.
        advice: What it means and what to do, in words.
        router: Which router of the layer, where the model has layers of several.
    """

    kind: Kind
    layer: int
    what: str
    domain: str | None
    experts: tuple[int, ...]
    numbers: Mapping[str, float]
    alarms: Mapping[str, float]
    advice: str
    router: str = ""

    @property
    def key(self) -> str:
        """The router's name among all of the model, as `LayerAssignments.key`."""
        return f"{self.layer}/{self.router}" if self.router else str(self.layer)

    def __str__(self) -> str:
        """Return it as one line."""
        return f"layer {self.key}: {self.kind}: {self.what}; {self.advice}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def diagnose(assignments: Assignments, thresholds: Thresholds | None = None) -> list[Diagnosis]:
    """Return what is wrong, by layer."""
    limits = thresholds or Thresholds()
    found: list[Diagnosis] = []
    for layer in assignments.layers:
        if enough(layer, limits):
            found += _collapse(layer, assignments.domains, limits)
            found += _degradation(layer, assignments.domains, limits)
            found += _underfitting(layer, assignments.domains, limits)
    return found


def enough(layer: LayerAssignments, limits: Thresholds) -> bool:
    """Tell whether a layer has enough assignments to be diagnosed."""
    return bool(layer.counts_DE.sum() >= max(1, limits.assignments * layer.experts))


def _collapse(
    layer: LayerAssignments, domains: tuple[str, ...], limits: Thresholds
) -> list[Diagnosis]:
    """Return a diagnosis where the load is uneven, experts are dead, or some are too busy."""
    counts_E = layer.counts_DE.sum(0)
    load_E = measures.load_shares(counts_E)
    chosen_E = counts_E / layer.tokens_D.sum()
    hot_E = _hot(load_E, limits)
    crowded_E = _crowded(chosen_E, load_E, layer.top_k) | hot_E
    numbers = {
        "effective": measures.effective(load_E),
        "dead": float(measures.dead(load_E).mean()),
        "busiest": measures.busiest(load_E),
        "overflow": measures.overflow(load_E),
        "crowded": float(crowded_E.sum()),
        "chosen": float(chosen_E.max()),
    }
    alarms = {
        "effective": limits.effective,
        "dead": limits.dead,
        "overflow": limits.overflow,
        "crowded": 0.0,
    }
    if limits.busiest is not None:
        alarms["busiest"] = limits.busiest
    if not any(_is_beyond(name, numbers[name], alarm) for name, alarm in alarms.items()):
        return []
    blamed = _loads_most(layer, int(load_E.argmax()))
    domain = None if blamed is None else domains[blamed]
    return [
        Diagnosis(
            kind="collapse",
            layer=layer.layer,
            router=layer.router,
            what=_load_text(layer, load_E, hot_E, numbers),
            domain=domain,
            experts=tuple(int(e) for e in np.flatnonzero(crowded_E)) or (int(load_E.argmax()),),
            numbers=numbers,
            alarms=alarms,
            advice="all domains load it equally: balance the router, no mixture fixes this"
            if domain is None
            else f"{domain!r} loads it most: balance the router; {NO_CHANGE}",
        )
    ]


def _hot(load_E: Array, limits: Thresholds) -> BoolArray:
    if limits.busiest is None:
        return measures.hot(load_E, HOT, CHANCE)
    return np.asarray(load_E * len(load_E) > limits.busiest)


def _crowded(chosen_E: Array, load_E: Array, top_k: int) -> BoolArray:
    """Return which experts most tokens choose; of many experts, such as are far above even too."""
    crowded_E = measures.collapsed(chosen_E, top_k)
    return np.asarray(crowded_E & ((load_E * len(load_E) >= FAR) | (len(load_E) <= FEW_EXPERTS)))


def _is_beyond(name: str, number: float, alarm: float) -> bool:
    return number < alarm if name == "effective" else number > alarm


def _load_text(
    layer: LayerAssignments, load_E: Array, hot_E: BoolArray, numbers: dict[str, float]
) -> str:
    """Say what the load is like."""
    busiest, hot = int(load_E.argmax()), int(hot_E.sum())
    effective = numbers["effective"] * layer.experts
    crowd = f"{hot} of {layer.experts} experts are hot, " if hot > 1 else ""
    return (
        f"{crowd}expert {busiest} has {numbers['busiest']:.1f} times the even load and is chosen by"
        f" {100 * numbers['chosen']:.0f}% of the tokens, {100 * numbers['overflow']:.0f}% of the"
        f" assignments are beyond a capacity of {measures.CAPACITY}, {100 * numbers['dead']:.0f}%"
        f" of the experts are dead, {effective:.0f} of {layer.experts} are effective"
    )


def _loads_most(layer: LayerAssignments, expert: int) -> int | None:
    """Return the domain that loads an expert most; None where all do alike, or there is one."""
    shares_D = measures.load_shares(layer.tokens_D)
    on_D = np.nan_to_num(measures.expert_profiles(layer.counts_DE)[:, expert])
    load, even = float(shares_D @ on_D), 1 / layer.experts
    d = int((shares_D * (on_D - load)).argmax())
    share, own = float(shares_D[d]), float(on_D[d])
    if share in {0.0, 1.0}:
        return None
    rest = (load - share * own) / (1 - share)  # the load without the domain
    return None if own <= rest or load - rest < BLAMED * (load - even) else d


def _degradation(
    layer: LayerAssignments, domains: tuple[str, ...], limits: Thresholds
) -> list[Diagnosis]:
    """Return a diagnosis of each domain that occupies too many routed experts."""
    counts_DE = layer.counts_DE
    total_E = counts_DE.sum(0)
    of_domain_DE = np.divide(counts_DE, total_E, out=np.zeros(counts_DE.shape), where=total_E > 0)
    serves_DE = of_domain_DE >= limits.serves
    shares_D = measures.load_shares(layer.tokens_D)
    occupied_D = serves_DE.mean(1)
    many = limits.occupied * min(1.0, FEW_DOMAINS / len(domains))
    excess_D = occupied_D - shares_D
    found = []
    for d in np.flatnonzero(
        (excess_D > limits.occupied) | ((excess_D > many) & (occupied_D > TIMES * shares_D))
    ):
        experts = tuple(int(e) for e in np.flatnonzero(serves_DE[d]))
        found.append(
            Diagnosis(
                kind="degradation",
                layer=layer.layer,
                router=layer.router,
                what=f"{len(experts)} of {layer.experts} experts serve {domains[d]!r}, which has"
                f" {100 * shares_D[d]:.1f}% of the tokens",
                domain=domains[d],
                experts=experts,
                numbers={"occupied": float(occupied_D[d]), "share": float(shares_D[d])},
                alarms={"occupied": many, "serves": limits.serves},
                advice=_advice(domains[d]),
            )
        )
    return found


def _underfitting(
    layer: LayerAssignments, domains: tuple[str, ...], limits: Thresholds
) -> list[Diagnosis]:
    """Return a diagnosis of each rare domain that goes to experts of all kinds."""
    shares_D = measures.load_shares(layer.tokens_D)
    floor = limits.rare / len(domains)
    profile_DE = measures.expert_profiles(layer.counts_DE)
    lift_DE = np.nan_to_num(measures.lift(layer.counts_DE))
    apart_D = measures.apartness(layer.counts_HDE)
    distance_DD = measures.profile_distances(profile_DE)
    found = []
    for d in np.flatnonzero((shares_D > 0) & (shares_D < floor) & np.isfinite(apart_D)):
        seen_D = (shares_D > 0) & np.isfinite(apart_D)
        seen_D[d] = False
        others = float(np.median(apart_D[seen_D])) if seen_D.any() else 0.0
        if others < limits.others or apart_D[d] >= limits.apart * others:
            continue
        nearest = int(np.where(seen_D, np.nan_to_num(distance_DD[d], nan=1.0), 2.0).argmin())
        found.append(
            Diagnosis(
                kind="underfitting",
                layer=layer.layer,
                router=layer.router,
                what=f"{domains[d]!r} uses the same experts as all: its distance from the others "
                f"is {apart_D[d]:.2f}, the median domain's is {others:.2f}",
                domain=domains[d],
                experts=(int(lift_DE[d].argmax()),),
                numbers={
                    "apart": float(apart_D[d]),
                    "others": others,
                    "share": float(shares_D[d]),
                    "distance": float(distance_DD[d, nearest]),
                },
                alarms={"apart": limits.apart * others, "others": limits.others, "rare": floor},
                advice=f"its experts are nearest to those of {domains[nearest]!r} (distance "
                f"{distance_DD[d, nearest]:.2f}): look at its loss; {NO_CHANGE}",
            )
        )
    return found


def _advice(domain: str) -> str:
    return f"others could use them: look at the text of {domain!r}; {NO_CHANGE}"
