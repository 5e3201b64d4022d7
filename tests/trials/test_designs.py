"""Designs: draws by RegMix, Sobol points, and a mixture a domain from a centre towards it."""

import re
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from refusals import refuses

from mixopt.config import ConstraintsConfig, DesignConfig
from mixopt.constraints import Constraints, FeasibleSet, cap
from mixopt.errors import ConfigError, DesignError, InfeasibleError
from mixopt.mixture import Mixture
from mixopt.trials import design_constraints, first_round, make_design, trial_seeds
from mixopt.trials.first_round import _dirichlet, axial_mixtures, draw_mixtures, sobol_mixtures

# Natural shares of the 17 domains of the Pile, in percent, to two digits.
PILE = dict(
    arxiv=11, freelaw=3.9, nih_exporter=0.39, pubmed_central=11, wikipedia_en=4.8,
    dm_mathematics=1.6, github=9.8, philpapers=0.46, stackexchange=6.4, enron_emails=0.18,
    gutenberg_pg_19=2.7, pile_cc=23, ubuntu_irc=1.2, europarl=0.97, hackernews=0.75,
    pubmed_abstracts=3.9, uspto_backgrounds=4.1,
)  # fmt: skip
NATURAL = Mixture.natural({name: round(1000 * share) for name, share in PILE.items()})
SMALL = Mixture({"web": 0.7, "code": 0.2, "books": 0.1})
THIRDS = np.full(3, 1 / 3)


def sampled(trials):
    return np.array([trial.mixture.array for trial in trials if trial.role == "sampled"])


def limited(**fields):
    """Constraints of SMALL."""
    config = ConstraintsConfig.model_validate(fields)
    return Constraints.from_config(config, dict.fromkeys(SMALL, 10))


def design(natural=NATURAL, constraints=None, seed=3, say=print, **fields):
    """Design one round: `trials` are all in it."""
    config = DesignConfig(rounds=[], **{"method": "dirichlet", **fields})
    return make_design(config, natural, constraints, seed, say=say)


def test_draws_have_the_distribution_of_regmix_written_out():
    """The reference has steps 2 to 5 of RegMix as they are written, one draw at a time."""
    natural, rng, reference = NATURAL.array, np.random.default_rng(0), []
    caps, prior = np.minimum(15 * natural, 1), natural**0.5 / (natural**0.5).sum()
    for _ in range(3_000):
        weights = rng.dirichlet(rng.choice(np.geomspace(0.1, 5.0, 15)) * prior)
        if (weights <= caps).all():
            weights = np.where(weights < 2e-4, 0, weights)
            reference.append(np.round(weights / weights.sum() / 2e-4) * 2e-4)
    allowed = design_constraints(DesignConfig(), NATURAL).simplex
    ours_ND, accepted = draw_mixtures(natural, allowed, draws=60_000, rng=rng)
    assert abs(accepted / 60_000 - len(reference) / 3_000) < 0.03  # 3 sd of 3,000 draws
    # Doubles are dropped from ours and are the sparsest rows, so compare among distinct rows.
    reference = np.unique(np.round(reference, 9), axis=0)
    zeros = [(weights == 0).sum(axis=1).mean() for weights in (ours_ND, reference)]
    assert abs(zeros[0] - zeros[1]) < 0.3
    assert np.abs(ours_ND.mean(axis=0) - reference.mean(axis=0)).max() < 0.02


LIMITS = {
    "dirichlet": {"bounds": {"web": (0, 0.6), "code": (0.05, 0.4)}},
    "group": {"groups": {"text": {"domains": ["web", "books"], "bounds": (0, 0.5)}}},
    "axial": {"proportions": {"text": {"web": 3, "books": 1}}},
}


@pytest.mark.parametrize(
    ("method", "limits"),
    [
        pytest.param(method, LIMITS[other], marks=[pytest.mark.nightly] * (method != other))
        for method, other in product(("dirichlet", "axial"), LIMITS)
    ],
)
def test_designs_keep_to_limits_and_to_the_most_usage(method, limits):
    constraints = limited(**limits)
    found, repeated, other = (
        design(SMALL, constraints, seed, trials=10, max_usage=4, method=method)
        for seed in (3, 3, 4)
    )
    weights_ND = np.array([t.mixture.array for t in found if t.role in ("sampled", "axial")])
    assert len(weights_ND) == 10
    assert constraints.allowed.contains(weights_ND).all()
    assert (weights_ND <= np.minimum(4 * SMALL.array, 1) + 1e-12).all()
    assert found == repeated
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
    trials = design(max_usage=usage, trials=64, say=said.append)
    assert re.match(r"Dirichlet draws found [0-9] of 64 distinct mixtures \(\d+ of 6400 ", said[0])
    assert said[0].endswith("Sobol points are tried instead")
    weights = sampled(trials)
    assert weights.shape == (64, 17)
    assert (weights <= usage * NATURAL.array + 1e-12).all()
    assert (weights.std(axis=0) > 0).all()


