"""What docs/plug_in.md promises of each unit, on random jobs that are killed and go on elsewhere.

A job is a row of legs. Each leg has its own number of ranks, reads some batches (further ahead than
it trains), changes weights, and is killed; the next one goes on from the state of what was trained
on. Whatever happened, the global batches are those of one rank that nothing disturbed.

`MIXOPT_CASES=2000 pytest tests/sampling/test_every_promise.py` runs more of them.
"""

from __future__ import annotations

import json
import os
from itertools import pairwise

import numpy as np
import pytest

from mixopt import MixtureSampler

CASES = int(os.environ.get("MIXOPT_CASES", "60"))
UNITS = ("samples", "tokens", "supervised")


class Case:
    """One random job."""

    def __init__(self, unit, number):
        self.unit = unit
        self.rng = rng = np.random.default_rng([UNITS.index(unit), number])
        names = [f"d{k}" for k in range(int(rng.integers(1, 6)))]
        self.sizes = {name: int(rng.integers(1, 120)) for name in names}
        means = rng.uniform(2, 60, len(names))
        spread = rng.uniform(0, 1.2)
        self.lengths = {
            name: np.maximum(1, mean * rng.lognormal(0, spread, self.sizes[name])).astype(int)
            for name, mean in zip(names, means, strict=True)
        }
        self.batch_size = int(rng.choice([2, 4, 8, 12, 24]))
        self.batches = int(rng.integers(20, 60))
        self.seed = int(rng.integers(0, 2**31))
        self.weights = self.mixture()
        self.schedule = self._schedule()
        self.changes = {
            int(batch): self.mixture()
            for batch in rng.integers(1, self.batches, rng.integers(0, 4))
        }
        limited = rng.random() < 0.3
        self.limits = {"max_epochs": float(rng.uniform(0.7, 4))} if limited else {}

    def mixture(self):
        weights = self.rng.dirichlet(np.full(len(self.sizes), self.rng.choice([0.3, 1.0, 5.0])))
        weights[self.rng.random(len(weights)) < 0.15] = 0.0
        if not weights.any():
            weights[0] = 1.0
        return (weights / weights.sum()).tolist()

    def _schedule(self):
        kind = self.rng.choice(["none", "constant", "linear"])
        start = int(self.rng.integers(1, self.batches - 1))
        if kind == "constant":
            return [(start, self.mixture())]
        if kind == "linear":
            stop = int(self.rng.integers(start + 1, self.batches + 10))
            return [(start, self.mixture(), stop, self.mixture())]
        return []

    def sampler(self, rank=0, ranks=1):
        how = {} if self.unit == "samples" else {"unit": self.unit, "lengths": self.lengths}
        return MixtureSampler(
            self.sizes,
            self.weights,
            batch_size=self.batch_size,
            seed=self.seed,
            rank=rank,
            world_size=ranks,
            schedule=self.schedule,
            **self.limits,
            **how,
        )

    def tokens(self, rows):
        """Return the tokens of each domain in a global batch."""
        flat = np.concatenate(list(self.lengths.values()))
        counted = np.ones(len(flat)) if self.unit == "samples" else flat
        return np.bincount(self.domains(rows), counted[rows], len(self.sizes))

    def domains(self, rows):
        return np.searchsorted(np.cumsum([0, *self.sizes.values()]), rows, side="right") - 1

    def undisturbed(self):
        """Return all global batches of one rank, and the mixture of each."""
        one, batches, mixtures = self.sampler(), [], []
        for batch in range(self.batches):
            if batch in self.changes:
                one.set_weights(self.changes[batch])
            if not one.order.has(batch):
                break
            batches.append(one.order.rows(batch)[0])
            mixtures.append(one.mixture_at(batch).array)
            one.received(batch + 1)
        return batches, mixtures, one

    def legs(self):
        """Yield the global batches as legs of other ranks read them, with their numbers."""
        state, batch = None, 0
        while batch < self.batches:
            ranks = int(self.rng.choice([r for r in (1, 2, 3, 4) if self.batch_size % r == 0]))
            stop = batch + int(self.rng.integers(1, 12))
            state, batch = yield from self._leg(ranks, state, batch, min(stop, self.batches))

    def _leg(self, ranks, state, first, stop):
        jobs = [self.sampler(rank, ranks) for rank in range(ranks)]
        for job in jobs:
            if state is not None:
                job.load_state_dict(json.loads(json.dumps(state)))
        trained = int(self.rng.integers(first, stop)) + 1
        states = []
        for batch in range(first, stop):
            for job in jobs:
                if batch in self.changes:
                    job.set_weights(self.changes[batch])
            parts = [next(iter(job), None) for job in jobs]
            if parts[0] is None:
                assert not any(parts)
                return None, self.batches
            rows = np.concatenate(parts)
            yield batch, rows
            if batch + 1 == trained:
                states = [json.dumps(job.state_dict()) for job in jobs]
                assert len(set(states)) == 1
        state = json.loads(states[0])
        # What was changed beyond what was trained on is changed again.
        is_all = not any(trained <= batch < stop for batch in self.changes)
        assert not is_all or state == jobs[0].state_at(trained)
        return state, trained


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
    most = case.limits.get("max_epochs")
    for rows in batches:
        np.add.at(times, rows, 1)
        for start, stop in pairwise(bounds):
            here = times[start:stop]
            assert here.max() - here.min() <= 1
            assert most is None or here.sum() <= most * len(here)


def _check_shares(case, batches, mixtures, whole):
    """What each domain had is near the integral of its weights, at the end of each batch."""
    if case.limits and any(entry.reason.startswith("exhausted") for entry in whole.log):
        return  # the others took its share: the integral is not of what was set
    had, owed = 0.0, 0.0
    longest = max(max(each) for each in case.lengths.values())
    for rows, mixture in zip(batches, mixtures, strict=True):
        tokens = case.tokens(rows)
        had, owed = had + tokens, owed + mixture * tokens.sum()
        off = np.abs(had - owed).max()
        assert off <= (1.5 if case.unit == "samples" else 1.5 * longest)  # over changes
        if not case.changes and not case.schedule:
            assert off <= (1 if case.unit == "samples" else longest)
