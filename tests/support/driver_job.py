"""Training jobs whose mixture an estimator steers, for test_driver_ranks.

python driver_job.py steered|others OUT STEPS
    with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from mixopt import MixtureSampler
from mixopt.errors import EstimatorError
from mixopt.online import Driver, DriverOptions, Plan
from mixopt.system import write_json

NAMES = ("web", "code", "books")
ROWS, TOKENS = 500, 8


class Sweeping:
    """Sweeps of 3 steps with an evaluation after each, then 4 steps on what they say."""

    needs = frozenset({"training_loss", "held_out"})

    def start(self, setting):
        self.setting, self.turn, self.until = setting, 0, 0
        self.score = np.ones(3)

    def plan(self):
        if self.until == 0:
            return Plan(self.setting.reference_D, 0, "before the sweeps", held_out=True)
        if self.turn % 4 == 3:
            return Plan(self.score / self.score.sum(), 4, "on what they say")
        weights = np.full(3, 0.2)
        weights[self.turn % 4] = 0.6
        return Plan(weights, 3, f"sweep {self.turn}", held_out=True, perturbs=True)

    def observe(self, observation):
        means = observation.loss_sum_D / np.maximum(observation.loss_count_D, 1)
        self.score = 0.9 * self.score + 0.1 * means
        if observation.held_out is not None:
            self.score = self.score + 0.05 * observation.held_out.losses_M
        if observation.step >= self.until:
            self.turn += self.until > 0
            self.until = observation.step + (4 if self.turn % 4 == 3 else 3)

    def state_dict(self):
        return {"turn": self.turn, "until": self.until, "score": self.score.tolist()}

    def load_state_dict(self, state):
        self.turn, self.until = state["turn"], state["until"]
        self.score = np.array(state["score"])


class Broken(Sweeping):
    """Raises where it is asked for its third plan."""

    def plan(self):
        if self.turn == 2:
            raise ZeroDivisionError("no share")
        return super().plan()


class Refused(Sweeping):
    """Works in no setting."""

    def start(self, setting):
        raise EstimatorError("too few domains")


def losses_of(rows, step):
    """Losses that any split of the batch over ranks gives to the last bit."""
    rows, token = torch.as_tensor(rows), torch.arange(TOKENS)
    return 1 + ((rows[:, None] * 31 + token * 17) % 97).float() / 97 * 0.98**step


def steer(out, steps, estimator, *, pause=0.0):
    """Train to a step; go on where the state is."""
    order = MixtureSampler(dict.fromkeys(NAMES, ROWS), [0.5, 0.3, 0.2], batch_size=8)

    def evaluate():
        mine = range(order.rank, 10, order.world_size)
        losses = {k: losses_of([ROWS * k + i for i in mine], driver.steps_done) for k in range(3)}
        sums = {NAMES[k]: (float(loss.double().sum()), loss.numel()) for k, loss in losses.items()}
        return sums if mine else {}

    options = DriverOptions(
        steps=steps,
        tokens_per_sample=TOKENS,
        log=out / "mixture_log.jsonl",
        evaluate=evaluate,
        observe_every=4,
    )
    driver = Driver(estimator, order, options)
    saved = out / "state.json"
    if saved.exists():
        state = json.loads(saved.read_text())
        order.load_state_dict(state["order"])
        driver.load_state_dict(state["driver"])
    driver.start()
    with (out / f"rows.{order.rank}").open("a") as log:
        for listed in order:
            log.write(json.dumps([driver.steps_done, listed]) + "\n")
            log.flush()
            rows = np.array(listed)
            driver.record(losses_of(rows, driver.steps_done), torch.from_numpy(rows // ROWS))
            driver.step(learning_rate=0.1)
            if driver.steps_done % 5 == 0:
                state = {"order": order.state_dict(), "driver": driver.state_dict()}
                if order.rank == 0:
                    write_json(saved, state)
            if driver.steps_done == steps:
                return driver
            time.sleep(pause)
    raise AssertionError("the stream ended")


def others(out, steps):
    """Write what this rank says of estimators that do not work."""
    said = {"frozen": steer(out, steps, Broken()).frozen}
    try:
        steer(out, steps, Refused())
    except EstimatorError as error:
        said["refused"] = str(error)
    write_json(out / f"said.{dist.get_rank()}", said)


def main(kind, out, steps):
    """Run a job of this process's rank."""
    dist.init_process_group("gloo")
    if kind == "others":
        others(out, steps)
    else:
        steer(out, steps, Sweeping(), pause=0.01)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    os._exit(0)
