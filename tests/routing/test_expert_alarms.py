"""Made models with an anomaly are told from healthy ones, from 8 to 512 experts."""

import pytest
from experiment_modules import experiment

alarms = experiment("checks", "expert_alarms")
HELD_OUT = 2_000_000  # seeds that nothing was chosen by


def test_healthy_models_of_any_size_are_left_alone():
    found = alarms.alarms_of_healthy(60, HELD_OUT)
    assert len(found) <= 5, "of 60 at a rate of 3%, more than 5 come once in a hundred times"


@pytest.mark.parametrize("size", [(8, 3), (64, 8), (256, 20)])
@pytest.mark.parametrize("case", list(alarms.CASES))
def test_a_strong_anomaly_is_found_in_its_layer(case, size):
    strongest = alarms.CASES[case][2][-1]
    seeds = range(HELD_OUT, HELD_OUT + 8)
    assert alarms.found_share(case, strongest, size, seeds) >= 0.5
    if size == (64, 8):
        assert alarms.found_share(case, alarms.CASES[case][2][0], size, seeds) <= 0.25
