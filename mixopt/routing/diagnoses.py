"""Diagnose the experts of all layers: collapse, degradation and underfitting.

The diagnoses are those of HoME (Kuaishou, 2024, "Hierarchy of multi-gate experts") for experts that
serve several tasks; here the tasks are domains.

Collapse: few experts of a layer carry the load, others are dead. Measures of uneven load have the
same meaning for 8 and for 512 experts: the effective number of experts relative to their number;
dead experts; assignments beyond a capacity; experts busier than the spread of the others explains;
experts that most tokens choose. For a fixed router, an expert's load is linear in the mixture, so
the domain that loads the busiest expert most is known.

Degradation: one domain occupies many more experts than its share of the tokens. With many domains
shares are small, and a smaller part of the experts is too many.

Underfitting: a domain with few tokens has no experts of its own while others have: its tokens are
distributed as those of the others together. A layer without specialisation is not underfitted.

No change of the mixture is suggested: measurements showed that experts tell no more about the value
of a domain than its share does.

Shapes: D domains, E experts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mixopt.routing import measures
from mixopt.routing.assignments import Assignments, LayerAssignments
from mixopt.system import Array, BoolArray

Kind = Literal["collapse", "degradation", "underfitting"]
KINDS: tuple[Kind, ...] = ("collapse", "degradation", "underfitting")
EFFECTIVE = 0.66  # collapse below: effective number of experts, of all; 1 is even
DEAD = 0.05  # collapse above: dead experts, of all
OVERFLOW = 0.25  # collapse above: share of the assignments beyond 1.25 times even
SERVES = 0.8  # minimum share of an expert's tokens for it to serve a domain
OCCUPIED = 0.25  # degradation above: share of experts that serve a domain, minus its share
RARE = 0.5  # a domain is rare below this part of an even share
APART = 0.33  # underfitting below: distance from the others, relative to the median
OTHERS = 0.25  # required minimum of that median
ASSIGNMENTS = 1000  # required mean assignments to an expert
BLAMED = 0.1  # minimum part of the excess load that a named domain causes
HOT = 2.5  # load relative to even, above which the others' spread must explain it
FEW_EXPERTS = 8  # up to this number, an expert that most tokens choose is crowded
FAR = 4.0  # load relative to even that a crowded one of more experts also has
CHANCE = 1e-4  # probability below which the others' spread does not explain a load
FEW_DOMAINS = 3  # up to this number, `OCCUPIED` alone is required
TIMES = 1.6  # with more domains, minimum ratio of occupied experts to share
# Advice common to all diagnoses.
NO_CHANGE = (
    "no change of the mixture follows: as measured so far, experts tell no more about a domain than"
    " its share does"
)


@dataclass(frozen=True)
class Diagnosis:
    """A diagnosis of a layer's experts.

    Attributes:
        kind: One of the three diagnoses.
        layer: The model's number of the layer.
        router: Name of the router, if layers have several.
        what: Description of the problem.
        domain: The domain involved, or None.
        experts: The experts involved.
        numbers: The measures.
        advice: Meaning and what to do.
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
        """The router's name in the model, as `LayerAssignments.key`."""
        return f"{self.layer}/{self.router}".removesuffix("/")

    def __str__(self) -> str:
        """Return the diagnosis as one line."""
        return f"layer {self.key}: {self.kind}: {self.what}; {self.advice}"

    def to_json(self) -> dict[str, Any]:
        """Return the diagnosis as JSON values."""
        return {**asdict(self), "experts": list(self.experts)}


def diagnose(assignments: Assignments) -> list[Diagnosis]:
    """Return the diagnoses, by layer."""
    diagnoses: list[Diagnosis] = []
    for layer in filter(is_diagnosable, assignments.layers):
        diagnoses += _collapse(layer, assignments.domains)
        diagnoses += _degradation(layer, assignments.domains)
        diagnoses += _underfitting(layer, assignments.domains)
    return diagnoses


def is_diagnosable(layer: LayerAssignments) -> bool:
    """Return whether a layer has enough assignments for diagnoses."""
    return bool(layer.counts_DE.sum() >= max(1, ASSIGNMENTS * layer.experts))


def _collapse(layer: LayerAssignments, domains: tuple[str, ...]) -> Iterator[Diagnosis]:
    """Yield a diagnosis if the load is uneven, experts are dead, or experts are too busy."""
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
    busiest = int(load_E.argmax())
    blamed = _loads_most(layer, busiest)
    if blamed is None:
        domain = None
        advice = "all domains load it equally: balance the router, no mixture fixes this"
    else:
        domain = domains[blamed]
        advice = f"{domain!r} loads it most: balance the router; {NO_CHANGE}"
    experts = np.flatnonzero(crowded_E).tolist() or [busiest]
    yield Diagnosis(
        kind="collapse",
        layer=layer.layer,
        router=layer.router,
        what=_load_text(layer, busiest, int(hot_E.sum()), numbers),
        domain=domain,
        experts=tuple(experts),
        numbers=numbers,
        advice=advice,
    )


