"""What a drag of a slider costs in the page, from its event to the numbers that are written.

    uv run python experiments/benchmarks/bench_what_if_view.py [PAGE] [--drags 100]

PAGE is the `report.html` of any run; without it a page is made whose law is that of
bench_what_if.py over 60 domains x 60 losses x 300 trials. Chromium counts the processor time of the
page's thread, so that other processes do not count: script, layout, style, and all of the thread
together. The limit is 16 ms of script a drag. One line of JSON for a domain's slider, and one for
a target's, whose search goes on between drags.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from bench_what_if import page_data, synthetic_losses
from playwright.sync_api import CDPSession, Page, sync_playwright

from mixopt.what_if import what_if_section

LIMIT_MS = 16.0
WARM = 30
KINDS = ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration", "TaskDuration")
READY = "() => document.querySelector('.what-if').dataset.half > 0"
DRAG = """async ([kind, count]) => {
  const sliders = document.querySelectorAll(`[data-${kind}] input[type=range]`);
  const slider = sliders[kind === "target" ? 1 : 0]; // the first of targets is the objective
  const [least, most] = kind === "target" ? [Number(slider.min), Number(slider.max)] : [0.02, 0.32];
  for (let i = 0; i < count; i++) {
    slider.value = least + (0.3 + 0.004 * i) * (most - least);
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
        for line in measured(page, asked.drags):
            print(json.dumps(line))


def measured(path: Path, drags: int) -> list[dict[str, Any]]:
    """Return milliseconds of processor time a drag, by what took them, for both sliders."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(path.resolve().as_uri())
        page.locator(".what-if").scroll_into_view_if_needed()
        page.wait_for_function(READY, timeout=240_000)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        found = [drag(page, session, kind, drags) for kind in ("domain", "target")]
        browser.close()
    return found


def drag(page: Page, session: CDPSession, kind: str, drags: int) -> dict[str, Any]:
    """Return what a drag of a domain's or a target's slider costs."""
    page.evaluate(DRAG, [kind, WARM])
    before = seconds(session)
    page.evaluate(DRAG, [kind, drags])
    after = seconds(session)
    spent = {one: round(1e3 * (after[one] - before[one]) / drags, 2) for one in KINDS}
    return {"slider": kind, "drags": drags, "ms_a_drag": spent, "limit_ms": LIMIT_MS}


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
    """Return what a page is given: the law of bench_what_if.py, and limits that do not bind."""
    weights_ND = rng.dirichlet(np.full(domains, 0.5), trials)
    data = page_data(weights_ND, synthetic_losses(weights_ND, losses, rng))
    natural_D, proposal_D = rng.dirichlet(np.full(domains, 5.0), 2)
    share = [1.0 / losses] * losses
    words = {"kind": "mean", "description": "the mean", "unit": "bits_per_byte"}
    even = {"measured": list(range(losses)), "weights": share, "spreads": [1.0] * losses}
    return data | {
        "natural": natural_D,
        "proposal": proposal_D,
        "recommended": None,
        "objective": words | even | {"signs": np.ones(losses), "pieces": [share]},
        "constraints": {
            "low": np.zeros(domains),
            "high": np.ones(domains),
            "groups": [],
            "inventory": natural_D * 40e9,
            "target_tokens": 100_000_000_000,
            "max_epochs": [None] * domains,
            "radius": None,
            "guardrails": None,
        },
        "trials": data["trials"] | {"names": [f"t{row:03d}" for row in range(trials)]},
    }


if __name__ == "__main__":
    main()
