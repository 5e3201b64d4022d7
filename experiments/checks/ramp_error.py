"""How far a domain is from its integral at any prefix, over random ramps and stages.

    python experiments/checks/ramp_error.py --logs 3000

Each log has some stages, of which three in four go linearly from one mixture to another, over 8
to 3,840 samples; mixtures are even, sparse or of one heavy domain. The integral is of exact shares,
and every position is looked at. Printed are errors in samples, of logs of one stage each, a ramp,
and of logs of many; and how many logs had one above 2.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from mixopt import MixtureSampler

BATCH = 8
Weights = NDArray[np.float64]
Stage = tuple[int, Weights] | tuple[int, Weights, int, Weights]


def random_weights(rng: np.random.Generator, domains: int) -> Weights:
    """Return an even, a sparse or a lopsided mixture, some domains without a share."""
    kind = rng.integers(4)
    if kind == 0:
        return rng.dirichlet([1.0] * domains)
    if kind == 1:
        weights = rng.dirichlet([0.1] * domains)
    elif kind == 2:
        weights = 1e-6 * rng.random(domains)
        weights[rng.integers(domains)] = 0.9
        weights[rng.integers(domains)] += 0.1
    else:
        weights = rng.dirichlet([0.5] * domains) * (rng.random(domains) < 0.5)
        weights[rng.integers(domains)] += 0.01
    return weights / weights.sum()


def random_log(rng: np.random.Generator, domains: int, stages: int) -> tuple[list[Stage], int]:
    """Return a schedule, three in four of its stages ramps, and the batch after the last."""
    batch, log = 0, list[Stage]()
    for _ in range(stages):
        length = int(rng.integers(1, 481))
        weights = random_weights(rng, domains)
        if log and len(log[-1]) == 4 and rng.random() < 0.5:
            weights = log[-1][3]
        if stages == 1 or rng.random() < 0.75:
            whole = rng.random() < 0.5
            end = batch + (length if whole else int(rng.integers(1, 2 * length + 1)))
            log.append((batch, weights, end, random_weights(rng, domains)))
        else:
            log.append((batch, weights))
        batch += length
    return log, batch


def integral(log: list[Stage], batches: int) -> Weights:
    """Return what is due to each domain before each sample, shape (samples + 1, D)."""
    rates = np.zeros((batches * BATCH, len(log[0][1])))
    for stage in log:
        start = stage[0] * BATCH
        rates[start:] = stage[1]
        if len(stage) == 4:
            end = stage[2] * BATCH
            gone = np.minimum((np.arange(len(rates) - start) + 0.5) / (end - start), 1)
            rates[start:] = stage[1] + gone[:, None] * (stage[3] - stage[1])
            rates[end:] = stage[3]
    return np.concatenate([np.zeros((1, rates.shape[1])), rates.cumsum(axis=0)])


def worst(log: list[Stage], batches: int) -> float:
    """Return the largest error of a domain at a prefix, in samples."""
    domains = len(log[0][1])
    sampler = MixtureSampler([10] * domains, log[0][1], batch_size=BATCH, schedule=log)
    drawn = sampler.order.planned(0, batches * BATCH)
    count = np.zeros((len(drawn) + 1, domains))
    count[np.arange(1, len(drawn) + 1), drawn] = 1
    return float(np.abs(count.cumsum(axis=0) - integral(log, batches)).max())


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
