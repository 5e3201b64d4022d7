import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mixopt.config import ConstraintsConfig, DesignConfig
from mixopt.constraints import CappedSimplex, Constraints
from mixopt.errors import ConfigError, DesignError, InfeasibleError
from mixopt.mixture import Mixture
from mixopt.trials import design_constraints, first_round, make_design, trial_seeds
from mixopt.trials.first_round import _dirichlet, draw_mixtures, sobol_mixtures

# Natural shares of the 17 domains of the Pile, in percent, to two digits.
PILE = dict(
    arxiv=11, freelaw=3.9, nih_exporter=0.39, pubmed_central=11, wikipedia_en=4.8,
    dm_mathematics=1.6, github=9.8, philpapers=0.46, stackexchange=6.4, enron_emails=0.18,
    gutenberg_pg_19=2.7, pile_cc=23, ubuntu_irc=1.2, europarl=0.97, hackernews=0.75,
    pubmed_abstracts=3.9, uspto_backgrounds=4.1,
)  # fmt: skip
NATURAL = Mixture.natural({name: round(1000 * share) for name, share in PILE.items()})
SMALL = Mixture({"web": 0.7, "code": 0.2, "books": 0.1})


def sampled(trials):
    return np.array([trial.mixture.array for trial in trials if trial.role == "sampled"])


def limited(**fields):
    """Constraints of SMALL."""
    config = ConstraintsConfig.model_validate(fields)
    return Constraints.from_config(config, dict.fromkeys(SMALL, 10))


def design(natural=NATURAL, constraints=None, seed=3, **fields):
    """Design one round: `trials` are all in it."""
    config = DesignConfig(rounds=[], **{"method": "dirichlet", **fields})
    return make_design(config, natural, constraints, seed)


def regmix_draws(natural, draws, rng):
    """Steps 2 to 5 of RegMix as they are written, one draw at a time: the reference."""
    caps = np.minimum(15 * natural, 1)
    prior = natural**0.5 / (natural**0.5).sum()
    strengths = np.logspace(np.log10(0.1), np.log10(5.0), 15)
    accepted = []
    for _ in range(draws):
        drawn = [rng.dirichlet(strength * prior) for strength in strengths]
        weights = drawn[rng.integers(15)]
        if (weights <= caps).all():
            weights = np.where(weights < 2e-4, 0, weights)
            accepted.append(np.round(weights / weights.sum() / 2e-4) * 2e-4)
    return np.array(accepted)


def test_draws_have_the_distribution_of_regmix_written_out():
    reference = regmix_draws(NATURAL.array, 3_000, np.random.default_rng(0))
    allowed = design_constraints(DesignConfig(), NATURAL).simplex
    rng = np.random.default_rng(1)
    ours_ND, accepted = draw_mixtures(NATURAL.array, allowed, draws=60_000, rng=rng)
    assert abs(accepted / 60_000 - len(reference) / 3_000) < 0.03  # 3 sd of 3,000 draws
    # Doubles are dropped from ours and are the sparsest rows, so compare among distinct rows.
    reference = np.unique(reference.round(9), axis=0)
    zeros = [(weights == 0).sum(axis=1).mean() for weights in (ours_ND, reference)]
    assert abs(zeros[0] - zeros[1]) < 0.3
    means = ours_ND.mean(axis=0) - reference.mean(axis=0)
    assert np.abs(means).max() < 0.02


LIMITS = {
    "dirichlet": {"bounds": {"web": (0, 0.6), "code": (0.05, 0.4)}},
    "sobol": {"groups": {"text": {"domains": ["web", "books"], "bounds": (0, 0.5)}}},
    "axial": {"proportions": {"text": {"web": 3, "books": 1}}},
}


@pytest.mark.parametrize(
    ("method", "limits"),
    [
        pytest.param(method, LIMITS[other], marks=[pytest.mark.nightly] * (method != other))
        for method, other in product(LIMITS, repeat=2)
    ],
)
def test_designs_keep_to_limits_and_to_the_most_usage(method, limits):
    constraints = limited(**limits)
    found, again, other = (
        design(SMALL, constraints, seed, trials=10, max_usage=4, method=method)
        for seed in (3, 3, 4)
    )
    weights_ND = np.array([t.mixture.array for t in found if t.role in ("sampled", "axial")])
    assert len(weights_ND) == 10
    assert constraints.allowed.contains(weights_ND).all()
    assert (weights_ND <= np.minimum(4 * SMALL.array, 1) + 1e-12).all()
    assert found == again
    assert (sampled(found) != sampled(other)).any()


