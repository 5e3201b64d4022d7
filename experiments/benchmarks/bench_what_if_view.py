"""What a drag of a slider costs in the page, from its event to the numbers that are written.

    uv run python experiments/benchmarks/bench_what_if_view.py [PAGE ...] [--drags 40] [--repeats 5]

PAGE is the `report.html` of any run; without it a page is made whose law is that of
bench_what_if.py over 60 domains x 60 losses x 300 trials, and `--write PAGE` keeps it. Several
pages, such as those of two versions, are dragged in turn, so that what else the machine does counts
for all of them. Chromium counts the processor time of the page's thread: script, layout, style, and
all of the thread together, whose limit is 16 ms a drag. One line of JSON for each page and each
kind of slider (a domain's, a target's, the objective's), with the median and the least of the
repeats.
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
from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

from mixopt.what_if import what_if_section

LIMIT_MS = 16.0
WARM = 20
KINDS = ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration", "TaskDuration")
SLIDERS = {"domain": ("domain", 0), "target": ("target", 1), "objective": ("target", 0)}
READY = "() => document.querySelector('.what-if').dataset.half > 0"
PAUSE = "() => new Promise((done) => setTimeout(done, 600))"
DRAG = """async ([kind, place, count]) => {
  const slider = document.querySelectorAll(`[data-${kind}] input[type=range]`)[place];
  const [least, most] = kind === "target" ? [Number(slider.min), Number(slider.max)] : [0.02, 0.32];
  for (let i = 0; i < count; i++) {
    slider.value = least + (0.3 + 0.004 * i) * (most - least);
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  }
}"""

Times = dict[str, list[float]]


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pages", type=Path, nargs="*")
    parser.add_argument("--drags", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", type=Path, help="make the page, write it and stop")
    asked = parser.parse_args()
    if asked.write:
        made_page(asked.write)
        return
    with tempfile.TemporaryDirectory() as folder:
        pages = asked.pages or [made_page(Path(folder) / "page.html")]
        for line in measured(pages, asked.drags, asked.repeats):
            print(json.dumps(line))


def measured(paths: list[Path], drags: int, repeats: int) -> list[dict[str, Any]]:
    """Return milliseconds of processor time a drag, by what took them, of each page and slider."""
    times: dict[tuple[Path, str], Times] = {
        (path, name): {kind: [] for kind in KINDS} for name in SLIDERS for path in paths
    }
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        tabs = {path: tab(browser, path) for path in paths}
        for _ in range(repeats):
            for path, (page, session) in tabs.items():
                page.bring_to_front()
                for name in SLIDERS:
                    add_drag(times[path, name], page, session, name, drags)
        browser.close()
    return [line(path, name, drags, found) for (path, name), found in times.items()]


def tab(browser: Browser, path: Path) -> tuple[Page, CDPSession]:
    """Open a page and wait until its intervals can be drawn."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(path.resolve().as_uri())
    page.locator(".what-if").scroll_into_view_if_needed()
    page.wait_for_function(READY, timeout=240_000)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    return page, session


def add_drag(times: Times, page: Page, session: CDPSession, name: str, drags: int) -> None:
    """Drag a slider and add to `times` what one move cost, in milliseconds."""
    page.evaluate(PAUSE)
    page.evaluate(DRAG, [*SLIDERS[name], WARM])
    before = seconds(session)
    page.evaluate(DRAG, [*SLIDERS[name], drags])
    after = seconds(session)
    for kind in KINDS:
        times[kind].append(1e3 * (after[kind] - before[kind]) / drags)


def line(path: Path, name: str, drags: int, times: Times) -> dict[str, Any]:
    """Return what is printed of a page and a slider."""
    medians = {kind: round(float(np.median(found)), 2) for kind, found in times.items()}
    least = round(min(times["TaskDuration"]), 2)
    about = {"page": path.stem, "slider": name, "drags": drags}
    return {**about, "ms_a_drag": medians, "least_ms": least, "limit_ms": LIMIT_MS}


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
