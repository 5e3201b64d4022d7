"""How often experts' anomalies are found in made models that have one, and in healthy ones.

    python experiments/checks/expert_alarms.py                # two minutes of a free core
    python experiments/checks/expert_alarms.py --models 200 --first 1000000

Healthy models (made_routers.py) are of 8 to 512 experts, 1 to 8 of a token, 2 to 20 domains of
uneven shares, four layers each; a false alarm is any diagnosis in any layer. Models with an anomaly
have it in one layer of four, at 8, 64 and 256 experts and 3, 8 and 20 domains; it is found where
that layer has a diagnosis of that kind, of that domain where it is about one. Seeds below 1,000,000
were looked at while thresholds were chosen; the default seeds were not.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from made_routers import AT, Made, Maker

from mixopt.routing import diagnose

FIRST = 1_000_000
SIZES = ((8, 3), (8, 8), (8, 20), (64, 3), (64, 8), (64, 20), (256, 3), (256, 8), (256, 20))
HOT = {8: 1, 64: 3, 256: 8}
Make = Callable[[Maker], Made]

# Kind of anomaly, what its strength is, and how a model of each strength is made.
CASES: dict[str, tuple[str, str, tuple[float, ...], Callable[[Maker, float], Made]]] = {
    "hot experts": (
        "collapse",
        "load over even of 1 of 8, 3 of 64, 8 of 256",
        (2.0, 2.5, 3.0, 4.0),
        lambda maker, times: maker.hot(
            HOT[maker.experts], min(times, 0.95 * maker.experts / maker.top_k)
        ),
    ),
    "few experts": (
        "collapse",
        "share of the assignments on 30% of the experts",
        (0.5, 0.65, 0.8, 0.9),
        lambda maker, share: maker.few(0.3, share),
    ),
    "dead experts": (
        "collapse",
        "part of the experts, at least one",
        (0.02, 0.06, 0.12, 0.25),
        lambda maker, part: maker.dead(part),
    ),
    "an occupying domain": (
        "degradation",
        "part of the experts over its share",
        (1.5, 2.0, 2.5, 3.0),
        lambda maker, times: maker.occupied(times),
    ),
    "shared experts": (
        "degradation",
        "their share of the output for one domain, above the others'",
        (0.1, 0.2, 0.25, 0.35),
        lambda maker, more: maker.shares_out(more),
    ),
    "a rare domain": (
        "underfitting",
        "part of its tokens that goes as those of all others",
        (0.0, 0.5, 0.8, 1.0),
        lambda maker, part: maker.underfitted(part),
    ),
}


def alarms_of_healthy(models: int, first: int) -> list[tuple[int, list[str]]]:
    """Return the seeds of healthy models in which something is diagnosed, and what."""
    found = []
    for seed in range(first, first + models):
        made = Maker(seed).healthy()
        if said := [str(one) for one in diagnose(made.assignments, probe=made.probe)]:
            found.append((seed, said))
    return found


def found_share(case: str, strength: float, size: tuple[int, int], seeds: range) -> float:
    """Return in what share of the models with an anomaly it is found, where it is."""
    kind, _, _, make = CASES[case]
    experts, domains = size
    return float(
        np.mean(
            [
                _is_found(make(Maker(seed, experts=experts, domains=domains), strength), kind)
                for seed in seeds
            ]
        )
    )


def _is_found(made: Made, kind: str) -> bool:
    found = diagnose(made.assignments, probe=made.probe)
    return any(
        one.layer == AT and one.kind == kind and made.domain in (None, one.domain) for one in found
    )


def _rows(models: int, first: int) -> Iterator[str]:
    for case, (kind, what, strengths, _) in CASES.items():
        yield f"\n{case}: {kind}; strength: {what}"
        yield f"{'strength':>10}" + "".join(f"{f'{e}/{d}':>9}" for e, d in SIZES)
        for strength in strengths:
            shares = [
                found_share(case, strength, size, range(first, first + models)) for size in SIZES
            ]
            yield f"{strength:>10g}" + "".join(f"{share:>9.2f}" for share in shares)


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=200, help="healthy; of a case a fifth")
    parser.add_argument("--first", type=int, default=FIRST, help="the first seed")
    asked = parser.parse_args()
    alarms = alarms_of_healthy(asked.models, asked.first)
    print(f"healthy: {len(alarms)} of {asked.models} models have a diagnosis")
    for seed, said in alarms:
        print(f"  {seed}: {said[0]}")
    for row in _rows(asked.models // 5, asked.first):
        print(row, flush=True)


if __name__ == "__main__":
    main()
