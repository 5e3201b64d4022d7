"""The what-if of a made fit: its data with limits of every kind, and a page around it."""

import numpy as np
from made_fit import fitted, objective

from mixopt.mixture import Mixture
from mixopt.proposals import ProposalRequest
from mixopt.reporting import packed_json, view_script
from mixopt.reporting.page import asset
from mixopt.reporting.what_if import what_if_data

INVENTORY = {"code": 3e9, "prose": 5e9, "law": 2e9}
NATURAL = np.array([0.3, 0.5, 0.2])
RECOMMENDED = np.array([0.42, 0.25, 0.33])
# Of every kind, all kept by the recommended mixture; epochs are those of 30B tokens.
LIMITS = {
    "bounds": {"code": [0.05, 0.5], "law": [0.0, 0.4]},
    "groups": {"text": {"domains": ["prose", "law"], "bounds": [0.2, 0.8]}},
    "max_epochs": {"code": 5, "law": 6},
    "radius": {"tv": 0.3},
    "guardrails": {"targets": {"prose": 0.3}},
}
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
COLOURS = """:root{--paper:#fff;--ink:#111;--soft:#555;--faint:#888;--line:#ddd;--tint:#f4f4f4;
--accent:#0a6aa8;--good:#00704f;--bad:#a8400f}body{margin:1rem}"""


def made_fit_of_gaussians():
    return fitted("gaussian_process", goal=objective("code", "law", "math"))


def what_if_content(fit, limits=None):
    tokens = 3e10 if limits else None
    request = ProposalRequest.of(fit, constraints=limits, inventory=INVENTORY, tokens=tokens)
    recommended = Mixture.from_array(fit.domains, RECOMMENDED)
    return what_if_data(request, {"Recommended": recommended, "Natural": request.natural})


def what_if_page(content, path):
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


def many_domains(domains=20, targets=18, trials=30):
    """Return what a page is given of a run with many domains, by a law made of random numbers."""
    rng = np.random.default_rng(0)
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
    intervals = {"factors": np.full(targets, 1.6), "floors": np.zeros(targets), "agrees": None}
    intervals["locals"] = [True] * targets
    intervals["value"] = {"factor": 1.6, "floor": 0.0, "local": True}
    intervals["reach"] = {"weights": weights_ND, "reach": 1.0, "radius": 0.0}
    content = what_if_content(made_fit_of_gaussians())
    pieces = {"pieces": [[1.0 / targets] * targets], "signs": np.ones(targets)}
    limits = {"low": np.zeros(domains), "high": np.ones(domains), "inventory": np.ones(domains)}
    limits["max_epochs"] = [None] * domains
    return content | {
        "domains": [f"source{place:02d}" for place in range(domains)],
        "targets": [f"task{place:02d}" for place in range(targets)],
        "phases": np.zeros(domains, dtype=int),
        "natural": natural_D,
        "starts": [["Proposal", moved_D], ["Natural", natural_D]],
        "values": [3.0, 3.0],
        "law": {"model": model, "intervals": intervals},
        "objective": content["objective"] | pieces,
        "constraints": content["constraints"] | limits,
        "trials": {"names": [f"t{row}" for row in range(trials)], "weights": weights_ND},
    }
