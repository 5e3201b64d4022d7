"""A mixture for each phase is proposed where that is beyond doubt better, and only there."""

import re

import numpy as np
import pytest
from made_fit import table

import mixopt
from mixopt import Phases, Proposal
from mixopt.config import ProposeConfig
from mixopt.errors import RunError
from mixopt.reporting import proposal_text

PHASES = Phases({"1": 0.8, "2": 0.2})
CELLS = ("1/web", "1/code", "2/web", "2/code")


def proposed(tmp_path, loss):
    """Propose from forty trials with hardly any noise, of which every third is tied."""
    rng = np.random.default_rng(0)
    web_N2 = rng.random((40, 2))
    web_N2[::3, 1] = web_N2[::3, 0]
    losses_N = loss(*web_N2.T) + 1e-4 * rng.normal(size=40)
    cells_NC = np.stack([web_N2, 1 - web_N2], axis=2).reshape(40, 4) * [0.8, 0.8, 0.2, 0.2]
    trials = table(cells_NC, losses_N, CELLS, ("exam",))
    fit = trials.fit(regressors=["phases", "gaussian_process"])
    fit.save(tmp_path / "fit")
    return fit.propose(search=ProposeConfig(bootstrap=0, keep_unmeasured=0))


def test_where_phases_do_not_matter_one_mixture_is_proposed(tmp_path):
    found = proposed(tmp_path, lambda first, late: 1 + (0.8 * first + 0.2 * late - 0.6) ** 2)
    parts = found.phases.split(found.mixture)
    assert parts["1"].total_variation(parts["2"]) < 1e-4
    assert PHASES.whole(found.mixture)["web"] == pytest.approx(0.6, abs=0.05)
    assert "includes 0: one mixture is proposed for all phases" in found.warnings[0]
    tied = mixopt.predict(tmp_path / "fit", {"web": 0.3, "code": 0.7}).predicted
    assert tied.mixture == PHASES.tied({"web": 0.3, "code": 0.7})
    with pytest.raises(RunError, match="is a fit of tables, not a run; name a mixture of it"):
        mixopt.predict(tmp_path / "fit")


def test_where_late_text_counts_differently_each_phase_has_its_mixture(tmp_path):
    found = proposed(tmp_path, lambda first, late: 1 + (first - 0.8) ** 2 + (late - 0.1) ** 2)
    parts = found.phases.split(found.mixture)
    assert parts["1"]["web"] == pytest.approx(0.8, abs=0.08)
    assert parts["2"]["web"] == pytest.approx(0.1, abs=0.08)
    said = r"phases: .* better than one by \+0\.\d{4} nats per token \(\+0\.\d{4} to \+0"
    assert re.match(said, found.warnings[0])
    assert "natural  phase 1 (80%)  phase 2 (20%)" in proposal_text(found)
    found.to_file(tmp_path / "proposal.yaml")
    reloaded = Proposal.from_file(tmp_path / "proposal.yaml")
    assert dict(reloaded.phases) == pytest.approx(dict(PHASES))
    assert [phase["until"] for phase in reloaded.to_json()["phases"]] == [0.8, 1.0]
