"""nanoGPT's layout on two ranks, killed and resumed on one: the rows of an undisturbed run."""

from __future__ import annotations

import json
import time

import read_ahead_job as job
from ranks import finish, kill, start_ranks
from sampler_rows import located
from trainer_parts import random_rows

from mixopt import MixtureSampler

STEPS = 24


def rows_by_batch(file):
    return dict(json.loads(line) for line in file.read_text().splitlines())


def expected():
    """The plain sampler's batches, under the loop's changes of weights."""
    order = MixtureSampler(random_rows().sizes, job.WEIGHTS, batch_size=8)
    for step in range(1, STEPS):
        new = job.weights_at(step)
        if new is not None:
            asked = step * job.ACCUMULATION + 1 + 4  # one ahead, and two of each worker
            order.set_weights(new, batch=asked + -asked % job.ACCUMULATION)
    pairs = [located(order, k, k + 1) for k in range(STEPS * job.ACCUMULATION)]
    return [[list(p) for p in zip(d.tolist(), r.tolist(), strict=True)] for d, r in pairs]


def test_a_killed_loop_that_reads_ahead_goes_on_with_the_same_rows(tmp_path):
    ranks = start_ranks(2, job.__file__, tmp_path, STEPS)
    checkpoint = tmp_path / "checkpoint.json"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not checkpoint.exists():
        time.sleep(0.01)
    kill(ranks)
    reached = json.loads(checkpoint.read_text())["step"]
    assert 0 < reached < STEPS
    before = [rows_by_batch(tmp_path / f"rows.{rank}") for rank in range(2)]
    (tmp_path / "rows.0").unlink()
    finish(start_ranks(1, job.__file__, tmp_path, STEPS))
    after = rows_by_batch(tmp_path / "rows.0")
    trained = reached * job.ACCUMULATION
    assert sorted(after) == list(range(trained, STEPS * job.ACCUMULATION))
    seen = [before[0][batch] + before[1][batch] for batch in range(trained)]
    assert seen + [after[batch] for batch in sorted(after)] == expected()
