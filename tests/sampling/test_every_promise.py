"""What docs/plug_in.md promises of each unit holds on random jobs that are killed and resumed."""

import json
import os
from itertools import pairwise

import numpy as np
import pytest

from mixopt import MixtureSampler

CASES = int(os.environ.get("MIXOPT_CASES", "60"))
UNITS = ("samples", "tokens", "supervised")


class Case:
    """One random job: legs of other ranks that change weights, read ahead and are killed."""

    def __init__(self, unit, number):
        self.rng = rng = np.random.default_rng([UNITS.index(unit), number])
        self.sizes = {f"d{k}": int(rng.integers(1, 120)) for k in range(rng.integers(1, 6))}
        spread = rng.uniform(0, 1.2)
        self.lengths = {
            name: np.maximum(1, rng.uniform(2, 60) * rng.lognormal(0, spread, rows)).astype(int)
            for name, rows in self.sizes.items()
        }
        self.batch_size = int(rng.choice([2, 4, 8, 12, 24]))
        self.batches = int(rng.integers(20, 60))
        self.seed = number
        self.weights = self.mixture()
        start = int(rng.integers(1, self.batches - 1))
        stop = int(rng.integers(start + 1, self.batches + 10))
        stage = (start, self.mixture())
        self.schedule = [[], [stage], [(*stage, stop, self.mixture())]][rng.integers(3)]
        changed = rng.integers(1, self.batches, rng.integers(0, 4)).tolist()
        self.changes = {batch: self.mixture() for batch in changed}
        self.max_epochs = float(rng.uniform(0.7, 4)) if rng.random() < 0.3 else None
        self.counted = np.concatenate([*self.lengths.values()])
        self.unit = {"unit": unit, "lengths": self.lengths}
        if unit == "samples":
            self.counted, self.unit = np.ones(len(self.counted)), {}

    def mixture(self):
        weights = self.rng.dirichlet(np.full(len(self.sizes), self.rng.choice([0.3, 1.0, 5.0])))
        weights[self.rng.random(len(weights)) < 0.15] = 0.0
        if not weights.any():
            weights[0] = 1.0
        return (weights / weights.sum()).tolist()

    def sampler(self, rank=0, ranks=1):
        how = {"schedule": self.schedule, "max_epochs": self.max_epochs, **self.unit}
        how |= {"rank": rank, "world_size": ranks, "seed": self.seed}
        return MixtureSampler(self.sizes, self.weights, batch_size=self.batch_size, **how)

    def tokens(self, rows):
        """Return the tokens of each domain in a global batch."""
        return np.bincount(self.domains(rows), self.counted[rows], len(self.sizes))

    def domains(self, rows):
        return np.searchsorted(np.cumsum([0, *self.sizes.values()]), rows, side="right") - 1

    def undisturbed(self):
        """Return all global batches of one rank, and the mixture of each."""
        sampler, batches, mixtures = self.sampler(), [], []
        for batch in range(self.batches):
            if batch in self.changes:
                sampler.set_weights(self.changes[batch])
            if not sampler.order.has(batch):
                break
            batches.append(sampler.order.rows(batch)[0])
            mixtures.append(sampler.mixture_at(batch).array)
            sampler.received(batch + 1)
        return batches, mixtures, sampler

    def legs(self):
        """Yield the global batches as legs of other ranks read them, with their numbers."""
        state, first = None, 0
        while first < self.batches:
            ranks = int(self.rng.choice([r for r in (1, 2, 3, 4) if self.batch_size % r == 0]))
            jobs = [self.sampler(rank, ranks) for rank in range(ranks)]
            for job in jobs:
                if state is not None:
                    job.load_state_dict(json.loads(state))
            stop = min(first + int(self.rng.integers(1, 12)), self.batches)
            trained = int(self.rng.integers(first, stop)) + 1
            for batch in range(first, stop):
                for job in jobs:
                    if batch in self.changes:
                        job.set_weights(self.changes[batch])
                parts = [next(iter(job), None) for job in jobs]
                if parts[0] is None:
                    assert not any(parts)
                    return
                yield batch, np.concatenate(parts)
                if batch + 1 == trained:
                    (state,) = {json.dumps(job.state_dict()) for job in jobs}
            # What was changed beyond what was trained on is changed again.
            if not any(trained <= batch < stop for batch in self.changes):
                assert json.loads(state) == jobs[0].state_at(trained)
            first = trained


@pytest.mark.parametrize("unit", UNITS)
def test_a_killed_job_has_the_batches_of_an_undisturbed_one(unit):
    for number in range(CASES // len(UNITS)):
        case = Case(unit, number)
        batches, mixtures, whole = case.undisturbed()
        for batch, rows in case.legs():
            assert rows.tolist() == batches[batch].tolist(), (number, batch)
        _check_epochs(case, batches)
        _check_shares(case, batches, mixtures, whole)


def _check_epochs(case, batches):
    """No row comes again before all others of its domain have come as often."""
    times = np.zeros(sum(case.sizes.values()), int)
    bounds = np.cumsum([0, *case.sizes.values()])
    for rows in batches:
        np.add.at(times, rows, 1)
        for start, stop in pairwise(bounds):
            here = times[start:stop]
            assert here.max() - here.min() <= 1
            assert case.max_epochs is None or here.sum() <= case.max_epochs * len(here)


def _check_shares(case, batches, mixtures, whole):
    """What each domain had is near the integral of its weights, at the end of each batch."""
    if case.max_epochs and any(entry.reason.startswith("exhausted") for entry in whole.log):
        return  # the others took its share: the integral is not of what was set
    had, owed = 0.0, 0.0
    longest = max(case.counted)
    for rows, mixture in zip(batches, mixtures, strict=True):
        tokens = case.tokens(rows)
        had, owed = had + tokens, owed + mixture * tokens.sum()
        off = np.abs(had - owed).max()
        assert off <= longest * (1.5 if case.changes or case.schedule else 1)
