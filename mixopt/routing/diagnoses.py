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

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mixopt.routing import measures
from mixopt.routing.assignments import Assignments, LayerAssignments
from mixopt.system import Array, BoolArray

# Domain, what is wrong, experts, numbers and advice of a diagnosis.
_Finding = tuple[str | None, str, tuple[int, ...], dict[str, float], str]
Kind = Literal["collapse", "degradation", "underfitting"]
KINDS: tuple[Kind, ...] = ("collapse", "degradation", "underfitting")
EFFECTIVE = 0.66  # collapse below: effective number of experts, of all; 1 is even
DEAD = 0.05  # collapse above: dead experts, of all
OVERFLOW = 0.25  # collapse above: share of the assignments beyond 1.25 times even
SERVES = 0.8  # share of an expert's tokens from which on it serves a domain
OCCUPIED = 0.25  # degradation above: experts that serve a domain, less its share
RARE = 0.5  # a domain is rare below this part of an even share
APART = 0.33  # underfitting below: distance from the others, over the median one
OTHERS = 0.25  # where the median one is at least this
ASSIGNMENTS = 1000  # to an expert, on the mean, that a layer needs to be diagnosed
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
class Diagnosis:
    """Something that is wrong with a layer's experts.

    Attributes:
        kind: Which of the three.
        layer: The model's own number of the layer.
        router: Which router of the layer, where the model has layers of several.
        what: What is wrong, in words.
        domain: The domain that it has to do with; None for none.
        experts: The experts that it is about.
        numbers: What was found.
        advice: What it means and what to do, in words.
    """

    kind: Kind
    layer: int
    router: str
    what: str
    domain: str | None
    experts: tuple[int, ...]
    numbers: Mapping[str, float]
    advice: str

    @property
    def key(self) -> str:
        """The router's name among all of the model, as `LayerAssignments.key`."""
        return f"{self.layer}/{self.router}".removesuffix("/")

    def __str__(self) -> str:
        """Return it as one line."""
        return f"layer {self.key}: {self.kind}: {self.what}; {self.advice}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {**asdict(self), "experts": list(self.experts)}


def diagnose(assignments: Assignments) -> list[Diagnosis]:
    """Return what is wrong, by layer."""
    diagnoses: list[Diagnosis] = []
    for layer in filter(enough, assignments.layers):
        for kind, find in _FINDERS.items():
            for domain, what, experts, numbers, advice in find(layer, assignments.domains):
                at = kind, layer.layer, layer.router
                diagnoses.append(Diagnosis(*at, what, domain, experts, numbers, advice))
    return diagnoses


def enough(layer: LayerAssignments) -> bool:
    """Tell whether a layer has enough assignments to be diagnosed."""
    return bool(layer.counts_DE.sum() >= max(1, ASSIGNMENTS * layer.experts))


def _collapse(layer: LayerAssignments, domains: tuple[str, ...]) -> Iterator[_Finding]:
    """Yield a diagnosis where the load is uneven, experts are dead, or some are too busy."""
    counts_E = layer.counts_DE.sum(0)
    load_E = measures.load_shares(counts_E)
    chosen_E = counts_E / layer.tokens_D.sum()
    hot_E = measures.hot(load_E, HOT, CHANCE)
    crowded_E = _crowded(chosen_E, load_E, layer.top_k) | hot_E
    numbers = {
        "effective": measures.effective(load_E),
        "dead": float(measures.dead(load_E).mean()),
        "max_load": measures.max_load(load_E),
        "overflow": measures.overflow(load_E),
        "crowded": float(crowded_E.sum()),
        "chosen": float(chosen_E.max()),
    }
    if (
        numbers["effective"] >= EFFECTIVE
        and numbers["dead"] <= DEAD
        and numbers["overflow"] <= OVERFLOW
        and not crowded_E.any()
    ):
        return
    blamed = _loads_most(layer, int(load_E.argmax()))
    domain = None if blamed is None else domains[blamed]
    advice = "all domains load it equally: balance the router, no mixture fixes this"
    if domain is not None:
        advice = f"{domain!r} loads it most: balance the router; {NO_CHANGE}"
    experts = np.flatnonzero(crowded_E).tolist() or [int(load_E.argmax())]
    yield domain, _load_text(layer, load_E, hot_E, numbers), tuple(experts), numbers, advice


