"""Diagnose collapse: few experts of a layer do its work, others are dead.

A load is uneven in several ways, and each has a number that means the same at 8 experts and at 512:
the effective number of experts over their number; dead experts; the assignments beyond a capacity;
experts that are busier than the spread of the others explains; experts that most tokens choose.

With the router as it is, an expert's load is linear in the mixture: the sum of each domain's share
times its profile. So the domain that loads the busiest expert most can be told, where one does.

Shapes: D domains, E experts.
"""

from __future__ import annotations

import numpy as np

from mixopt.routing import measures
from mixopt.routing.assignments import LayerAssignments
from mixopt.routing.diagnosis import NO_CHANGE, Diagnosis
from mixopt.routing.thresholds import Thresholds
from mixopt.system import Array, BoolArray

LEAST = 0.1  # of a load above the even one, that the domain to blame has brought
HOT = 2.5  # load over the even one, from which on the spread of the others must explain it
FEW, FAR = 8, 4.0  # up to so many experts what most choose is crowded; else beyond so much load
CHANCE = 1e-4  # that the others' spread does


def collapse(
    layer: LayerAssignments, domains: tuple[str, ...], limits: Thresholds
) -> list[Diagnosis]:
    """Return a diagnosis where the load is uneven, experts are dead, or some are too busy.

    Args:
        layer: Assignments of training.
        domains: Names of the domains.
        limits: From where on.
    """
    counts_E = layer.counts_DE.sum(0)
    load_E = measures.load_shares(counts_E)
    chosen_E = counts_E / layer.tokens_D.sum()
    hot_E = _hot(load_E, limits)
    crowded_E = _crowded(chosen_E, load_E, layer.experts_of_a_token) | hot_E
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
    most = _loads_most(layer, int(load_E.argmax()))
    domain = None if most is None else domains[most]
    return [
        Diagnosis(
            kind="collapse",
            layer=layer.layer,
            router=layer.router,
            what=_said(layer, load_E, hot_E, numbers),
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


def _crowded(chosen_E: Array, load_E: Array, top_k: float) -> BoolArray:
    """Return which experts most tokens choose; of many experts, such as are far above even too."""
    crowded_E = measures.collapsed(chosen_E, top_k)
    return np.asarray(crowded_E & ((load_E * len(load_E) >= FAR) | (len(load_E) <= FEW)))


def _is_beyond(name: str, number: float, alarm: float) -> bool:
    return number < alarm if name == "effective" else number > alarm


def _said(
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
    return None if own <= rest or load - rest < LEAST * (load - even) else d
