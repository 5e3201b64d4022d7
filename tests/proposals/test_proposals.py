"""Proposals are allowed, say what they are predicted to give, and survive their file."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings, strategies as st

from mixopt.config import ConstraintsConfig, FitConfig, ProposeConfig
from mixopt.constraints import Constraints
from mixopt.errors import ConfigError, EditedWarning, InfeasibleError, MixtureError
from mixopt.fitting import Fit, fit_trials
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import Proposal, ProposalRequest, propose_mixture
from mixopt.proposals.best_mixture import _stable
from mixopt.proposals.proposal import proposal_warnings
from mixopt.system import sealed
from mixopt.trials import Losses, Trial, TrialResult, Trials

DOMAINS = ("code", "prose", "law", "mail")
INVENTORY = {"code": 400, "prose": 300, "law": 200, "mail": 100}
NATURAL = Mixture.natural(INVENTORY)
BOTTOM_MD = np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.2, 0.5, 0.3, 0.0]])
TARGETS = ("code", "law", "math")
NOISE = 0.01


def bowls(weights_ND: np.ndarray) -> np.ndarray:
    """Synthetic losses: squared distance from each target's best mixture."""
    return 1.0 + ((weights_ND[:, None] - BOTTOM_MD) ** 2).sum(axis=2)


def straight(weights_ND: np.ndarray) -> np.ndarray:
    """Synthetic losses that are linear: only code helps."""
    return 3.0 - weights_ND[:, :1] * [1.0, 0.2, 2.0]


def make_trials(losses=straight, count: int = 30) -> Trials:
    rng = np.random.default_rng(0)
    weights_ND = np.vstack([rng.dirichlet(np.ones(4), count), np.full((4, 4), 0.25)])
    losses_NM = losses(weights_ND) + NOISE * rng.standard_normal((count + 4, 3))
    trials, results = [], []
    for row, (weights_D, losses_M) in enumerate(zip(weights_ND, losses_NM, strict=True)):
        mixture = Mixture.from_array(DOMAINS, weights_D)
        trials.append(Trial(f"t{row:03d}", mixture, seed=row))
        values = dict(zip(TARGETS, losses_M.tolist(), strict=True))
        found = Losses(1000, values, values)
        results.append(TrialResult(f"t{row:03d}", "finished", 1000, 10, 1.0, found))
    return Trials.from_results(trials, results, proxy="synthetic")


TRIALS = make_trials()
MATH = Objective(TARGETS, "target", {"math": 1.0})
MEAN = Objective(TARGETS, "mean", {"code": 0.5, "law": 0.5})


def fitted(regressor: str = "linear", trials: Trials = TRIALS, objective=MATH) -> Fit:
    return fit_trials(trials, FitConfig(regressors=[regressor], folds=4), objective, 0)


FIT = fitted()
TREES = fitted("lightgbm")


def propose(fit: Fit = FIT, objective=MATH, limits=None, tokens=None, **fields) -> Proposal:
    usual = {"samples": 2_000, "bootstrap": 5, "keep_unmeasured": 0.0}
    settings = {**usual, "target_tokens": tokens, **fields}
    limits = limits or ConstraintsConfig()
    allowed = Constraints.from_config(limits, INVENTORY, tokens)
    search = ProposeConfig(**settings)
    request = ProposalRequest(fit, allowed, NATURAL, INVENTORY, search, goal=objective)
    return propose_mixture(request)


PROPOSAL = propose(
    limits=ConstraintsConfig(bounds={"code": (0, 0.6), "law": (0.1, 1)}), tokens=1000
)


def test_the_optimum_of_a_known_law_is_proposed():
    assert PROPOSAL.mixture["code"] == pytest.approx(0.6, abs=1e-9)


def test_the_bounds_that_hold_a_proposal_are_named():
    assert PROPOSAL.binding[0] == "code <= 0.6 (constraints.bounds)"


def test_epochs_are_weight_times_run_over_inventory():
    assert PROPOSAL.epochs["code"] == pytest.approx(0.6 * 1000 / 400)


def test_without_the_length_of_the_run_there_are_no_epochs():
    assert propose(bootstrap=0).epochs is None


def test_the_predicted_gain_over_natural_is_that_of_the_law():
    gain = PROPOSAL.gains["natural"]
    assert gain.value == pytest.approx(2.0 * (0.6 - 0.4), abs=0.02)
    assert gain.low < 0.4 < gain.high


def test_gains_are_over_natural_uniform_and_the_best_trial():
    assert list(PROPOSAL.gains) == ["natural", "uniform", "best_trial"]


