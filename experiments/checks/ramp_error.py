"""How far a domain is from its integral at any prefix, over random ramps and stages.

    python experiments/checks/ramp_error.py --logs 3000

Each log has some stages, of which most go linearly from one mixture to another, over 1 to 60
windows of 64 positions; mixtures are even, sparse or of one heavy domain. The integral is of exact
shares; every position is looked at. Printed are the largest error, in samples, of logs of one
stage each and of logs of many, and how many logs had one above 2.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from mixopt.sampling import SampleOrder
from mixopt.sampling.order import UNIT, RampEnd, ShareChange, whole_shares
from mixopt.sampling.sample_order import StreamLayout

WINDOW = 64


def random_shares(rng: np.random.Generator, domains: int) -> tuple[int, ...]:
    """Return an even, a sparse or a lopsided mixture, some domains without a share."""
    kind = rng.integers(4)
    if kind == 0:
        weights = rng.dirichlet([1.0] * domains)
    elif kind == 1:
        weights = rng.dirichlet([0.1] * domains)
    elif kind == 2:
        weights = 1e-6 * rng.random(domains)
        weights[rng.integers(domains)] = 0.9
        weights[rng.integers(domains)] += 0.1
    else:
        weights = rng.dirichlet([0.5] * domains) * (rng.random(domains) < 0.5)
        weights[rng.integers(domains)] += 0.01
    return tuple(whole_shares(weights.tolist()))


def random_log(
    rng: np.random.Generator, domains: int, stages: int
) -> tuple[list[ShareChange], int]:
    """Return changes, three in four of them ramps, and the position after the last."""
    position, changes = 0, []
    for _ in range(stages):
        length = int(rng.integers(1, 61)) * WINDOW
        end = None
        if stages == 1 or rng.random() < 0.75:
            until = position + int(rng.integers(1, length + 1)) if rng.random() < 0.5 else None
            end = RampEnd(until or position + length, random_shares(rng, domains))
        joins = changes and changes[-1].end and rng.random() < 0.5
        shares = changes[-1].end.shares if joins else random_shares(rng, domains)
        changes.append(ShareChange(position, shares, end))
        position += length
    return changes, position


def integral(changes: list[ShareChange], stop: int) -> NDArray[np.float64]:
    """Return what is due to each domain before each position, shape (stop + 1, D)."""
    rates = np.empty((stop, len(changes[0].shares)))
    for change, following in zip(changes, [*changes[1:], None], strict=True):
        last = stop if following is None else following.position
        start, until = change.position, last
        first = np.array(change.shares) / UNIT
        rates[start:last] = first
        if change.end is not None:
            until = min(change.end.position, last)
            final = np.array(change.end.shares) / UNIT
            gone = (np.arange(until - start) + 0.5) / (change.end.position - start)
            rates[start:until] = first + gone[:, None] * (final - first)
            rates[until:last] = final
    return np.concatenate([np.zeros((1, rates.shape[1])), rates.cumsum(axis=0)])


def worst(changes: list[ShareChange], stop: int) -> float:
    """Return the largest error of a domain at a prefix, in samples."""
    domains = len(changes[0].shares)
    names = tuple(f"d{k}" for k in range(domains))
    layout = StreamLayout(names, (10,) * domains, 0, WINDOW, (None,) * domains)
    drawn = SampleOrder(layout, changes).planned(0, stop)
    count = np.zeros((stop + 1, domains))
    count[np.arange(1, stop + 1), drawn] = 1
    return float(np.abs(count.cumsum(axis=0) - integral(changes, stop)).max())


def main() -> None:
    """Print a row for each number of domains and stages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--logs", type=int, default=1000)
    parser.add_argument("--domains", type=int, nargs="+", default=[2, 8, 24, 200])
    logs = parser.parse_args().logs
    domains = parser.parse_args().domains
    print("| domains | stages | logs | median | 99th percentile | worst | above 2 |")
    print("|---|---|---|---|---|---|---|")
    for count in domains:
        for stages in (1, 12):
            rng = np.random.default_rng(count * 100 + stages)
            many = max(logs if count < 100 else logs // 10, 1)
            found = [worst(*random_log(rng, count, stages)) for _ in range(many)]
            middle, high = np.quantile(found, [0.5, 0.99])
            above = sum(error > 2 for error in found)
            print(
                f"| {count} | {stages} | {many} | {middle:.2f} | {high:.2f} | {max(found):.2f} |"
                f" {above} |"
            )


if __name__ == "__main__":
    main()
