"""The state that Trainers keep beside a checkpoint is what was written, or one line."""

from __future__ import annotations

import pytest

from mixopt import MixtureSampler
from mixopt.errors import SamplerError
from mixopt.integrations import MixtureState
from mixopt.integrations.hf_trainer import STATE_FILE, read_state
from mixopt.system import write_sealed


def sampler():
    return MixtureSampler({"web": 100, "code": 50}, [0.5, 0.5], batch_size=8)


@pytest.fixture
def saved(tmp_path):
    write_sealed(tmp_path / STATE_FILE, sampler().state_dict())
    return tmp_path


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"position": 0', '"position": 8', "mixture.json: has changed since it was written"),
        ("}", "", "mixture.json: cannot be read"),
    ],
)
def test_a_damaged_state_is_one_line(before, after, message, saved):
    file = saved / STATE_FILE
    file.write_text(file.read_text().replace(before, after))
    with pytest.raises(SamplerError, match=message) as caught:
        read_state(saved / STATE_FILE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "the checkpoint's mixture: mixture: is missing"),
        ({"mixture": "{"}, "the checkpoint's mixture: cannot be read"),
    ],
)
def test_a_damaged_entry_of_torchs_checkpoint_is_one_line(state, message):
    with pytest.raises(SamplerError, match=message):
        MixtureState(sampler()).load_state_dict(state)