def _crowded(chosen_E: Array, load_E: Array, top_k: int) -> BoolArray:
    """Return the experts that most tokens choose; with many experts also far above even load."""
    crowded_E = measures.collapsed(chosen_E, top_k)
    if len(load_E) > FEW_EXPERTS:
        crowded_E &= load_E * len(load_E) >= FAR
    return crowded_E


def _load_text(
    layer: LayerAssignments, busiest: int, hot: int, numbers: Mapping[str, float]
) -> str:
    crowd = f"{hot} of {layer.experts} experts are hot, " if hot > 1 else ""
    return (
        f"{crowd}expert {busiest} has {numbers['max_load']:.1f} times the even load and is chosen"
        f" by {100 * numbers['chosen']:.0f}% of the tokens, {100 * numbers['overflow']:.0f}% of the"
        f" assignments are beyond a capacity of {measures.CAPACITY}, {100 * numbers['dead']:.0f}%"
        f" of the experts are dead, {numbers['effective'] * layer.experts:.0f} of {layer.experts}"
        " are effective"
    )


def _loads_most(layer: LayerAssignments, expert: int) -> int | None:
    """Return the domain that loads an expert most; None if there is one, or all load it alike."""
    shares_D = measures.load_shares(layer.tokens_D)
    load_D = np.nan_to_num(measures.expert_profiles(layer.counts_DE)[:, expert])
    load = float(shares_D @ load_D)
    d = int((shares_D * (load_D - load)).argmax())
    share = float(shares_D[d])
    domain_load = float(load_D[d])
    if share in {0.0, 1.0}:
        return None
    load_without = (load - share * domain_load) / (1 - share)
    excess = load - 1 / layer.experts
    if domain_load <= load_without or load - load_without < BLAMED * excess:
        return None
    return d


def _degradation(layer: LayerAssignments, domains: tuple[str, ...]) -> Iterator[Diagnosis]:
    """Yield a diagnosis for each domain that occupies too many experts."""
    counts_DE = layer.counts_DE
    total_E = counts_DE.sum(0)
    of_domain_DE = np.divide(counts_DE, total_E, out=np.zeros(counts_DE.shape), where=total_E > 0)
    serves_DE = of_domain_DE >= SERVES
    shares_D = measures.load_shares(layer.tokens_D)
    occupied_D = serves_DE.mean(1)
    limit = OCCUPIED * min(1.0, FEW_DOMAINS / len(domains))
    excess_D = occupied_D - shares_D
    is_beyond_D = excess_D > OCCUPIED
    is_beyond_D |= (excess_D > limit) & (occupied_D > TIMES * shares_D)
    for d in np.flatnonzero(is_beyond_D):
        domain = domains[d]
        experts = tuple(np.flatnonzero(serves_DE[d]).tolist())
        what = (
            f"{len(experts)} of {layer.experts} experts serve {domain!r}, which has"
            f" {100 * shares_D[d]:.1f}% of the tokens"
        )
        yield Diagnosis(
            kind="degradation",
            layer=layer.layer,
            router=layer.router,
            what=what,
            domain=domain,
            experts=experts,
            numbers={"occupied": float(occupied_D[d]), "share": float(shares_D[d])},
            advice=f"others could use them: look at the text of {domain!r}; {NO_CHANGE}",
        )


def _underfitting(layer: LayerAssignments, domains: tuple[str, ...]) -> Iterator[Diagnosis]:
    """Yield a diagnosis for each rare domain without experts of its own."""
    shares_D = measures.load_shares(layer.tokens_D)
    lift_DE = np.nan_to_num(measures.lift(layer.counts_DE))
    separation_D = measures.separation(layer.counts_HDE)
    distance_DD = measures.profile_distances(measures.expert_profiles(layer.counts_DE))
    is_seen_D = (shares_D > 0) & np.isfinite(separation_D)
    for d in np.flatnonzero(is_seen_D & (shares_D < RARE / len(domains))):
        is_other_D = is_seen_D & (np.arange(len(domains)) != d)
        if not is_other_D.any():
            continue
        median = float(np.median(separation_D[is_other_D]))
        if median < OTHERS or separation_D[d] >= APART * median:
            continue
        nearest = int(np.where(is_other_D, np.nan_to_num(distance_DD[d], nan=1.0), 2.0).argmin())
        numbers = {
            "apart": float(separation_D[d]),
            "others": median,
            "share": float(shares_D[d]),
            "distance": float(distance_DD[d, nearest]),
        }
        what = (
            f"{domains[d]!r} uses the same experts as all: its distance from the others"
            f" is {separation_D[d]:.2f}, the median domain's is {median:.2f}"
        )
        advice = (
            f"its experts are nearest to those of {domains[nearest]!r} (distance"
            f" {numbers['distance']:.2f}): look at its loss; {NO_CHANGE}"
        )
        yield Diagnosis(
            kind="underfitting",
            layer=layer.layer,
            router=layer.router,
            what=what,
            domain=domains[d],
            experts=(int(lift_DE[d].argmax()),),
            numbers=numbers,
            advice=advice,
        )
