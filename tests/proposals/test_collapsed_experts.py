"""A proposal keeps away from trials whose experts collapsed."""

from __future__ import annotations

import numpy as np
import pytest

from mixopt.config import ConstraintsConfig, FitConfig, ProposeConfig
from mixopt.constraints import Constraints
from mixopt.errors import ConfigError, InfeasibleError
from mixopt.fitting import fit_trials
from mixopt.mixture import Mixture, total_variation
from mixopt.objective import Objective
from mixopt.proposals import ProposalRequest, propose_mixture
from mixopt.proposals.request import Avoided
from mixopt.trials import Losses, Trial, TrialResult, Trials

DOMAINS = ("code", "law", "mail")
NATURAL = Mixture.uniform(DOMAINS)
GUARDED = ConstraintsConfig(guardrails={"experts": True})


@pytest.fixture(scope="module")
def trials() -> Trials:
    """Losses that fall with code, and one trial that did not finish."""
    weights_ND = np.random.default_rng(0).dirichlet(np.ones(3), 24)
    trials, results = [Trial("lost", NATURAL, seed=99)], []
    results.append(TrialResult("lost", "failed", 9, 9, 1.0, reason="loss is nan"))
    for row, weights_D in enumerate(weights_ND):
        trials.append(Trial(f"t{row:02d}", Mixture.from_array(DOMAINS, weights_D), seed=row))
        values = {name: 3.0 - float(weights_D[0]) for name in DOMAINS}
        results.append(TrialResult(f"t{row:02d}", "finished", 9, 9, 1.0, Losses(9, values, values)))
    return Trials.from_results(trials, results, proxy="synthetic", targets=DOMAINS)


@pytest.fixture(scope="module")
def fit(trials):
    objective = Objective(DOMAINS, "target", {"code": 1.0})
    return fit_trials(trials, FitConfig(regressors=["linear"], folds=4), objective, 0)


def rich_in_code(trials: Trials, least: float = 0.5) -> list[str]:
    done = trials.finished
    rows = zip(done.table["trial"], done.weights()[:, 0], strict=True)
    return [name for name, code in rows if code > least]


def propose(fit, collapsed, limits=GUARDED):
    config = ProposeConfig(samples=2000, bootstrap=0)
    constraints = Constraints.from_config(limits, dict.fromkeys(DOMAINS, 1))
    request = ProposalRequest(fit, constraints, NATURAL, search=config, collapsed=collapsed)
    return propose_mixture(request)


def test_a_mixture_is_allowed_where_another_trial_is_nearer_than_a_collapsed_one():
    avoided = Avoided(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0], [0.4, 0.6]]))
    excess_N = avoided.excess(np.array([[0.9, 0.1], [0.7, 0.3], [0.5, 0.5]]))
    np.testing.assert_allclose(excess_N, [0.4, 0.0, -0.4], atol=1e-12)
    none = Avoided(np.empty((0, 2)), avoided.others_KD)
    assert none.excess(np.array([[0.9, 0.1], [0.5, 0.5]])).tolist() == [-1.0, -1.0]


def test_trials_without_experts_or_without_a_whole_one_are_refused(trials):
    with pytest.raises(ConfigError, match="the trials have no experts; leave it out"):
        Avoided.of(trials, None)
    with pytest.raises(ConfigError, match="the experts of all 24 trials collapsed"):
        Avoided.of(trials, [f"t{row:02d}" for row in range(24)])


def test_a_proposal_is_nearest_to_a_trial_that_did_not_collapse(fit):
    collapsed = rich_in_code(fit.trials)
    free, held = propose(fit, collapsed, ConstraintsConfig()), propose(fit, collapsed)
    names, weights_ND = fit.trials.finished.table["trial"], fit.trials.finished.weights()
    near_free = names[int(total_variation(weights_ND, free.mixture.array).argmin())]
    near_held = names[int(total_variation(weights_ND, held.mixture.array).argmin())]
    assert near_free in collapsed
    assert near_held not in collapsed
    assert any(f"the experts of trial {near_free!r}" in line for line in free.warnings)
    assert not any("the experts of trial" in line for line in held.warnings)


def test_limits_that_leave_mixtures_near_collapsed_trials_alone_are_refused(fit):
    collapsed = rich_in_code(fit.trials)
    limits = ConstraintsConfig(bounds={"code": (0.9, 1.0)}, guardrails={"experts": True})
    said = (
        rf"closest to one of the {len(collapsed)} trials whose experts collapsed: widen the other"
    )
    with pytest.raises(InfeasibleError, match=said):
        propose(fit, collapsed, limits)
