"""What a drag of a slider costs in the page, from its event to the numbers that are written.

    uv run python experiments/benchmarks/bench_what_if_view.py [PAGE] [--drags 100]

PAGE is the `report.html` of any run; without it a page is made whose law is a Gaussian process of
random numbers over 60 domains x 60 losses x 300 trials. Chromium counts the processor time of the
page's thread, so that other processes do not count: script, layout, style, and all of the thread
together. The limit is 16 ms of script a drag. One line of JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import CDPSession, sync_playwright

from mixopt.what_if import what_if_section

LIMIT_MS = 16.0
WARM = 30
KINDS = ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration", "TaskDuration")
READY = "() => document.querySelector('.what-if').dataset.half > 0"
DRAG = """async (count) => {
  const slider = document.querySelector("[data-domain] input[type=range]");
  for (let i = 0; i < count; i++) {
    slider.value = 0.02 + 0.0003 * i;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  }
}"""


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("page", type=Path, nargs="?")
    parser.add_argument("--drags", type=int, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = asked.page or made_page(Path(folder) / "page.html")
        print(json.dumps(measured(page, asked.drags)))


def measured(path: Path, drags: int) -> dict[str, Any]:
    """Return milliseconds of processor time a drag, by what took them."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(path.resolve().as_uri())
        page.locator(".what-if").scroll_into_view_if_needed()
        page.wait_for_function(READY, timeout=120_000)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.evaluate(DRAG, WARM)
        before = seconds(session)
        page.evaluate(DRAG, drags)
        after = seconds(session)
        browser.close()
    spent = {kind: round(1e3 * (after[kind] - before[kind]) / drags, 2) for kind in KINDS}
    return {"drags": drags, "ms_a_drag": spent, "limit_ms": LIMIT_MS}


def seconds(session: CDPSession) -> dict[str, float]:
    """Return the processor time of the page's thread so far, by kind."""
    found = session.send("Performance.getMetrics")["metrics"]
    return {one["name"]: one["value"] for one in found}


def made_page(path: Path, domains: int = 60, losses: int = 60, trials: int = 300) -> Path:
    """Write a page with nothing but the what-if of a made law."""
    rng = np.random.default_rng(0)
    part = what_if_section(made_data(rng, domains, losses, trials))
    path.write_text(
        f'<!doctype html><html lang="en"><style>{part.style}</style>{part.body}'
        f"<script>{part.script}</script></html>",
        encoding="utf-8",
    )
    return path


def made_data(rng: np.random.Generator, domains: int, losses: int, trials: int) -> dict[str, Any]:
    """Return what a page is given, of random numbers."""
    weights_ND = rng.dirichlet(np.ones(domains), trials)
    natural_D, proposal_D = rng.dirichlet(np.full(domains, 5.0), 2)
    ones_M, parts = np.ones(losses), domains + 3
    model = {
        "kind": "gaussian_process",
        "weights_ND": weights_ND,
        "lengths_MD": rng.uniform(1.0, 3.0, (losses, domains)),
        "powers_M": 0.5 * ones_M,
        "variances_M": ones_M,
        "noises_M": 0.1 * ones_M,
        "duals_MN": rng.standard_normal((losses, trials)),
        "means_M": 3.0 * ones_M,
        "units_M": 0.1 * ones_M,
        "roots_MPP": np.zeros((losses, parts, parts)),
    }
    value = {"factor": 1.6, "floor": 0.0, "local": True}
    intervals = {"factors": ones_M, "floors": 0 * ones_M, "locals": [True] * losses}
    share = [1.0 / losses] * losses
    objective = {"kind": "mean", "description": "the mean", "unit": "bits_per_byte"}
    inventory = natural_D * 40e9
    return {
        "domains": [f"source{place:02d}" for place in range(domains)],
        "targets": [f"task{place:02d}" for place in range(losses)],
        "natural": natural_D,
        "proposal": proposal_D,
        "recommended": None,
        "law": {"model": model, "intervals": {**intervals, "value": value, "agrees": None}},
        "objective": objective
        | {"measured": list(range(losses)), "weights": share, "spreads": [1.0] * losses}
        | {"signs": ones_M, "pieces": [share]},
        "constraints": {
            "low": np.zeros(domains),
            "high": np.minimum(4 * inventory / 100e9, 1.0),
            "groups": [],
            "inventory": inventory,
            "target_tokens": 100_000_000_000,
            "max_epochs": [4.0] * domains,
            "radius": None,
            "guardrails": None,
        },
        "trials": {
            "names": [f"t{row:03d}" for row in range(trials)],
            "weights": weights_ND,
            "losses": (3.0 + weights_ND @ rng.random((domains, losses))).astype(np.float32),
        },
    }


if __name__ == "__main__":
    main()
