"""What a drag of the what-if costs in a browser, and how many bytes its law is.

    OMP_NUM_THREADS=1 uv run python experiments/benchmarks/bench_what_if.py [--quick]

The mean of a Gaussian process, shared power laws and power laws, as `auto` has them, on synthetic
trials; parameters are not learned, and few losses are fitted and each counts several times, since
neither time nor bytes depend on them. Chromium moves to
random mixtures: losses, their gradients, the objective and its gradient are one drag, whose limit
is 16 ms; intervals of all losses and the objective come after. `prepare` makes once what intervals
need. One line of JSON for each shape of domains x losses x trials.
"""

from __future__ import annotations

import argparse
import json
import shutil
from typing import Any

import numpy as np
from mixopt_regressors.gaussian import GaussianProcessRegressor
from mixopt_regressors.laws import PowerRegressor, SkillsRegressor
from playwright.sync_api import sync_playwright

from mixopt.system import Array
from mixopt.what_if import law_script, packed_json

LIMIT_MS = 16.0
MOVES = 40
FITTED = 6
SHAPES = ((10, 60, 128), (60, 60, 300))
QUICK = ((10, 12, 60),)
MEASURE = """(mixtures) => {
  const timed = (f) => { const start = performance.now(); f(); return performance.now() - start; };
  const law = makeLaw(readWhatIf(document.getElementById("data").textContent));
  const drags = mixtures.map((w) => timed(() => {
    law.predict(w); law.gradient(w); law.value(w); law.valueGradient(w);
  }));
  const slices = [];
  for (let more = true; more; ) slices.push(timed(() => { more = law.prepare(); }));
  const intervals = mixtures.map((w) => {
    law.predict(w);
    return timed(() => { law.halves(w); law.valueHalf(w); });
  });
  return { drags, slices, intervals };
}"""


def main() -> None:
    """Parse the command line, measure each shape, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small shape alone")
    shapes = QUICK if parser.parse_args().quick else SHAPES
    for domains, losses, trials in shapes:
        print(json.dumps(measured(domains, losses, trials)), flush=True)


def measured(domains: int, losses: int, trials: int) -> dict[str, Any]:
    """Return bytes and milliseconds of one shape."""
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.full(domains, 0.5), trials)
    data = page_data(weights_ND, synthetic_losses(weights_ND, losses, rng))
    moves_KD = rng.dirichlet(np.ones(domains), MOVES)
    found = in_chromium(packed_json(data), moves_KD)
    models = zip(("gaussian_process", "skills", "power"), members(data), strict=True)
    return {
        "shape": f"{domains} domains x {losses} losses x {trials} trials",
        "kilobytes": round(len(packed_json(data)) / 1e3),
        "kilobytes_of": {name: round(len(packed_json(one)) / 1e3) for name, one in models},
        "drag_ms": spread(found["drags"]),
        "limit_ms": LIMIT_MS,
        "intervals_ms": spread(found["intervals"]),
        "prepare_ms": round(sum(found["slices"])),
        "longest_slice_ms": round(max(found["slices"]), 1),
    }


def synthetic_losses(weights_ND: Array, losses: int, rng: np.random.Generator) -> Array:
    """Return losses that each fall with some of the domains, with a little noise."""
    domains = weights_ND.shape[1]
    helps_MD = rng.exponential(1.0, (losses, domains)) * (rng.random((losses, domains)) < 0.3)
    noise_NM = 3e-3 * rng.standard_normal((len(weights_ND), losses))
    law_NM: Array = 2.0 + np.exp(-1.5 * np.sqrt(weights_ND) @ helps_MD.T) + noise_NM
    return law_NM


def page_data(weights_ND: Array, losses_NM: Array) -> dict[str, Any]:
    """Return the data of a page: law, objective, and the table of trials."""
    domains, losses = weights_ND.shape[1], losses_NM.shape[1]
    losses_NM = losses_NM[:, np.arange(losses) % FITTED]
    few_NM = losses_NM[:, :FITTED]
    kept = [*np.full(domains, np.log(0.5)), -0.6, 0.0, -4.0]
    means_M, units_M = few_NM.mean(axis=0), few_NM.std(axis=0)
    hyperparameters = [[*kept, mean, unit] for mean, unit in zip(means_M, units_M, strict=True)]
    regressors = (
        GaussianProcessRegressor(hyperparameters=hyperparameters),
        SkillsRegressor(strength=0.1, optimism=1.5),
        PowerRegressor(penalty=1e-2, starts=1, huber=None),
    )
    laws = [law_of_many(one.fit(weights_ND, few_NM), losses) for one in regressors]
    third = np.full((len(laws), losses), 1.0 / len(laws))
    ones = np.ones(losses)
    intervals = {"factors": 2 * ones, "floors": 0 * ones, "locals": [True] * losses, "agrees": None}
    intervals["value"] = {"factor": 2.0, "floor": 0.0, "local": True}
    return {
        "domains": [f"domain {d}" for d in range(domains)],
        "targets": [f"loss {m}" for m in range(losses)],
        "law": {
            "model": {"kind": "mean", "members": laws, "weights_CM": third},
            "intervals": intervals,
        },
        "objective": {"pieces": [(ones / losses).tolist()]},
        "trials": {
            "weights": laws[0]["weights_ND"],
            "losses": losses_NM.astype(np.float32),
        },
    }


def law_of_many(regressor: Any, losses: int) -> dict[str, Any]:
    """Return the law of a fit that predicts its few losses again and again."""
    many = regressor.select([place % FITTED for place in range(losses)])
    if isinstance(regressor, GaussianProcessRegressor):
        many.__dict__["_roots"] = [regressor._roots[place % FITTED] for place in range(losses)]
    law: dict[str, Any] = many.plain_law()
    return law


def members(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the laws that the mean is of."""
    found: list[dict[str, Any]] = data["law"]["model"]["members"]
    return found


def in_chromium(data: str, moves_KD: Array) -> dict[str, list[float]]:
    """Return milliseconds of each move, of each slice of `prepare`, and of intervals."""
    page_text = (
        f'<script type="application/json" id="data">{data}</script><script>{law_script()}</script>'
    )
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.set_content(page_text)
        found: dict[str, list[float]] = page.evaluate(MEASURE, moves_KD.tolist())
        browser.close()
    return found


def spread(times: list[float]) -> dict[str, float]:
    """Return the least, the median and the 95th percentile."""
    return {
        "least": round(min(times), 2),
        "median": round(float(np.median(times)), 2),
        "p95": round(float(np.quantile(times, 0.95)), 2),
    }


if __name__ == "__main__":
    main()
