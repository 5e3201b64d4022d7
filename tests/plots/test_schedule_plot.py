"""A schedule as a table and as a picture."""

from __future__ import annotations

import numpy as np
import pytest
from command_line import mixopt

from mixopt import ConfigError, Mixture
from mixopt.plots import draw_schedule
from mixopt.reporting import schedule_text
from mixopt.sampling import Schedule, Stage, simulate_schedule

NAMES = [f"domain_{k:02}" for k in range(60)]
MANY = Mixture.from_array(NAMES, np.random.default_rng(0).dirichlet(np.full(60, 0.4)))
SCHEDULE = Schedule(
    (
        Stage(MANY, tokens=10**6, name="warm-up"),
        Stage(MANY, tokens=10**8, name="main"),
        Stage(Mixture.uniform(NAMES), tokens=10**7),
    ),
    batch=64,
    sequence_length=128,
    inventory=dict.fromkeys(NAMES, 10**6),
)


@pytest.fixture(scope="module")
def forecast():
    return simulate_schedule(SCHEDULE)


def test_each_domain_has_a_place_of_its_own_at_the_right(forecast, tmp_path):
    draw_schedule(forecast, tmp_path / "schedule.svg")
    text = (tmp_path / "schedule.svg").read_text()
    assert all(f"{name} " in text for name in NAMES)
    assert all(f">{name}</text>" in text for name in ("warm-up", "main", "2"))
    draw_schedule(forecast, tmp_path / "schedule.png")
    assert (tmp_path / "schedule.png").read_bytes()[:4] == b"\x89PNG"


def test_a_picture_of_another_format_is_refused(forecast, tmp_path):
    with pytest.raises(
        ConfigError, match=r"schedule.pdf: expected a name that ends in .png or .svg"
    ):
        draw_schedule(forecast, tmp_path / "schedule.pdf")


def test_the_table_says_what_is_rounded_and_what_runs_out(forecast):
    text = schedule_text(forecast)
    assert "requested: 111,000,000 tokens; in whole batches:" in text
    assert len(forecast.runs_out) == sum("at " in line for line in text.splitlines())


def test_the_command_shows_and_draws_a_schedule(tmp_path):
    SCHEDULE.to_file(tmp_path / "schedule.yaml")
    picture = tmp_path / "schedule.png"
    ended = mixopt("simulate", str(tmp_path / "schedule.yaml"), "--figure", str(picture))
    assert ended.code == 0, ended.error
    assert "domain_59" in ended.out
    assert picture.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batches", "3"], "--batches is set in the schedule; leave it out"),
        (["--figure", "x.pdf"], "x.pdf: expected a name that ends in .png or .svg"),
    ],
)
def test_what_a_schedule_has_is_not_asked_for(tmp_path, options, message):
    SCHEDULE.to_file(tmp_path / "schedule.yaml")
    ended = mixopt("simulate", str(tmp_path / "schedule.yaml"), *options)
    assert ended.code == 2
    assert message in ended.error


def test_a_mixture_needs_the_length_of_the_job(tmp_path):
    MANY.to_file(tmp_path / "mixture.yaml")
    ended = mixopt("simulate", str(tmp_path / "mixture.yaml"))
    assert "a mixture needs --batches N" in ended.error
    ended = mixopt(
        "simulate", str(tmp_path / "mixture.yaml"), "--batches", "2", "--figure", "a.png"
    )
    assert "--figure is for schedules; this is a mixture" in ended.error
