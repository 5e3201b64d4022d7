"""Regrets of what is proposed in known worlds, and the procedures of others that it compares."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from places import EXPERIMENTS, experiment

peers = experiment("published", "peer_procedures")
NATURAL_D = np.array([0.5, 0.3, 0.2])
ANY_D = np.ones(3)


@pytest.mark.nightly
def test_the_smallest_setting_prints_a_row_for_each_way():
    script = EXPERIMENTS / "published" / "decisions.py"
    asked = ["--worlds", "plain", "--trials", "12", "--seeds", "1", "--processes", "1"]
    done = subprocess.run(
        [sys.executable, str(script), *asked],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=True,
    )
    rows = [line.split("|")[2].strip() for line in done.stdout.splitlines() if "| 12 |" in line]
    controls = ["best trial", "natural", "uniform"]
    assert rows == ["mixopt", "RegMix", "Olmix", *controls, "mixopt in rounds"]


def test_regmix_with_fewer_than_forty_trials_cannot_split_and_proposes_the_mean_of_draws():
    weights_ND = np.random.default_rng(0).dirichlet(np.ones(3), 39)
    fit = peers.RegMixFit.of(weights_ND, weights_ND[:, 0])
    assert np.ptp(fit.predict(weights_ND)) == 0.0
    drawn_ND = np.random.default_rng(4).dirichlet(NATURAL_D, 1_000)
    found_D = fit.proposal(NATURAL_D, ANY_D, seed=4, draws=1_000)
    assert found_D == pytest.approx(drawn_ND[:128].mean(axis=0))


def test_olmix_finds_a_log_linear_law():
    weights_ND = np.random.default_rng(0).dirichlet(np.ones(3), 60)
    losses_NM = 1.5 + np.exp(weights_ND @ np.array([[0.5, -1.0], [-2.0, 0.3], [1.0, -0.5]]))
    fit = peers.OlmixFit.of(weights_ND, losses_NM)
    unseen_ND = np.random.default_rng(1).dirichlet(np.ones(3), 20)
    truth_NM = 1.5 + np.exp(unseen_ND @ np.array([[0.5, -1.0], [-2.0, 0.3], [1.0, -0.5]]))
    assert fit.predict(unseen_ND) == pytest.approx(truth_NM, abs=0.01)


def test_olmix_minimises_the_mean_and_the_divergence():
    fit = peers.OlmixFit(np.array([[0.0, 1.0, -1.0, 0.0]]))
    found_D = fit.proposal(NATURAL_D, ANY_D, np.ones(1))
    drawn_ND = np.random.default_rng(0).dirichlet(np.ones(3), 20_000)
    cost_N = fit.predict(drawn_ND)[:, 0] + peers.KL * _divergence(drawn_ND)
    cost = fit.predict(found_D[None])[0, 0] + peers.KL * _divergence(found_D[None])[0]
    assert cost <= cost_N.min()


def _divergence(weights_ND):
    return (weights_ND * np.log(np.maximum(weights_ND, 1e-12) / NATURAL_D)).sum(axis=1)
