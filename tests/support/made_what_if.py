"""The what-if of a made fit: its data with limits of every kind, and a page around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from made_fit import fitted, objective

from mixopt.fitting import Fit
from mixopt.mixture import Mixture
from mixopt.reporting import law_data, packed_json, view_script
from mixopt.reporting.page import asset

NATURAL = np.array([0.3, 0.5, 0.2])
RECOMMENDED = np.array([0.42, 0.25, 0.33])
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
COLOURS = """:root{--paper:#fff;--ink:#111;--soft:#555;--faint:#888;--line:#ddd;--tint:#f4f4f4;
--accent:#0a6aa8;--good:#00704f;--bad:#a8400f}body{margin:1rem}"""


def made_fit_of_gaussians() -> Fit:
    return fitted("gaussian_process", asked=objective("code", "law", "math"))


def no_limits() -> dict[str, Any]:
    return {
        "low": np.zeros(3),
        "high": np.ones(3),
        "groups": [],
        "inventory": np.array([1e9, 4e9, 1e9]),
        "target_tokens": None,
        "max_epochs": [None] * 3,
        "radii": [],
        "guardrails": None,
    }


def some_limits() -> dict[str, Any]:
    """Limits of every kind, all kept by the recommended mixture."""
    near = {"kind": "tv", "size": 0.3, "reference": "natural", "weights": NATURAL}
    near["source"] = "constraints.radius"
    rails = {"reference": "natural", "weights": NATURAL, "targets": [1], "signs": np.ones(1)}
    rails |= {"fixed": [None], "floors": [False]}
    return no_limits() | {
        "low": np.array([0.05, 0.0, 0.0]),
        "high": np.array([0.5, 1.0, 0.4]),
        "groups": [{"name": "text", "members": [1, 2], "low": 0.2, "high": 0.8}],
        "target_tokens": 10_000_000_000,
        "max_epochs": [5.0, None, 4.0],
        "radii": [near],
        "guardrails": {**rails, "margins": np.array([0.3])},
    }


def what_if_content(fit: Fit, limits: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what a page is given, as `what_if_data` would."""
    return {
        "domains": list(fit.domains),
        "targets": list(fit.targets),
        "phases": np.zeros(len(fit.domains), dtype=int),
        "natural": NATURAL,
        "starts": [["Recommended", RECOMMENDED], ["Natural", NATURAL]],
        "values": [
            fit.baseline(Mixture.from_array(fit.domains, one), fit.objective)[0]
            for one in (NATURAL, RECOMMENDED)
        ],
        **law_data(fit),
        "constraints": limits or no_limits(),
        "trials": {
            "names": fit.trials.table["trial"].to_list(),
            "weights": fit.data.weights_ND,
        },
    }


def what_if_page(content: dict[str, Any], path: Path) -> Path:
    """Write a page that is nothing but the what-if, and return it."""
    path.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>what-if</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<style>{COLOURS}{asset("what_if.css")}</style></head><body><div id="view"></div>'
        f'<script type="application/json" id="data">{packed_json(content)}</script>'
        f"<script>{view_script()}\n"
        'renderWhatIf(document.getElementById("view"),'
        ' readWhatIf(document.getElementById("data").textContent));</script></body></html>',
        encoding="utf-8",
    )
    return path


def many_domains(domains: int = 20, targets: int = 18, trials: int = 30) -> dict[str, Any]:
    """Return what a page is given of a run with many domains, by a law made of random numbers."""
    rng = np.random.default_rng(0)
    names = [f"source{place:02d}" for place in range(domains)]
    tasks = [f"task{place:02d}" for place in range(targets)]
    weights_ND = rng.dirichlet(np.ones(domains), trials)
    natural_D, moved_D = rng.dirichlet(np.full(domains, 5.0), 2)
    parameters = domains + 3
    model = {
        "kind": "gaussian_process",
        "weights_ND": weights_ND,
        "lengths_MD": rng.uniform(1.0, 3.0, (targets, domains)),
        "powers_M": np.full(targets, 0.5),
        "variances_M": np.ones(targets),
        "noises_M": np.full(targets, 0.1),
        "duals_MN": rng.standard_normal((targets, trials)),
        "means_M": np.full(targets, 3.0),
        "units_M": np.full(targets, 0.1),
        "roots_MT": np.zeros(targets * parameters * (parameters + 1) // 2, dtype=np.float32),
    }
    calibration = {"factor": 1.6, "floor": 0.0, "local": True}
    intervals = {
        "factors": np.full(targets, 1.6),
        "floors": np.zeros(targets),
        "locals": [True] * targets,
        "value": calibration,
        "agrees": None,
        "reach": {"weights": weights_ND, "reach": 1.0, "radius": 0.0},
    }
    share = [1.0 / targets] * targets
    words = {"description": "the mean", "unit": "bits_per_byte"}
    low, high = np.zeros(domains), np.ones(domains)
    groups = [
        {"name": "first", "members": [0, 1, 2], "low": 0.0, "high": 1.0},
        {"name": "second", "members": [3, 4], "low": 0.0, "high": 1.0},
    ]
    return {
        "domains": names,
        "targets": tasks,
        "phases": np.zeros(domains, dtype=int),
        "natural": natural_D,
        "starts": [["Proposal", moved_D], ["Natural", natural_D]],
        "values": [3.0, 3.0],
        "law": {"model": model, "intervals": intervals},
        "objective": {**words, "signs": np.ones(targets), "pieces": [share], "offsets": [0.0]},
        "constraints": {**no_limits(), "low": low, "high": high, "groups": groups}
        | {"inventory": np.ones(domains), "max_epochs": [None] * domains},
        "trials": {
            "names": [f"t{row}" for row in range(trials)],
            "weights": weights_ND,
        },
    }