def _crowded(chosen_E: Array, load_E: Array, top_k: int) -> BoolArray:
    """Return which experts most tokens choose; of many experts, such as are far above even too."""
    crowded_E = measures.collapsed(chosen_E, top_k)
    return np.asarray(crowded_E & ((load_E * len(load_E) >= FAR) | (len(load_E) <= FEW_EXPERTS)))


def _load_text(
    layer: LayerAssignments, load_E: Array, hot_E: BoolArray, numbers: dict[str, float]
) -> str:
    busiest, hot = int(load_E.argmax()), int(hot_E.sum())
    crowd = f"{hot} of {layer.experts} experts are hot, " if hot > 1 else ""
    return (
        f"{crowd}expert {busiest} has {numbers['max_load']:.1f} times the even load and is chosen"
        f" by {100 * numbers['chosen']:.0f}% of the tokens, {100 * numbers['overflow']:.0f}% of the"
        f" assignments are beyond a capacity of {measures.CAPACITY}, {100 * numbers['dead']:.0f}%"
        f" of the experts are dead, {numbers['effective'] * layer.experts:.0f} of {layer.experts}"
        " are effective"
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


def _degradation(layer: LayerAssignments, domains: tuple[str, ...]) -> Iterator[_Finding]:
    """Yield a diagnosis of each domain that occupies too many routed experts."""
    counts_DE = layer.counts_DE
    total_E = counts_DE.sum(0)
    of_domain_DE = np.divide(counts_DE, total_E, out=np.zeros(counts_DE.shape), where=total_E > 0)
    serves_DE = of_domain_DE >= SERVES
    shares_D = measures.load_shares(layer.tokens_D)
    occupied_D = serves_DE.mean(1)
    many = OCCUPIED * min(1.0, FEW_DOMAINS / len(domains))
    excess_D = occupied_D - shares_D
    is_beyond_D = excess_D > OCCUPIED
    is_beyond_D |= (excess_D > many) & (occupied_D > TIMES * shares_D)
    for d in np.flatnonzero(is_beyond_D):
        experts = tuple(np.flatnonzero(serves_DE[d]).tolist())
        what = (
            f"{len(experts)} of {layer.experts} experts serve {domains[d]!r}, which has"
            f" {100 * shares_D[d]:.1f}% of the tokens"
        )
        numbers = {"occupied": float(occupied_D[d]), "share": float(shares_D[d])}
        advice = f"others could use them: look at the text of {domains[d]!r}; {NO_CHANGE}"
        yield domains[d], what, experts, numbers, advice


def _underfitting(layer: LayerAssignments, domains: tuple[str, ...]) -> Iterator[_Finding]:
    """Yield a diagnosis of each rare domain that goes to experts of all kinds."""
    shares_D = measures.load_shares(layer.tokens_D)
    lift_DE = np.nan_to_num(measures.lift(layer.counts_DE))
    apart_D = measures.separation(layer.counts_HDE)
    distance_DD = measures.profile_distances(measures.expert_profiles(layer.counts_DE))
    is_seen_D = (shares_D > 0) & np.isfinite(apart_D)
    for d in np.flatnonzero(is_seen_D & (shares_D < RARE / len(domains))):
        other_D = is_seen_D & (np.arange(len(domains)) != d)
        others = float(np.median(apart_D[other_D])) if other_D.any() else 0.0
        if others < OTHERS or apart_D[d] >= APART * others:
            continue
        nearest = int(np.where(other_D, np.nan_to_num(distance_DD[d], nan=1.0), 2.0).argmin())
        numbers = {
            "apart": float(apart_D[d]),
            "others": others,
            "share": float(shares_D[d]),
            "distance": float(distance_DD[d, nearest]),
        }
        what = (
            f"{domains[d]!r} uses the same experts as all: its distance from the others"
            f" is {apart_D[d]:.2f}, the median domain's is {others:.2f}"
        )
        advice = (
            f"its experts are nearest to those of {domains[nearest]!r} (distance"
            f" {numbers['distance']:.2f}): look at its loss; {NO_CHANGE}"
        )
        yield domains[d], what, (int(lift_DE[d].argmax()),), numbers, advice


_FINDERS: dict[Kind, Callable[[LayerAssignments, tuple[str, ...]], Iterator[_Finding]]] = {
    "collapse": _collapse,
    "degradation": _degradation,
    "underfitting": _underfitting,
}
