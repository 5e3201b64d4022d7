"""How far is any domain from the integral of its shares, at the end of any batch?

`python experiments/checks/order_error.py [--cases 300] [--seed 1]`: random mixtures, many of them
heavy domains beside light ones, batches of 1 to 8; then the same with four changes of weights.
"""

import argparse

import numpy as np

from mixopt import MixtureSampler
from mixopt.sampling.order import UNIT

BATCHES, CHANGES = 200, 4


def worst_error(weights, batch_size, changes=()):
    """Return the largest error in samples."""
    one = MixtureSampler([1000] * len(weights), weights, batch_size=batch_size)
    for batch, other in changes:
        one.set_weights(other, batch)
    places = (one.order.place(batch) for batch in range(1, BATCHES + 1))
    return max(np.abs(place.owed_D).max() for place in places) / UNIT


def main():
    """Print the largest error of all cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng, still, changed = np.random.default_rng(options.seed), [], []
    for _ in range(options.cases):
        heavy, light, batch_size = rng.integers(1, (8, 14, 9))
        weights = np.array([1.0] * heavy + [rng.uniform(0.003, 0.3)] * light)
        if rng.random() < 0.3:
            weights = rng.dirichlet(np.full(len(weights), 0.5))
        weights /= weights.sum()
        at = np.sort(rng.integers(1, BATCHES - 50, CHANGES)).tolist()
        changes = [(batch, rng.dirichlet(np.full(len(weights), 0.5))) for batch in at]
        still.append(worst_error(weights, int(batch_size)))
        changed.append(worst_error(weights, int(batch_size), changes))
    print(f"weights that stay: {max(still):.3f} samples; four changes: {max(changed):.3f}")


if __name__ == "__main__":
    main()
