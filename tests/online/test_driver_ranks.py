"""The driver on real gloo ranks: one decides, all do the same, and any number of them goes on."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch
from ranks import kill, on_ranks, start_ranks

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


def steer(out, steps, estimator, pause=0.0):
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


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The log and the batches of one process without torch.distributed."""
    out = tmp_path_factory.mktemp("undisturbed")
    steer(out, 45, Sweeping())
    return (out / "mixture_log.jsonl").read_bytes(), batches_of(out, 1)


def batches_of(out, world_size):
    """Rows of each batch over all ranks; of one that was trained on twice the later ones."""
    parts = []
    for rank in range(world_size):
        lines = (out / f"rows.{rank}").read_text().splitlines()
        parts.append(dict(map(json.loads, lines)))
    return {step: [row for part in parts for row in part[step]] for step in parts[0]}


def test_a_killed_job_of_two_ranks_goes_on_with_one_to_the_same_mixtures(undisturbed, tmp_path):
    log, batches = undisturbed
    ranks = start_ranks(2, __file__, "steered", tmp_path)
    state = tmp_path / "state.json"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not (
        state.exists() and json.loads(state.read_text())["driver"]["step"] >= 20
    ):
        time.sleep(0.01)
    kill(ranks)
    step = json.loads(state.read_text())["driver"]["step"]
    assert 20 <= step < 45
    before = batches_of(tmp_path, 2)
    for rank in range(2):
        (tmp_path / f"rows.{rank}").unlink()
    on_ranks(1, __file__, "steered", tmp_path)
    after = batches_of(tmp_path, 1)
    assert min(after) == step
    assert {k: before[k] for k in range(step)} | after == batches
    assert (tmp_path / "mixture_log.jsonl").read_bytes() == log


def steered(out):
    """Steer a job, slowly enough to be killed in the middle."""
    steer(out, 45, Sweeping(), 0.01)


def failing(out):
    """Return what this rank has of estimators that do not work."""
    frozen = steer(out, 20, Broken()).frozen
    try:
        steer(out, 20, Refused())
    except EstimatorError as error:
        return frozen, str(error)
    return frozen, None


def test_what_an_estimator_raises_on_rank_0_freezes_all_ranks_or_is_an_error_on_all(tmp_path):
    frozen, refused = zip(*on_ranks(2, __file__, "failing", tmp_path), strict=True)
    assert frozen == ("ZeroDivisionError in plan: no share",) * 2
    last = json.loads((tmp_path / "mixture_log.jsonl").read_text().splitlines()[-1])
    assert last["why"] == "frozen: ZeroDivisionError in plan: no share"
    assert last["weights"] == {"web": 0.5, "code": 0.3, "books": 0.2}  # not those of a sweep
    assert refused == ("too few domains", "EstimatorError on rank 0: too few domains")
