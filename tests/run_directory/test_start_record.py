"""`start.json`: what trials begin with, whole or refused in a line."""

import pytest
from flips import flips

from mixopt.errors import RunError
from mixopt.run_directory import StartRecord
from mixopt.run_directory.steps import START_FILE
from mixopt.trials import Losses

LOSSES = Losses(0, {"web": 2.5, "law": 1.5}, {"web": 1.1, "law": 0.7}, {"task/a/accuracy": 0.25})


@pytest.fixture
def folder(tmp_path):
    StartRecord.of("ab" * 32, 4096, LOSSES).write(tmp_path)
    return tmp_path


def test_what_was_written_is_read(folder):
    assert StartRecord.read(folder) == StartRecord.of("ab" * 32, 4096, LOSSES)


def test_losses_are_in_the_unit_that_is_asked_for_with_those_of_tasks(folder):
    found = StartRecord.read(folder)
    assert found.losses("bits_per_byte") == {"web": 1.1, "law": 0.7, "task/a/accuracy": 0.25}
    assert found.losses("nats_per_token")["web"] == 2.5


def test_a_loss_that_is_no_number_is_refused():
    bad = Losses(0, {"web": float("nan")}, {"web": 1.0})
    with pytest.raises(RunError, match="nats_per_token.web"):
        StartRecord.of("ab" * 32, 4096, bad)


def test_every_changed_byte_is_refused_in_a_line(folder):
    for _ in flips(folder / START_FILE, step=56):
        with pytest.raises(RunError) as caught:
            StartRecord.read(folder)
        assert "\n" not in str(caught.value)
