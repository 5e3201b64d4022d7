"""A step that is ended at any moment is done by the same command, and comes to the same."""

import os

import pytest
from fault_runs import KINDS, OURS, SIGNALS, command, disturb, mixopt, moment, results

STEPS = ("prepare", "sweep", "fit", "propose", "validate")
CASES = [
    (step, kind, count)
    for place, step in enumerate(STEPS)
    for number, kind in enumerate(SIGNALS)
    for count in range(max(KINDS, 1))
    if KINDS or (place + number) % 2 == 0
]


@pytest.mark.parametrize(("step", "kind", "count"), CASES)
def test_a_step_that_is_ended_comes_to_the_same_when_it_is_done_again(
    whole, tmp_path, step, kind, count
):
    run = whole.before(step, tmp_path / "run")
    args = (step, whole.config, "--out", run)
    after = moment(whole.seconds[step], step, kind, count)
    codes = disturb([(command(*args), {})], kind, after)
    assert codes[0] != OURS

    resumed = mixopt(*args)

    assert resumed.returncode == 0, resumed.stderr
    assert results(run) == results(whole.after(step))
    assert not [name for name in os.listdir(run) if name.endswith((".tmp", ".lease"))]
