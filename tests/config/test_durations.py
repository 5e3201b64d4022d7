"""Seconds, or a duration as people write it."""

import pytest

from mixopt.config.experiment import SweepConfig


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(0.5, 0.5), ("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400)],
)
def test_a_duration_is_read_as_seconds(written, seconds):
    assert SweepConfig(patience=written).patience == seconds


def test_the_patience_of_a_sweep_is_ten_minutes_unless_it_is_said():
    assert SweepConfig().patience == 600