def test_each_gain_is_the_predicted_objective_of_that_mixture_less_the_proposals():
    best_D = TRIALS.weights()[TRIALS.losses()[:, 2].argmin()]
    own, natural, best = FIT.predict(
        [PROPOSAL.mixture.array, NATURAL.array, best_D], MATH
    ).objective_N
    uniform = TRIALS.losses()[-4:, 2].mean()  # trained four times
    gains = [gain.value for gain in PROPOSAL.gains.values()]
    assert gains == pytest.approx([natural - own, uniform - own, best - own], abs=2e-6)


def test_the_best_trial_is_the_one_observed_best():
    losses_N = TRIALS.losses()[:, 2]
    assert PROPOSAL.best_trial == f"t{losses_N.argmin():03d}"
    assert PROPOSAL.best_observed == pytest.approx(losses_N.min(), abs=1e-6)


def test_an_interval_of_the_objective_is_as_wide_as_held_out_errors():
    proposal = propose(bootstrap=0)
    predicted = proposal.predicted_objective
    assert 1.0 * NOISE < predicted.high - predicted.value < 3.5 * NOISE  # 1.645 if normal


def test_intervals_of_new_trials_hold_at_the_stated_rate():
    trials = make_trials(bowls, 60)
    fit = fitted("log_linear", trials, MEAN)
    rng = np.random.default_rng(7)
    fresh_ND = rng.dirichlet(np.ones(4), 400)
    seen_N = MEAN.value(bowls(fresh_ND) + NOISE * rng.standard_normal((400, 3)))
    half = propose(fit, MEAN, bootstrap=0).predicted_objective
    missed_N = np.abs(fit.predict(fresh_ND).objective_N - seen_N)
    assert 0.8 < np.mean(missed_N < half.high - half.value) < 0.97  # nominal 0.9


def test_a_sharp_optimum_moves_little_under_resampled_trials():
    assert PROPOSAL.stability.refits == 5
    assert PROPOSAL.stability.mean <= PROPOSAL.stability.high < 0.4


def test_no_bootstrap_gives_no_stability():
    assert propose(bootstrap=0).stability is None


def test_one_seed_gives_one_proposal():
    first, second = (propose(TREES, samples=500, bootstrap=2) for _ in range(2))
    assert first == second


def test_a_proposal_is_predicted_no_worse_than_natural_uniform_and_the_best_trial():
    proposal = propose(TREES, samples=500, bootstrap=0)
    assert min(gain.value for gain in proposal.gains.values()) >= 0


def test_a_proposal_survives_its_file(tmp_path):
    PROPOSAL.to_file(tmp_path / "proposal.yaml")
    assert Proposal.from_file(tmp_path / "proposal.yaml") == PROPOSAL


def test_a_proposal_without_epochs_and_stability_survives_its_file(tmp_path):
    proposal = propose(bootstrap=0)
    proposal.to_file(tmp_path / "proposal.yaml")
    assert Proposal.from_file(tmp_path / "proposal.yaml") == proposal


def test_the_file_starts_with_the_weights(tmp_path):
    PROPOSAL.to_file(tmp_path / "proposal.yaml")
    lines = (tmp_path / "proposal.yaml").read_text(encoding="utf-8").splitlines()
    assert next(line for line in lines if not line.startswith("#")) == "weights:"


def test_the_file_is_read_as_a_mixture(tmp_path):
    PROPOSAL.to_file(tmp_path / "proposal.yaml")
    assert Mixture.from_file(tmp_path / "proposal.yaml") == PROPOSAL.mixture


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("objective", "unit", "furlongs", "objective: unit: .*not one of bits_per_byte"),
        ("provenance", "target_tokens", "many", "provenance: target_tokens: .*not a whole number"),
    ],
)
def test_a_field_that_a_forger_sealed_is_checked(tmp_path, part, field, value, message):
    content = PROPOSAL.to_json()
    content[part] |= {field: value}
    path = tmp_path / "proposal.yaml"
    path.write_text(yaml.safe_dump(sealed(content)))
    with pytest.raises(MixtureError, match=message):
        Proposal.from_file(path)


def test_a_mixture_alone_is_no_proposal(tmp_path):
    NATURAL.to_file(tmp_path / "mixture.yaml")
    with pytest.raises(MixtureError, match="is a mixture but not a proposal.*Mixture.from_file"):
        Proposal.from_file(tmp_path / "mixture.yaml")


