"""Changes of weights hold from an optimizer step, and a loop that reads ahead resumes exactly."""

from __future__ import annotations

import json
from itertools import islice

import pytest
from hypothesis import given, strategies as st
from sampler_rows import located

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler, SamplerError

WEIGHTS, OTHER = [0.5, 0.3, 0.2], [0.0, 0.1, 0.9]
SIZES = {"web": 90, "code": 41, "books": 17}


def sampler_of(**options):
    return MixtureSampler(SIZES, WEIGHTS, batch_size=8, **options)


def loader_of(**options):
    rows = {name: [{"token": k} for k in range(size)] for name, size in SIZES.items()}
    return MixtureLoader(MixtureDataset(rows), sampler_of(), **options)


def rows_of(batches):
    return [list(zip(b["domain"].tolist(), b["row"].tolist(), strict=True)) for b in batches]


@pytest.mark.parametrize(("accumulation", "workers", "received"), [(3, 0, 5), (4, 2, 6)])
def test_a_change_holds_from_the_first_batch_of_a_step(accumulation, workers, received):
    loader = loader_of(workers=workers, accumulation=accumulation)
    batches = []
    for batch in loader:
        batches.append(batch)
        if len(batches) == received:
            held = loader.set_weights(OTHER)
        if len(batches) == 20:
            break
    asked = received + (4 if workers else 0)
    assert held == -(-asked // accumulation) * accumulation
    known = sampler_of()
    known.set_weights(OTHER, batch=held)
    domain, row = located(known, 0, 20)
    pairs = list(zip(domain.tolist(), row.tolist(), strict=True))
    assert rows_of(batches) == [pairs[k : k + 8] for k in range(0, 160, 8)]


@given(
    steps=st.integers(1, 6),
    begin=st.integers(0, 20),
    received=st.integers(0, 20),
    smaller=st.sampled_from([8, 4, 2]),
)
def test_a_change_begins_both_a_step_and_a_window(steps, begin, received, smaller):
    """A window is a global batch of the job that began the stream."""
    sampler = MixtureSampler(SIZES, WEIGHTS, batch_size=smaller)
    sampler.load_state_dict(sampler_of().state_at(begin))
    begin *= 8 // smaller
    sampler.accumulate(steps)
    sampler.received(begin + received)
    held = sampler.set_weights(OTHER)
    assert held >= begin + received
    assert (held - begin) % steps == held * smaller % 8 == 0
    assert held - begin - received < steps * 8 // smaller


def test_another_accumulation_than_the_trainers_is_refused():
    with pytest.raises(SamplerError, match=r"accumulation=2\), but the trainer .* over 4 batches;"):
        loader_of(accumulation=2).accumulate(4)


# --- loops that read ahead ----------------------------------------------------------------------


def read_ahead(loader, steps, *, swap_at=None):
    """Train as nanoGPT does: the next batch is fetched before the step; return what was seen."""
    batches = iter(loader)
    batch, seen = next(batches), []
    while True:
        seen.append(batch)  # forward
        batch = next(batches)  # ahead
        if batch["batch"] == swap_at:
            loader.set_weights(OTHER)
        if len(seen) == steps:
            return seen, loader.state_dict(consumed=seen[-1]["batch"] + 1)


@pytest.mark.parametrize(("workers", "swap_at"), [(0, None), (2, 9)])
def test_a_loop_that_reads_ahead_resumes_at_what_it_has_trained_on(workers, swap_at):
    whole, _ = read_ahead(loader_of(workers=workers), 20, swap_at=swap_at)
    first, state = read_ahead(loader_of(workers=workers), 9, swap_at=swap_at)
    again = loader_of()
    again.load_state_dict(json.loads(json.dumps(state)))
    assert rows_of(first) + rows_of(islice(again, 11)) == rows_of(whole)


def test_more_than_was_received_cannot_be_consumed():
    loader = loader_of(workers=2)
    for batch in loader:
        if batch["batch"] == 2:
            break
    for consumed in (4, 2.0):
        with pytest.raises(SamplerError, match="consumed"):
            loader.state_dict(consumed=consumed)
    assert loader.state_dict(consumed=3) == loader.state_dict()
