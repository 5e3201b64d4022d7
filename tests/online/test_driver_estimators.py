"""Each installed estimator is driven through a run, and goes on from the middle of it."""

from __future__ import annotations

import json
from collections import deque

import numpy as np
import pytest
import torch

from mixopt import MixtureSampler
from mixopt.online import Driver, DriverOptions, make_estimator
from mixopt.system import plugin_names

NAMES = ("web", "code", "books")
ROWS, TOKENS, STEPS = 400, 8, 60
OPTIONS = {
    "aioli": {"sweeps": 1, "sweep_steps": 2, "update_steps": 20},
}


class Run:
    """A loop of one process; `ahead` steps are handed out before they are trained on."""

    def __init__(self, name, log, *, ahead=0, state=None):
        self.order = MixtureSampler(dict.fromkeys(NAMES, ROWS), [0.5, 0.3, 0.2], batch_size=8)
        estimator = make_estimator(name, OPTIONS.get(name))
        options = DriverOptions(
            steps=STEPS,
            tokens_per_sample=TOKENS,
            evaluate=self.evaluate,
            observe_every=4,
            log=log,
        )
        self.driver = Driver(estimator, self.order, options)
        self.ahead = ahead
        if state is not None:
            self.order.load_state_dict(state["order"])
            self.driver.load_state_dict(state["driver"])

    def losses(self, rows):
        """A fast fall for one domain, a slow one for another, and some noise."""
        rows, token = torch.as_tensor(rows), torch.arange(TOKENS)
        noise = ((rows[:, None] * 31 + token * 17) % 97).float() / 97
        rate = torch.tensor([0.99, 0.95, 0.999])[rows // ROWS, None]
        return 1 + 2 * rate**self.driver.steps_done + 0.1 * noise

    def evaluate(self):
        sums = [self.losses(range(ROWS * k, ROWS * k + 9)).double().sum().item() for k in range(3)]
        return {name: (total, 9 * TOKENS) for name, total in zip(NAMES, sums, strict=True)}

    def train(self, until):
        self.driver.start()
        batches, waiting = iter(self.order), deque()
        while self.driver.steps_done < until:
            while len(waiting) <= self.ahead:
                waiting.append(np.array(next(batches)))
            rows = waiting.popleft()
            losses, domain = self.losses(rows), torch.from_numpy(rows // ROWS)
            self.driver.record(losses, domain)
            self.driver.step(learning_rate=1e-3)
        order = self.order.state_at(self.driver.steps_done)
        state = {"order": order, "driver": self.driver.state_dict()}
        return json.loads(json.dumps(state, allow_nan=False))


@pytest.mark.parametrize("ahead", [0, 4])
@pytest.mark.parametrize("name", plugin_names("estimator"))
def test_an_estimator_goes_on_to_the_same_mixtures(tmp_path, name, ahead):
    whole = Run(name, tmp_path / "whole.jsonl", ahead=ahead)
    whole.train(STEPS)
    assert whole.driver.frozen is None
    for step in (7, 18, 33):
        log = tmp_path / f"{step}.jsonl"
        state = Run(name, log, ahead=ahead).train(step)
        Run(name, log, ahead=ahead, state=state).train(STEPS)
        assert log.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    written = len((tmp_path / "whole.jsonl").read_text().splitlines())
    assert written > 3