def test_a_proposal_whose_weights_were_edited_badly_is_refused(tmp_path):
    PROPOSAL.to_file(tmp_path / "proposal.yaml")
    content = yaml.safe_load((tmp_path / "proposal.yaml").read_text(encoding="utf-8"))
    content["weights"]["code"] = 0.9
    (tmp_path / "proposal.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with (
        pytest.warns(EditedWarning),
        pytest.raises(MixtureError, match="weights add up to 1.3, not 1"),
    ):
        Proposal.from_file(tmp_path / "proposal.yaml")


def test_a_bare_install_reads_and_shows_a_proposal(tmp_path):
    PROPOSAL.to_file(tmp_path / "proposal.yaml")
    heavy = ["polars", "sklearn", "lightgbm", "scipy", "torch", "pydantic", "mlflow", "datasets"]
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({heavy}))\n"
        "from mixopt.proposals import Proposal\n"
        f"print(Proposal.from_file({str(tmp_path / 'proposal.yaml')!r}))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("Proposal(")


def test_a_domain_that_the_objective_does_not_measure_and_that_vanishes_is_a_warning():
    (line,) = [one for one in propose(bootstrap=0).warnings if "no part of the objective" in one]
    assert line.startswith("no part of the objective measures prose, law, mail, and the proposal")


def test_a_domain_without_a_loss_is_kept_at_half_its_natural_weight_and_named():
    proposal = propose(keep_unmeasured=0.5, bootstrap=0)
    assert proposal.mixture["prose"] == pytest.approx(0.5 * NATURAL["prose"])
    assert proposal.mixture["mail"] == pytest.approx(0.5 * NATURAL["mail"])
    assert proposal.mixture["law"] == pytest.approx(0.0, abs=1e-9)
    assert any(line.startswith("no loss measures prose, mail, so") for line in proposal.warnings)


def test_a_floor_under_an_unmeasured_domain_gives_way_to_its_cap():
    limits = ConstraintsConfig(bounds={"prose": (0, 0.01)})
    assert propose(limits=limits, keep_unmeasured=0.5, bootstrap=0).mixture["prose"] <= 0.01 + 1e-12


def test_the_even_mixture_of_two_domains_amounts_to_two():
    even = {"code": 0.5, "prose": 0.5, "law": 0.0, "mail": 0.0}
    assert replace(PROPOSAL, mixture=Mixture(even)).effective_domains == pytest.approx(2.0)


def test_a_regressor_that_knows_nothing_is_a_warning():
    trials = make_trials(lambda weights_ND: np.full((len(weights_ND), 3), 2.0))
    (line, *_) = propose(fitted("lightgbm", trials), samples=200, bootstrap=0).warnings
    assert (
        "of the differences of the objective between held-out trials: the proposal has little"
        in line
    )


def test_a_gain_that_may_be_none_is_a_warning():
    trials = make_trials(lambda weights_ND: np.full((len(weights_ND), 3), 2.0))
    warnings = propose(fitted("lightgbm", trials), samples=200, bootstrap=0).warnings
    assert any(
        "gain over natural, uniform and the best trial includes 0" in one for one in warnings
    )


def test_a_proposal_that_is_not_predicted_to_beat_the_best_trial_is_a_warning():
    limits = ConstraintsConfig(bounds={"code": (0, 0.2)})
    warnings = propose(limits=limits, bootstrap=0).warnings
    said = f"is not predicted to beat the best trial ({PROPOSAL.best_trial}, observed "
    assert any(said in one for one in warnings)


def test_a_proposal_far_from_all_trials_is_a_warning():
    near, far = (
        propose(limits=ConstraintsConfig(bounds={"code": bound}), bootstrap=0).warnings
        for bound in ((0, 0.3), (1, 1))
    )
    assert any("the prediction is an extrapolation" in one for one in far)
    assert not any("the prediction is an extrapolation" in one for one in near)


def test_another_unit_than_the_fits_is_refused():
    other = Objective(TARGETS, "target", {"math": 1.0}, "nats_per_token")
    with pytest.raises(ConfigError, match="objective.unit is nats_per_token, but the fit was made"):
        propose(objective=other)


def test_another_objective_of_the_same_fit_is_proposed_for():
    trials = make_trials(bowls)
    fit = fitted("log_linear", trials, MATH)
    proposal = propose(fit, MEAN, bootstrap=0)
    assert proposal.objective == "the mean of code and law"
    assert proposal.predicted_objective.value < proposal.gains["natural"].value + 1.2


def test_a_third_partys_regressor_is_proposed_with_by_simulation():
    proposal = propose(fitted("sklearn.linear_model:Ridge"), bootstrap=2)
    assert proposal.provenance["method"] == "simulation"
    assert proposal.mixture["code"] > 0.9


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_no_proposal_breaks_its_bounds(seed):
    rng = np.random.default_rng(seed)
    inside_D = rng.dirichlet(np.ones(4))
    least_D = inside_D * rng.random(4)
    most_D = inside_D + (1 - inside_D) * rng.random(4)
    bounds = {n: (float(lo), float(hi)) for n, lo, hi in zip(DOMAINS, least_D, most_D, strict=True)}
    limits = ConstraintsConfig(bounds=bounds)
    mixture = propose(limits=limits, samples=100, bootstrap=0).mixture
    assert Constraints.from_config(limits, INVENTORY).violations(mixture, tolerance=1e-12) == []
    assert sum(mixture.values()) == pytest.approx(1, abs=1e-12)


def test_the_nearest_trial_of_a_proposal_is_looked_up_among_the_collapsed():
    limits = Constraints.from_config(ConstraintsConfig(), INVENTORY)
    weights_D = TRIALS.weights()[7]
    proposal = replace(PROPOSAL, mixture=Mixture.from_array(DOMAINS, weights_D))
    for collapsed, said in ((("t007",), True), (("t008", "t006"), False)):
        warnings = proposal_warnings(
            proposal, ProposalRequest(FIT, limits, NATURAL, collapsed=collapsed)
        )
        assert any("the experts of trial 't007', the nearest" in one for one in warnings) == said


def test_constraints_on_other_domains_than_the_fits_are_refused():
    limits = Constraints.from_config(ConstraintsConfig(), {"code": 1, "prose": 1})
    with pytest.raises(ConfigError, match="on domains code, prose; the fit has code, prose, law, "):
        propose_mixture(ProposalRequest(FIT, limits, NATURAL))


def test_a_proposal_says_what_it_was_made_from():
    made = propose(bootstrap=0, samples=300, tokens=1000).provenance
    assert (made["regressor"], made["samples"]) == ("linear", 300)
    assert (made["target_tokens"], made["seed"], made["risk"]) == (1000, 0, None)
    assert (made["trials"], made["finished_trials"]) == (FIT.fingerprint, 34)


def test_a_weight_that_rounding_left_of_0_is_0_and_a_small_one_stays():
    settled = _stable(("a", "b", "c"), np.array([1.0 - 2e-13, 5e-14, 1.5e-13]))
    assert settled["b"] == 0.0
    assert settled["c"] > 0.0
    assert Mixture(dict(settled)) == settled


def test_each_loss_has_the_interval_that_the_fit_gives_it():
    predicted = FIT.predict(PROPOSAL.mixture, MATH)
    ends = zip(PROPOSAL.losses.values(), predicted.losses_NM[0], predicted.high_NM[0], strict=True)
    for interval, loss, high in ends:
        assert (interval.value, interval.high) == pytest.approx((loss, high), abs=1e-6)
        assert interval.low == pytest.approx(2 * loss - high, abs=2e-6)


class Far:
    """A loss that is the squared distance from one mixture."""

    def __init__(self, *bottom: float) -> None:
        self.bottom_D = np.array(bottom)

    def predict(self, weights_ND: np.ndarray) -> np.ndarray:
        return ((weights_ND - self.bottom_D) ** 2).sum(axis=1)[:, None]


# What a proposal is made with -------------------------------------------------------------------


def test_refits_that_are_given_are_used_and_none_is_made():
    seen: list[tuple[float, str]] = []

    def made(fits):
        limits = Constraints.from_config(ConstraintsConfig(), INVENTORY)
        search = ProposeConfig(samples=200, bootstrap=3)
        return propose_mixture(
            ProposalRequest(FIT, limits, NATURAL, search=search),
            fits=fits,
            update=lambda done, note: seen.append((done, note)),
        )

    own = made(None)
    assert [one for one in seen if one[1] == "refits"] == [(n, "refits") for n in (1, 2, 3)]
    seen.clear()
    given = made(FIT.resampled([0, 2], count=2, seed=0))
    assert "searching" in {note for _, note in seen}
    assert "refits" not in {note for _, note in seen}
    assert (own.stability.refits, given.stability.refits) == (3, 2)


def test_guardrails_that_no_mixture_keeps_are_told_of_what_simulation_found_too():
    fit = fitted("sklearn.linear_model:Ridge")
    limits = ConstraintsConfig(bounds={"code": (0, 0.1)}, guardrails={"targets": {"math": 0.0}})
    with pytest.raises(
        InfeasibleError, match="no mixture was found that satisfies constraints.guardr"
    ):
        propose(fit, limits=limits, samples=100, bootstrap=0)
