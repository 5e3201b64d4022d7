"""One mixture a domain, from a centre towards it, within the limits."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mixopt.config import ConstraintsConfig, DesignConfig
from mixopt.constraints import CappedSimplex, Constraints, cap
from mixopt.errors import DesignError
from mixopt.mixture import Mixture
from mixopt.trials import make_design
from mixopt.trials.first_round import axial_mixtures

SMALL = Mixture({"web": 0.7, "code": 0.2, "books": 0.1})
THIRDS = np.full(3, 1 / 3)


def axial(upper, center=THIRDS, share=0.5, lower=(0, 0, 0), taken=()):
    allowed = CappedSimplex(np.array(lower, dtype=float), np.array(upper, dtype=float))
    return axial_mixtures(np.array(center), allowed, share, taken=taken)


def roles(trials, role):
    return [trial.mixture.array for trial in trials if trial.role == role]


def design(natural=SMALL, constraints=None, say=print, **fields):
    return make_design(DesignConfig(method="axial", **fields), natural, constraints, 3, say=say)


HALF_WAY = [THIRDS, [2 / 3, 1 / 6, 1 / 6], [1 / 6, 2 / 3, 1 / 6]]


@pytest.mark.parametrize(
    ("upper", "center", "mixtures", "left_out"),
    [
        ([1, 1, 1], THIRDS, [*HALF_WAY, [1 / 6, 1 / 6, 2 / 3]], []),
        ([1, 1, 0.4], THIRDS, [*HALF_WAY, [0.3, 0.3, 0.4]], []),
        # Web has .1 everywhere. Of what code leaves it would have .25; books has the rest.
        (
            [0.1, 1, 1],
            [0.5, 0.3, 0.2],
            [[0.1, 0.54, 0.36], [0.1, 0.65, 0.25], [0.1, 0.3, 0.6]],
            [0],
        ),
    ],
)
def test_each_mixture_goes_to_its_domain_or_its_cap_and_the_others_share_the_rest(
    upper, center, mixtures, left_out
):
    found = axial(upper, center)
    np.testing.assert_allclose(found[0], mixtures, atol=1e-12)
    assert found[1] == left_out


@given(seed=st.integers(0, 10_000), domains=st.integers(2, 12), share=st.floats(0.3, 0.9))
@settings(max_examples=60, deadline=None)
def test_every_mixture_is_within_all_limits_and_no_two_are_alike(seed, domains, share):
    rng = np.random.default_rng(seed)
    upper_D = rng.uniform(0.5 / domains, 1.0, domains)
    upper_D = np.minimum(upper_D * max(1.0, 1.1 / upper_D.sum()), 1.0)
    if upper_D.sum() < 1:
        return
    lower_D = rng.uniform(0, 1, domains) * upper_D * 0.5
    lower_D /= max(lower_D.sum() / 0.9, 1.0)
    allowed = CappedSimplex(lower_D, upper_D)
    weights_PD = axial_mixtures(rng.dirichlet(np.ones(domains)), allowed, share)[0]
    assert allowed.contains(weights_PD).all()
    away = np.abs(weights_PD[:, None] - weights_PD[None]).sum(axis=2) + np.eye(len(weights_PD))
    assert away.min() > 1e-5


def test_an_axial_design_has_a_mixture_a_domain_and_sampled_ones_behind_them():
    trials = design(trials=10, max_usage=None)
    assert [trial.name for trial in trials if trial.role == "axial"] == ["t0000", "t0001", "t0002"]
    assert next(trial.name for trial in trials if trial.role == "sampled") == "t0003"
    assert len(trials) == 5 + 10
    assert [t.role for t in design(trials=3, max_usage=None)][5:] == ["axial"] * 3
    np.testing.assert_allclose(roles(trials, "axial")[0], [2 / 3, 1 / 6, 1 / 6], atol=1e-12)


def test_a_domain_without_an_axial_mixture_is_said():
    said: list[str] = []
    config = ConstraintsConfig(bounds={"books": (0, 0.01)})
    constraints = Constraints.from_config(config, dict.fromkeys(SMALL, 10), None)
    trials = design(SMALL, constraints, said.append, trials=6, max_usage=None)
    assert "no axial mixture for 1 of 3 domains" in said[0]
    assert said[0].endswith(": 'books'")
    assert len(trials) == 5 + 6


def test_too_few_trials_for_an_axial_design_are_refused():
    with pytest.raises(DesignError) as caught:
        design(trials=2, max_usage=None)
    assert str(caught.value) == (
        "design.trials: 2 in the first round, but design.method: axial has 3 mixtures for 3 "
        "domains; raise design.trials, or set design.method: dirichlet"
    )


def test_a_design_is_axial_from_two_trials_a_domain_and_two_on():
    natural = Mixture({"a": 0.6, "b": 0.3, "c": 0.1})
    config = DesignConfig(trials=8, max_usage=None)
    trials = make_design(config, natural, None, 0)
    assert [one.role for one in trials].count("axial") == 3
    caps = Constraints(natural.domains, (cap("c", 0.4, "x"),))
    most = max(one.mixture["c"] for one in make_design(config, natural, caps, 0))
    assert most == pytest.approx(0.4)
    for fewer in (DesignConfig(trials=7), DesignConfig(trials=8, method="dirichlet")):
        assert "axial" not in [one.role for one in make_design(fewer, natural, None, 0)]
