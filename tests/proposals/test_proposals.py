"""Proposals are allowed, say what they are predicted to give, and survive their file."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml
from made_fit import fitted, table
from made_proposal import made_proposal

from mixopt.config import ProposeConfig
from mixopt.constraints import Constraints
from mixopt.errors import ConfigError, MixtureError
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import Interval, Proposal, ProposalRequest, Region, propose_mixture
from mixopt.proposals.best_mixture import _stable
from mixopt.system import sealed

DOMAINS = ("code", "prose", "law", "mail")
INVENTORY = {"code": 400, "prose": 300, "law": 200, "mail": 100}
NATURAL = Mixture.natural(INVENTORY)
TARGETS = ("code", "law", "math")


RNG = np.random.default_rng(0)
WEIGHTS_ND = np.vstack([RNG.dirichlet(np.ones(4), 30), np.full((4, 4), 0.25)])
LOSSES_NM = 3.0 - WEIGHTS_ND[:, :1] * [1.0, 0.2, 2.0]  # only code helps
TRIALS = table(WEIGHTS_ND, LOSSES_NM + 0.01 * RNG.standard_normal((34, 3)), DOMAINS, TARGETS)
MATH = Objective(TARGETS, "target", {"math": 1.0})
FIT = fitted("linear", trials=TRIALS, goal=MATH)


def propose(fit=FIT, bounds=(), samples=2000, bootstrap=2):
    search = ProposeConfig(samples=samples, bootstrap=bootstrap, keep_unmeasured=0.0)
    limits = {"bounds": dict(bounds)}
    return fit.propose(constraints=limits, inventory=INVENTORY, tokens=1000, search=search)


PROPOSAL = propose(bounds={"code": (0, 0.6), "law": (0.1, 1)})


def test_the_optimum_of_a_known_law_is_proposed_and_the_bound_that_holds_it_is_named():
    assert PROPOSAL.mixture["code"] == pytest.approx(0.6, abs=1e-9)
    assert PROPOSAL.binding[0] == "code <= 0.6 (constraints.bounds)"


def test_each_gain_is_the_predicted_objective_of_that_mixture_less_the_proposals():
    best_D = TRIALS.weights()[TRIALS.losses()[:, 2].argmin()]
    found = FIT.predict([PROPOSAL.mixture.array, NATURAL.array, best_D], MATH)
    value, natural, best = found.objective_N
    half = found.objective_high_N[0] - value
    assert PROPOSAL.predicted_objective == Interval.around(value, half)
    uniform = TRIALS.losses()[-4:, 2].mean()  # trained four times
    gains = [gain.mean for gain in PROPOSAL.gains.values()]
    assert gains == pytest.approx([natural - value, uniform - value, best - value], abs=2e-6)
    gain = PROPOSAL.gains["natural"]
    assert gain.mean == pytest.approx(2.0 * (0.6 - 0.4), abs=0.02)  # by the law
    assert gain.low < 0.4 < gain.high


def test_one_seed_gives_one_proposal_predicted_no_worse_than_what_it_is_compared_with():
    trees = fitted("lightgbm", trials=TRIALS, goal=MATH)
    first, second = (propose(trees, samples=500) for _ in range(2))
    assert first == second
    assert min(gain.mean for gain in first.gains.values()) >= 0


def test_a_proposal_survives_its_file_whose_names_can_be_read(tmp_path):
    path = tmp_path / "proposal.yaml"
    PROPOSAL.to_file(path)
    assert Proposal.from_file(path) == PROPOSAL
    bare = made_proposal(
        mixture=Mixture({"code": 0.5, "\u6570": 0.5, "law": 0.0}),
        natural=Mixture.uniform(("code", "\u6570", "law")),
        **dict.fromkeys(("epochs", "region", "stability")),
    )
    bare.to_file(path)
    assert Proposal.from_file(path) == bare
    assert "  \u6570: 0.5\n" in path.read_text(encoding="utf-8")
    assert bare.effective_domains == 2.0
    assert Interval.rounded(1 / 3, 1 / 3, 2 / 3) == Interval(0.333333, 0.333333, 0.666667)


def test_a_region_names_the_four_domains_whose_share_is_least_certain():
    ends = {"a": (0.0, 0.1), "b": (0.1, 0.5), "c": (0.2, 0.4), "d": (0.0, 0.3), "e": (0.0, 0.05)}
    said = "b 10.0% to 50.0%, d 0.0% to 30.0%, c 20.0% to 40.0%, a 0.0% to 10.0%."
    sources = {"seeds": "noise of a trial", "held-out error": "error on held-out tr"}
    for source, words in sources.items():
        found = Region(0.012, source, ends).describe("right_answers")
        assert found.startswith(f"Predicted as good, up to the {words}")
        assert found.endswith(f"(1.20): {said}")


def test_a_field_that_a_forger_sealed_is_checked_and_a_mixture_alone_is_no_proposal(tmp_path):
    content = PROPOSAL.to_json()
    content["objective"] |= {"unit": "furlongs"}
    path = tmp_path / "proposal.yaml"
    path.write_text(yaml.safe_dump(sealed(content)))
    with pytest.raises(MixtureError, match="objective: unit: .*not one of bits_per_byte"):
        Proposal.from_file(path)
    NATURAL.to_file(path)
    with pytest.raises(MixtureError, match="is a mixture but not a proposal.*Mixture.from_file"):
        Proposal.from_file(path)


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


def test_another_unit_or_constraints_on_other_domains_than_the_fit_s_are_refused():
    other = Objective(TARGETS, "target", {"math": 1.0}, "nats_per_token")
    request = replace(ProposalRequest.of(FIT), goal=other)
    with pytest.raises(ConfigError, match="objective.unit is nats_per_token, but the fit was made"):
        propose_mixture(request)
    limits = Constraints(("code", "prose"))
    with pytest.raises(ConfigError, match="on domains code, prose; the fit has code, prose, law, "):
        propose_mixture(ProposalRequest(FIT, limits, NATURAL))


def test_a_third_partys_regressor_is_proposed_with_by_simulation():
    ridge = fitted("sklearn.linear_model:Ridge", trials=TRIALS, goal=MATH)
    proposal = propose(ridge)
    assert proposal.provenance["method"] == "simulation"
    assert proposal.mixture["code"] > 0.9


def test_a_weight_that_rounding_left_of_0_is_0_and_a_small_one_stays():
    settled = _stable(("a", "b", "c"), np.array([1.0 - 2e-13, 5e-14, 1.5e-13]))
    assert settled["b"] == 0.0
    assert settled["c"] > 0.0
    assert Mixture(dict(settled)) == settled


def test_a_proposal_says_what_it_was_made_from():
    provenance = propose(bootstrap=0, samples=300).provenance
    assert (provenance["regressor"], provenance["samples"]) == ("linear", 300)
    assert (provenance["target_tokens"], provenance["seed"]) == (1000, 0)
    assert (provenance["trials"], provenance["finished_trials"]) == (FIT.fingerprint, 34)
