"""A proposal keeps away from trials whose experts collapsed."""

import numpy as np
import polars as pl
from made_fit import fitted, table
from refusals import refuses

from mixopt.config import ProposeConfig
from mixopt.errors import ConfigError, InfeasibleError
from mixopt.mixture import Mixture, total_variation
from mixopt.objective import Objective
from mixopt.proposals.request import Avoided
from mixopt.trials import Trial, TrialResult, Trials

DOMAINS = ("code", "law", "mail")
# Losses that fall with code, and one trial that did not finish; those rich in code collapsed.
WEIGHTS_ND = np.random.default_rng(0).dirichlet(np.ones(3), 24)
DONE = table(WEIGHTS_ND, 3.0 - WEIGHTS_ND[:, [0, 0, 0]], DOMAINS, DOMAINS)
LOST = Trial("lost", Mixture.uniform(DOMAINS), 99)
FAILED = TrialResult("lost", "failed", 9, 9, 1.0, reason="loss is nan")
ROW = Trials.from_results([LOST], [FAILED], proxy="x", targets=DOMAINS)
TRIALS = Trials(pl.concat([ROW.table, DONE.table]), DOMAINS, DOMAINS)
FIT = fitted("linear", trials=TRIALS, goal=Objective(DOMAINS, "target", {"code": 1.0}))
NAMES = DONE.table["trial"].to_list()
COLLAPSED = [name for name, code in zip(NAMES, WEIGHTS_ND[:, 0], strict=True) if code > 0.5]


def propose(**limits):
    config = ProposeConfig(samples=2000, bootstrap=0)
    return FIT.propose(constraints=limits, search=config, collapsed=COLLAPSED)


def test_a_mixture_is_allowed_where_the_nearest_trial_did_not_collapse_and_some_trial_must_not():
    avoided = Avoided(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0], [0.4, 0.6]]))
    excess_N = avoided.excess(np.array([[0.9, 0.1], [0.7, 0.3], [0.5, 0.5]]))
    np.testing.assert_allclose(excess_N, [0.4, 0.0, -0.4], atol=1e-12)
    none = Avoided(np.empty((0, 2)), avoided.intact_KD)
    assert none.excess(np.array([[0.9, 0.1], [0.5, 0.5]])).tolist() == [-1.0, -1.0]
    refuses(ConfigError, "the trials have no experts; leave it out", Avoided.of, TRIALS, None)
    refuses(ConfigError, "the experts of all 24 trials collapsed", Avoided.of, TRIALS, NAMES)


def test_a_proposal_is_nearest_to_a_trial_that_did_not_collapse_or_its_limits_are_refused():
    free, held = propose(), propose(guardrails={"experts": True})
    away = [total_variation(WEIGHTS_ND, item.mixture.array) for item in (free, held)]
    nearest = [NAMES[int(away_N.argmin())] for away_N in away]
    assert [name in COLLAPSED for name in nearest] == [True, False]
    assert any(f"the experts of trial {nearest[0]!r}" in line for line in free.warnings)
    assert not any("the experts of trial" in line for line in held.warnings)
    limits = {"bounds": {"code": (0.9, 1.0)}, "guardrails": {"experts": True}}
    said = f"closest to one of the {len(COLLAPSED)} trials whose experts collapsed: widen the oth"
    refuses(InfeasibleError, said, propose, **limits)