def test_many_domains_have_all_their_mixtures_under_the_default_caps():
    shares = 1.0 / np.arange(1, 1001)
    natural = Mixture.from_array([f"d{n}" for n in range(1000)], shares / shares.sum())
    said: list[str] = []
    trials = make_design(DesignConfig(rounds=[]), natural, None, 0, say=said.append)
    assert len({trial.mixture for trial in trials if trial.role == "sampled"}) == 64
    assert "Sobol" in said[0]


def test_sobol_sets_weights_below_the_minimum_to_zero_within_the_caps(monkeypatch):
    monkeypatch.setattr(first_round, "MIN_WEIGHT", 0.1)
    weights = sobol_mixtures(FeasibleSet.full(3), 128, rng=np.random.default_rng(0))
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


def test_a_design_over_one_possible_mixture_or_with_an_anchor_twice_is_a_mistake():
    message = r"64 requested, but only Mixture\(web 100%\) is possible"
    refuses(DesignError, message, design, Mixture({"web": 1.0}))
    refuses(ConfigError, "'natural' is given twice", design, SMALL, anchors=["natural", "natural"])


@given(seed=st.integers(0, 2**31), size=st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_a_trial_keeps_its_seed_when_the_design_grows(seed, size):
    names = [f"t{i:04d}" for i in range(size)]
    small, large = trial_seeds(names, seed=seed), trial_seeds([*names, "more"], seed=seed)
    assert all(large[name] == value for name, value in small.items())


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
    allowed = FeasibleSet.within(np.zeros(3), np.array(upper, dtype=float))
    found = axial_mixtures(np.array(center), allowed, 0.5, existing=())
    np.testing.assert_allclose(found[0], mixtures, atol=1e-12)
    assert found[1] == left_out


@given(seed=st.integers(0, 10_000), domains=st.integers(2, 12), share=st.floats(0.3, 0.9))
@settings(max_examples=60, deadline=None)
def test_every_mixture_is_within_all_limits_and_no_two_are_alike(seed, domains, share):
    rng = np.random.default_rng(seed)
    upper_D = rng.uniform(0.5 / domains, 1.0, domains)
    upper_D = np.minimum(upper_D * max(1.0, 1.1 / upper_D.sum()), 1.0)
    assume(upper_D.sum() >= 1)
    lower_D = rng.uniform(0, 1, domains) * upper_D * 0.5
    lower_D /= max(lower_D.sum() / 0.9, 1.0)
    allowed = FeasibleSet.within(lower_D, upper_D)
    weights_PD = axial_mixtures(rng.dirichlet(np.ones(domains)), allowed, share)[0]
    assert allowed.contains(weights_PD).all()
    away = np.abs(weights_PD[:, None] - weights_PD[None]).sum(axis=2) + np.eye(len(weights_PD))
    assert away.min() > 1e-5


def axial_design(trials, constraints=None, say=print):
    config = DesignConfig(method="axial", trials=trials, max_usage=None)
    return make_design(config, SMALL, constraints, 3, say=say)


def test_an_axial_design_has_a_mixture_a_domain_and_sampled_ones_behind_them():
    trials = axial_design(10)[5:]
    assert [trial.name for trial in trials] == [f"t{n:04d}" for n in range(10)]
    assert [trial.role for trial in trials] == ["axial"] * 3 + ["sampled"] * 7
    assert [trial.role for trial in axial_design(3)][5:] == ["axial"] * 3
    np.testing.assert_allclose(trials[0].mixture.array, [2 / 3, 1 / 6, 1 / 6], atol=1e-12)


def test_a_domain_without_an_axial_mixture_is_said():
    said: list[str] = []
    trials = axial_design(6, limited(bounds={"books": (0, 0.01)}), say=said.append)
    assert "no axial mixture for 1 of 3 domains" in said[0]
    assert said[0].endswith(": 'books'")
    assert len(trials) == 5 + 6


def test_too_few_trials_for_an_axial_design_are_refused():
    message = (
        "design.trials: 2 in the first round, but design.method: axial has 3 mixtures for 3 "
        "domains; raise design.trials, or set design.method: dirichlet"
    )
    refuses(DesignError, message, axial_design, 2)


def test_a_design_is_axial_from_two_trials_a_domain_and_two_on():
    caps = Constraints(tuple(SMALL), (cap("books", 0.4, "x"),))
    config = DesignConfig(trials=8, max_usage=None)
    trials = make_design(config, SMALL, caps, 0)
    assert [trial.role for trial in trials].count("axial") == 3
    assert max(trial.mixture["books"] for trial in trials) == pytest.approx(0.4)
    for fewer in (DesignConfig(trials=7), DesignConfig(trials=8, method="dirichlet")):
        assert "axial" not in [item.role for item in make_design(fewer, SMALL, None, 0)]
