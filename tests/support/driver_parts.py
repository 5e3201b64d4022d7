"""An estimator, a sampler and a loop for the tests of the driver in one process."""

import json

import numpy as np
import torch

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler
from mixopt.online import Driver, DriverOptions, Plan

NAMES = ("a", "b", "c")
ROWS = 1000
TOKENS = 16
START = [0.5, 0.3, 0.2]
DOMAIN_OF_ROW = np.repeat(np.arange(3), ROWS)


class Turning:
    """Plans of `steps` steps that take turns, from all that was seen; every second one perturbs."""

    def __init__(self, steps=5, *, held_out=False, first_look=False, needs=("training_loss",)):
        self.needs = frozenset(needs)
        self.plan_steps, self.held_out, self.first_look = steps, held_out, first_look
        self.observations, self.plans = [], 0

    def start(self, setting):
        self.setting, self.count, self.heat = setting, 0, np.zeros(len(setting.domains))
        self.pace = 0 if self.first_look else self.plan_steps

    def plan(self):
        self.plans += 1
        if self.first_look and not self.count:
            return Plan(self.setting.reference_D, 0, "a look", held_out=True)
        weights = np.roll([0.7, 0.2, 0.1][: len(self.heat)], self.count) + 0.01 * np.tanh(self.heat)
        tag = f"turn {self.count}"
        perturbs = self.count % 2 == 0
        return Plan(weights / weights.sum(), self.plan_steps, tag, self.held_out, perturbs)

    def observe(self, observation):
        self.observations.append(observation)
        if observation.held_out is not None:
            self.heat = self.heat + observation.held_out.losses_M
        self.heat = self.heat + observation.loss_sum_D / 100 + observation.tokens_D / 1000
        if observation.step >= self.pace:
            self.count += 1
            self.pace = observation.step + self.plan_steps

    def state_dict(self):
        heat = dict(zip(self.setting.domains, self.heat.tolist(), strict=True))
        return {"count": self.count, "pace": self.pace, "heat": heat}

    def load_state_dict(self, state):
        self.count, self.pace = state["count"], state["pace"]
        self.heat = np.array([state["heat"].get(name, 0.0) for name in self.setting.domains])


def sampler(**options):
    return MixtureSampler(dict.fromkeys(NAMES, ROWS), START, **{"batch_size": 8} | options)


def driver_over(mixture, estimator, **options):
    options = {"steps": 40, "tokens_per_sample": TOKENS} | options
    return Driver(estimator, mixture, DriverOptions(**options))


def held_out_of(losses=(3.0, 2.0, 1.0), tokens=100):
    return lambda: {name: (loss * tokens, tokens) for name, loss in zip(NAMES, losses, strict=True)}


def losses_of(rows, step):
    """Losses of a batch, which any split of it over ranks gives to the last bit."""
    rows = torch.as_tensor(rows)
    token = torch.arange(TOKENS)
    return 1 + (((rows[:, None] * 31 + token * 17) % 97).float() / 97) * 0.99**step


def train(driver, order, *, until, record=None):
    """Go on to a step; `record(step, losses)` may change the losses."""
    driver.start()
    while driver.steps_done < until:
        rows = np.array(next(iter(order)))
        losses = losses_of(rows, driver.steps_done)
        if record is not None:
            losses = record(driver.steps_done + 1, losses)
        driver.record(losses, torch.from_numpy(DOMAIN_OF_ROW[rows]))
        driver.step(learning_rate=0.1)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def held_from(path):
    return [line["batch"] for line in lines(path)[1:]]


def loader_over_rows(order, workers):
    rows = {name: [{"row_id": k * ROWS + r} for r in range(ROWS)] for k, name in enumerate(NAMES)}
    return MixtureLoader(MixtureDataset(rows), order, workers=workers)


def run(log, until, *, state=None, estimator=None, **options):
    order = sampler()
    estimator = estimator or Turning(3, held_out=True, first_look=True)
    options = {"evaluate": held_out_of(), "observe_every": 2} | options
    driver = driver_over(order, estimator, log=log, **options)
    if state is not None:
        order.load_state_dict(state["order"])
        driver.load_state_dict(state["driver"])
    train(driver, order, until=until)
    state = {"order": order.state_dict(), "driver": driver.state_dict()}
    return driver, order, json.loads(json.dumps(state))
