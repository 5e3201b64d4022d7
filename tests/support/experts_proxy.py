"""A proxy without training, whose experts get what a mixture says, for the tests of sweeps."""

from dataclasses import replace

import numpy as np
from made_experts import made_layer

from mixopt.routing import Assignments, ExpertCounts
from mixopt.sweeps import Progress
from mixopt.trials import Losses, TrialResult

TOKENS = 40_000
# Twice as many of a domain's tokens go to one expert as to each of the others.
PROFILES = {"code": [0.4, 0.2, 0.2, 0.2], "manual": [0.2, 0.2, 0.2, 0.4]}


def collapses(code: float) -> bool:
    return code > 0.7


def given(tokens):
    """Return what experts are given of so many tokens of each domain."""
    counts_DE = np.array([np.multiply(PROFILES[name], count) for name, count in tokens.items()])
    if collapses(next(iter(tokens.values())) / sum(tokens.values())):
        counts_DE[:, 0] += counts_DE[:, 1:].sum(1)
        counts_DE[:, 1:] = 0
    return Assignments(tuple(tokens), (made_layer(counts_DE, layer=1),))


class Routed:
    """Losses and experts are functions of the mixture; the best one has most code."""

    def __init__(self, experts: bool = True) -> None:
        self.experts = experts

    def group_size(self, corpus, training) -> int:
        return 4

    def train(self, trials, corpus, training, report):
        report(Progress(1, 1))
        return [self._result(trial) for trial in trials]

    def _result(self, trial) -> TrialResult:
        code = trial.mixture["code"]
        noise = 0.001 * (trial.seed % 7)
        nats = {"code": 3 - code + noise, "manual": 2 + 0.3 * code + noise}
        losses = Losses(100, nats, {name: value / 2 for name, value in nats.items()})
        result = TrialResult(trial.name, "finished", 100, 10, 0.1, losses)
        if not self.experts:
            return result
        train = given({name: round(TOKENS * share) for name, share in trial.mixture.items()})
        held_out = given(dict.fromkeys(trial.mixture, TOKENS // 2))
        return replace(result, experts=ExpertCounts(train, held_out))
