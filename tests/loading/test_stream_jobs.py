"""Streams in real processes: ranks on gloo and workers that are killed, and go on as others."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from itertools import islice

import pytest
import torch
import torch.distributed as dist
from ranks import kill, on_ranks, start_ranks
from stream_sources import SIZES, hub, numbered, tokens_of

from mixopt import MixtureStream, SamplerError
from mixopt.system import write_json

BATCHES = 24
AHEAD = 4  # batches from a decision to where it holds: more than workers are asked for


def stream(**options):
    sources = {
        "web": hub(numbered("web"), 6),
        "code": hub(numbered("code"), 8),
        "books": hub(numbered("books"), 6).shuffle(seed=1, buffer_size=30),
    }
    rows = {"length": 16, "tokenize": tokens_of, "batch_size": 8, "buffer": 40}
    return MixtureStream(sources, dict.fromkeys(SIZES, 1 / 3), **rows, **options)


def lines(batch):
    """What a batch has, for a file: domain and tokens of each sample."""
    pairs = zip(batch["domain"].tolist(), batch["input_ids"].tolist(), strict=True)
    return [list(pair) for pair in pairs]


def moved(one, done, seen_D):
    """Change the weights after some batches, by what was drawn, as every rank does."""
    if done % 7 == 0:
        one.set_weights(((seen_D + 1) / (seen_D + 1).sum()).tolist(), done + AHEAD - 1)


def trained(out, workers):
    """Train to the last batch, from where the state is; write what is delivered."""
    one = stream(workers=workers, prefetch=AHEAD - 1)
    state = out / "state.json"
    if state.exists():
        one.load_state_dict(json.loads(state.read_text()))
    with (out / f"rows.{dist.get_rank()}").open("a") as log:
        for batch in one:
            log.write(json.dumps([batch["batch"], batch["position"], lines(batch)]) + "\n")
            log.flush()
            seen = torch.bincount(batch["domain"], minlength=3).double()
            dist.all_reduce(seen)
            done = batch["batch"] + 1
            moved(one, done, seen)
            if done % 5 == 0:
                found = one.state_dict()
                if dist.get_rank() == 0:
                    write_json(state, found)
                dist.barrier()
            if done == BATCHES:
                break
            time.sleep(0.01)


def undisturbed(batches):
    """Go through the batches of one rank, which changes its weights as the job does."""
    one = stream()
    for batch in islice(one, batches):
        yield lines(batch)
        moved(one, batch["batch"] + 1, torch.bincount(batch["domain"], minlength=3).double())


def delivered(out):
    """Return the samples of all ranks by batch; what came twice came the same."""
    found = {}
    for file in out.glob("rows.*"):
        for line in file.read_text().splitlines():
            batch, position, samples = json.loads(line)
            for place, sample in enumerate(samples, position):
                assert found.setdefault(batch, {}).setdefault(place, sample) == sample
    return [[found[b][place] for place in sorted(found[b])] for b in sorted(found)]


@pytest.mark.nightly
def test_killed_ranks_and_workers_go_on_as_other_numbers_sample_by_sample(tmp_path):
    ranks = start_ranks(2, __file__, "trained", tmp_path, 2)
    end = time.monotonic() + 120
    while not state_of(tmp_path) >= 10:
        assert time.monotonic() < end
        time.sleep(0.02)
    kill(ranks)
    assert len(delivered(tmp_path)) < BATCHES
    on_ranks(1, __file__, "trained", tmp_path, 3)
    batches = delivered(tmp_path)
    assert [len(batch) for batch in batches] == [8] * BATCHES
    assert batches == list(undisturbed(BATCHES))


def state_of(out):
    path = out / "state.json"
    return json.loads(path.read_text())["sampler"]["position"] // 8 if path.exists() else 0


def test_a_worker_that_is_killed_is_one_line_the_stream_goes_on_and_workers_end_with_it():
    one = stream(workers=2)
    iterator = iter(one)
    batches = [lines(next(iterator)) for _ in range(5)]
    started = children()
    assert len(started) == 2
    os.kill(started[0], signal.SIGKILL)
    with pytest.raises(SamplerError, match="^one of the 2 workers of the stream died; iterate ag"):
        batches.extend(map(lines, iterator))  # those that were ready are handed out
    iterator = iter(one)
    batches += [lines(batch) for batch in islice(iterator, 10)]
    assert batches == [lines(batch) for batch in islice(stream(), len(batches))]
    iterator.close()
    assert children() == []


def children():
    """Return the worker processes of streams that this process has."""
    return [child.pid for child in multiprocessing.active_children()]
