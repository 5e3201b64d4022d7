"""Looking more than once keeps the level."""

import numpy as np
import pytest

from mixopt.proposals import looks
from mixopt.proposals.validation import nominal_level, paired_interval


def test_looks_add_half_of_the_first_seeds_up_to_the_last():
    assert looks(4, 8) == (4, 6, 8)
    assert looks(3, 6) == (3, 5, 6)
    assert looks(3, 3) == (3,)
    assert looks(4, 5) == (4, 5)


@pytest.mark.parametrize("at", [(3, 5, 6), (4, 6, 8)])
def test_the_chance_that_any_interval_misses_is_one_in_twenty(at):
    level, rng = nominal_level(at), np.random.default_rng(3)
    missed = 0
    for _ in range(4_000):
        noise_S = rng.standard_normal(at[-1])
        pairs = [paired_interval(noise_S[:count], level) for count in at]
        missed += any(abs(mean) > half for mean, half in pairs)
    # Three standard errors of a share of 0.05 in 4,000.
    assert missed / 4_000 == pytest.approx(0.05, abs=0.0104)
