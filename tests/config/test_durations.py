"""Seconds, or a duration as people write it."""

import pytest
from pydantic import ValidationError

from mixopt.config.experiment import SweepConfig


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(0.5, 0.5), ("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400)],
)
def test_a_duration_is_read_as_seconds(written, seconds):
    assert SweepConfig(patience=written).patience == seconds


def test_the_patience_of_a_sweep_is_ten_minutes_unless_it_is_said():
    assert SweepConfig().patience == 600


@pytest.mark.parametrize(
    "written", ["", "soon", "10 minutes", "m", "-5s", True, "1e3", "10m5", [5]]
)
def test_anything_else_is_refused(written):
    with pytest.raises(ValidationError, match=r"duration such as 90s, 10m or 1h30m|valid number"):
        SweepConfig(patience=written)


@pytest.mark.parametrize("written", [0, -1, float("nan"), float("inf"), "99999d", 2**63])
def test_a_duration_that_cannot_be_meant_is_refused(written):
    with pytest.raises(ValidationError, match=r"greater than 0|less than or equal to 2678400"):
        SweepConfig(patience=written)