def test_the_default_design_is_regmix_sampling_with_anchors_and_replicates():
    trials = design(trials=512)
    assert [t.name for t in trials[:6]] == [
        "natural", "uniform", "uniform_r1", "uniform_r2", "uniform_r3", "t0000",
    ]  # fmt: skip
    assert [t.role for t in trials[:6]] == ["anchor"] * 2 + ["replicate"] * 3 + ["sampled"]
    assert sampled(trials).shape == (512, 17)
    assert trials[0].mixture == NATURAL
    assert trials[1].mixture == trials[4].mixture == Mixture.uniform(NATURAL.domains)


def test_caps_hold_after_zeroing_and_rounding(monkeypatch):
    # Rounding to twentieths carries 0.53 to 0.55, and zeroing 0.05 lifts 0.5 to 0.526.
    allowed = design_constraints(DesignConfig(), SMALL, limited(bounds={"web": (0, 0.54)})).simplex
    rng = np.random.default_rng(0)
    monkeypatch.setattr(first_round, "MIN_WEIGHT", 0.05)
    weights_ND, _ = draw_mixtures(SMALL.array, allowed, draws=6400, rng=rng)
    assert len(weights_ND) > 10
    assert weights_ND[:, 0].max() <= 0.54


def test_a_tiny_strength_does_not_underflow():
    drawn_ND = _dirichlet(np.full((500, 17), 1e-4) * NATURAL.array, np.random.default_rng(0))
    np.testing.assert_allclose(drawn_ND.sum(axis=1), 1)


def test_sobol_takes_over_at_caps_at_which_rejection_finds_next_to_nothing():
    usage = 1.14
    said: list[str] = []
    config = DesignConfig(max_usage=usage, trials=64, rounds=[], method="dirichlet")
    trials = make_design(config, NATURAL, None, 3, say=said.append)
    assert re.match(r"Dirichlet draws found [0-9] of 64 distinct mixtures \(\d+ of 6400 ", said[0])
    assert said[0].endswith("Sobol points are tried instead (design.method: sobol)")
    weights = sampled(trials)
    assert weights.shape == (64, 17)
    assert (weights <= usage * NATURAL.array + 1e-12).all()
    assert (weights.std(axis=0) > 0).all()
    assert (weights == sampled(design(max_usage=usage, trials=64, method="sobol"))).all()


def test_many_domains_have_all_their_mixtures_under_the_default_caps():
    shares = 1.0 / np.arange(1, 1001)
    natural = Mixture.from_array([f"d{n}" for n in range(1000)], shares / shares.sum())
    said: list[str] = []
    trials = make_design(DesignConfig(rounds=[]), natural, None, 0, say=said.append)
    assert len({trial.mixture for trial in trials if trial.role == "sampled"}) == 64
    assert "Sobol" in said[0]


def test_sobol_sets_weights_below_the_minimum_to_zero_within_the_caps(monkeypatch):
    monkeypatch.setattr(first_round, "MIN_WEIGHT", 0.1)
    allowed, rng = CappedSimplex.full(3), np.random.default_rng(0)
    weights = sobol_mixtures(allowed, 128, rng=rng)
    assert ((weights == 0) | (weights >= 0.1 - 1e-12)).all()
    assert (weights == 0).any()


def test_caps_that_no_mixture_meets_are_named_with_the_shortfall():
    with pytest.raises(InfeasibleError) as caught:
        design(SMALL, limited(bounds={"web": (0, 0.3), "code": (0, 0.2)}), max_usage=3)
    assert str(caught.value) == (
        "no mixture satisfies all of these limits, short by 0.2 (constraints.bounds: web <= 0.3,"
        " code <= 0.2; design.max_usage: 3: books <= 0.3); raise the maximum of web to 0.5 in"
        " constraints.bounds, or raise the maximum of code to 0.4 in constraints.bounds, or allow"
        " max_usage: 5"
    )


def test_a_design_over_one_possible_mixture_says_so():
    with pytest.raises(
        DesignError, match=r"64 requested, but only Mixture\(web 100%\) is possible"
    ):
        design(Mixture({"web": 1.0}))


def test_an_anchor_given_twice_is_a_mistake():
    with pytest.raises(ConfigError, match="'natural' is given twice"):
        design(SMALL, anchors=["natural", "natural"])


@given(seed=st.integers(0, 2**31), size=st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_a_trial_keeps_its_seed_when_the_design_grows(seed, size):
    names = [f"t{i:04d}" for i in range(size)]
    small, large = trial_seeds(names, seed=seed), trial_seeds([*names, "more"], seed=seed)
    assert all(large[name] == value for name, value in small.items())
