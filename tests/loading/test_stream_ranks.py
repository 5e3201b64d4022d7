"""A stream on any ranks, killed and resumed on any other, is that of one rank undisturbed."""

import json
import multiprocessing
import os
import signal
import time
from itertools import islice

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, example, given, settings, strategies as st
from ranks import kill, on_ranks, start_ranks
from stream_sources import KINDS, SIZES, hub, numbered, tokens_of

from mixopt import MixtureStream, SamplerError
from mixopt.loading.mixture_stream import joined_states
from mixopt.system import write_json

WEIGHTS = [0.5, 0.3, 0.2]
LANES = {"shards": 8, "mapped": 8, "mapped tables": 8, "shuffled": 8}  # of the others one
CHANGED = st.sampled_from([[0, 0.2, 0.8], [0.9, 0, 0.1]])
CASES = int(os.environ.get("MIXOPT_STREAM_CASES", "25"))


def stream_of(case, schedule=(), **options):
    sources = {name: KINDS[case["kind"]](numbered(name)) for name in SIZES}
    how = {name: case[name] for name in ("lanes", "buffer", "seed")} | options
    if case["packed"]:
        how |= {"length": 24, "tokenize": tokens_of}
    size = case["lanes"] * case["samples"]
    return MixtureStream(sources, WEIGHTS, schedule=schedule, batch_size=size, **how)


def content(batch):
    names = [name for name in ("id", "input_ids", "document", "domain") if name in batch]
    return {name: batch[name].numpy() for name in names}


@st.composite
def cases(draw):
    kind = draw(st.sampled_from(sorted(KINDS)))
    lanes = draw(st.sampled_from([n for n in (1, 2, 4, 6, 8) if n <= LANES.get(kind, 1)]))
    ranks = st.sampled_from([n for n in range(1, lanes + 1) if lanes % n == 0])
    legs = st.tuples(ranks, st.integers(0, 9), st.integers(0, 3))
    return {
        "kind": kind,
        "packed": draw(st.booleans()),
        "lanes": lanes,
        "samples": draw(st.integers(1, 4)),
        "buffer": draw(st.sampled_from([1, 8, 40, 200])),
        "seed": draw(st.integers(0, 3)),
        "legs": draw(st.lists(legs, min_size=1, max_size=4)),
        "changes": draw(st.dictionaries(st.integers(0, 20), CHANGED, max_size=3)),
    }


def disturbed(case, workers=0):
    """Run the legs: each goes on from the last state, on another number of ranks."""
    at, state, batches = 0, None, []
    for ranks, count, lost in case["legs"]:
        parts = [stream_of(case, rank=k, world_size=ranks, workers=workers) for k in range(ranks)]
        if state is not None:
            for part in parts:
                part.load_state_dict(state)
        iterators = [iter(part) for part in parts]
        for batch in range(at, at + count + lost):
            if batch == at + count:
                state = joined(parts)
            for change, weights in case["changes"].items():
                if change == batch:
                    assert [part.set_weights(weights) for part in parts] == [batch] * ranks
            got = [content(next(item)) for item in iterators]
            if batch < at + count:
                batches.append({n: np.concatenate([item[n] for item in got]) for n in got[0]})
        state = joined(parts) if not lost else state
        for iterator in iterators:
            iterator.close()
        at += count
    return batches


def joined(parts):
    states = [json.loads(json.dumps(part._own_state())) for part in parts]
    return joined_states(states[::-1])


@settings(max_examples=CASES, suppress_health_check=list(HealthCheck))
@example(
    # A source that was resumed and has yielded nothing does not know its state.
    case={"kind": "mapped", "packed": True, "lanes": 2, "samples": 3, "buffer": 1, "seed": 0}
    | {"legs": [(1, 9, 0), (1, 1, 0), (1, 0, 2)], "changes": {}}
)
@given(case=cases())
def test_any_ranks_kills_and_changes_give_the_batches_of_one_rank(case):
    batches = disturbed(case)
    undisturbed = stream_of(case, schedule=sorted(case["changes"].items()))
    for mine, other in zip(batches, undisturbed, strict=False):
        expected = content(other)
        assert mine.keys() == expected.keys()
        assert all(np.array_equal(mine[name], expected[name]) for name in mine)


@pytest.mark.parametrize("kind", ["list", "shards"])
def test_sources_go_on_with_workers_too(kind):
    lanes = 4 if kind in LANES else 1
    case = {"kind": kind, "packed": True, "lanes": lanes, "samples": 2, "buffer": 24, "seed": 0}
    case |= {"legs": [(min(2, lanes), 5, 1), (1, 6, 0), (min(2, lanes), 9, 2)], "changes": {}}
    legs = disturbed(case, workers=min(2, lanes))
    expected = [content(batch) for batch in islice(stream_of(case), 20)]
    for mine, other in zip(legs, expected, strict=True):
        assert all(np.array_equal(mine[name], other[name]) for name in other)


# Real processes: ranks on gloo and workers that are killed, and go on as others.

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


def moved(source, done, seen_D):
    """Change the weights after some batches, by what was drawn, as every rank does."""
    if done % 7 == 0:
        source.set_weights(((seen_D + 1) / (seen_D + 1).sum()).tolist(), done + AHEAD - 1)


def trained(out, workers):
    """Train to the last batch, from where the state is; write what is delivered."""
    source = stream(workers=workers, prefetch=AHEAD - 1)
    state = out / "state.json"
    if state.exists():
        source.load_state_dict(json.loads(state.read_text()))
    with (out / f"rows.{dist.get_rank()}").open("a") as log:
        for batch in source:
            log.write(json.dumps([batch["batch"], batch["position"], lines(batch)]) + "\n")
            log.flush()
            seen = torch.bincount(batch["domain"], minlength=3).double()
            dist.all_reduce(seen)
            done = batch["batch"] + 1
            moved(source, done, seen)
            if done % 5 == 0:
                found = source.state_dict()
                if dist.get_rank() == 0:
                    write_json(state, found)
                dist.barrier()
            if done == BATCHES:
                break
            time.sleep(0.01)


def undisturbed(batches):
    """Go through the batches of one rank, which changes its weights as the job does."""
    source = stream()
    for batch in islice(source, batches):
        yield lines(batch)
        moved(source, batch["batch"] + 1, torch.bincount(batch["domain"], minlength=3).double())


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
    source = stream(workers=2)
    iterator = iter(source)
    batches = [lines(next(iterator)) for _ in range(5)]
    started = children()
    assert len(started) == 2
    os.kill(started[0], signal.SIGKILL)
    with pytest.raises(SamplerError, match="^one of the 2 workers of the stream died; iterate ag"):
        batches.extend(map(lines, iterator))  # those that were ready are handed out
    iterator = iter(source)
    batches += [lines(batch) for batch in islice(iterator, 10)]
    assert batches == [lines(batch) for batch in islice(stream(), len(batches))]
    iterator.close()
    assert children() == []


def children():
    """Return the worker processes of streams that this process has."""
    return [child.pid for child in multiprocessing.active_children()]
