"""A schedule shows itself in a line and its stages as a table in a notebook."""

from mixopt import Mixture
from mixopt.sampling import Schedule, Stage

FIRST, LAST = Mixture({"web": 0.7, "code": 0.3}), Mixture({"web": 0.2, "code": 0.8})
SCHEDULE = Schedule(
    (
        Stage(FIRST, steps=100, name="<main>"),
        Stage(FIRST, steps=50, to=LAST),
    ),
    batch=4,
    sequence_length=100,
)


def test_a_schedule_counts_stages_domains_steps_and_tokens():
    assert repr(SCHEDULE) == "Schedule(2 stages, 2 domains: 150 steps, 60k tokens)"


def test_a_notebook_has_a_row_for_each_stage_with_its_mixtures():
    shown = SCHEDULE._repr_html_()
    assert "&lt;main&gt;" in shown
    assert ">100</td>" in shown
    assert "web 70.0%, code 30.0% \N{RIGHTWARDS ARROW} code 80.0%, web 20.0%" in shown
