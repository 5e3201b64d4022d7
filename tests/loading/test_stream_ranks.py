"""A stream on any ranks, killed and resumed on any other, is that of one rank undisturbed."""

from __future__ import annotations

import json
import os
from itertools import islice

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from stream_sources import KINDS, SIZES, numbered, tokens_of

from mixopt import MixtureStream
from mixopt.loading.mixture_stream import joined_states

WEIGHTS = [0.5, 0.3, 0.2]
LANES = {"shards": 8, "mapped": 8, "mapped tables": 8, "shuffled": 8}  # of the others one
CASES = int(os.environ.get("MIXOPT_STREAM_CASES", "25"))


def made(case, schedule=(), **options):
    sources = {name: KINDS[case["kind"]](numbered(name)) for name in SIZES}
    rows = {"length": 24, "tokenize": tokens_of}
    return MixtureStream(
        sources,
        WEIGHTS,
        schedule=schedule,
        batch_size=case["lanes"] * case["samples"],
        lanes=case["lanes"],
        buffer=case["buffer"],
        seed=case["seed"],
        **(rows if case["packed"] else {}),
        **options,
    )


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
        "changes": draw(
            st.dictionaries(
                st.integers(0, 20), st.sampled_from([[0, 0.2, 0.8], [0.9, 0, 0.1]]), max_size=3
            )
        ),
    }


def disturbed(case, workers=0):
    """Go through the legs; each loses what came after the state, and the next has other ranks."""
    at, state, batches = 0, None, []
    for ranks, count, lost in case["legs"]:
        parts = [made(case, rank=k, world_size=ranks, workers=workers) for k in range(ranks)]
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
            got = [content(next(one)) for one in iterators]
            if batch < at + count:
                batches.append({n: np.concatenate([one[n] for one in got]) for n in got[0]})
        state = joined(parts) if not lost else state
        for one in iterators:
            one.close()
        at += count
    return batches


def joined(parts):
    states = [json.loads(json.dumps(part._own_state())) for part in parts]
    return joined_states(states[::-1])


# A source that was resumed and has yielded nothing does not know its state.
RESUMED_TWICE = {
    "kind": "mapped",
    "packed": True,
    "lanes": 2,
    "samples": 3,
    "buffer": 1,
    "seed": 0,
    "legs": [(1, 9, 0), (1, 1, 0), (1, 0, 2)],
    "changes": {},
}


@settings(max_examples=CASES, suppress_health_check=list(HealthCheck))
@example(case=RESUMED_TWICE)
@given(case=cases())
def test_any_ranks_kills_and_changes_give_the_batches_of_one_rank(case):
    batches = disturbed(case)
    undisturbed = made(case, schedule=sorted(case["changes"].items()))
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
    expected = [content(batch) for batch in islice(made(case), 20)]
    for mine, other in zip(legs, expected, strict=True):
        assert all(np.array_equal(mine[name], other[name]) for name in other)
