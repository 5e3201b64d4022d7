"""What a fit's law answers in a browser, and what Python does, at the same mixtures.

Shapes: K mixtures, D domains, M losses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mixopt.fitting import Fit, predict_with_std
from mixopt.objective import Objective
from mixopt.reporting import law_data, packed_json, view_script

ANSWER = """
(mixtures) => mixtures.map((w) => ({
  losses: Array.from(law.predict(w)),
  stds: Array.from(law.stds(w)),
  halves: Array.from(law.halves(w)),
  value: law.value(w),
  half: law.valueHalf(w),
}))
"""


def law_page(content: dict[str, Any]) -> str:
    """Return a page in which `law` is the law of a page's data."""
    return (
        f'<script type="application/json" id="data">{packed_json(content)}</script>'
        f"<script>{view_script()}\n"
        "const law = makeLaw(readWhatIf(document.getElementById('data').textContent));</script>"
    )


def browser_answers(
    open_page: Callable[..., Any], fit: Fit, mixtures_KD: np.ndarray, asked: Objective | None = None
) -> dict[str, np.ndarray]:
    """Ask the law in a browser."""
    names = {"domains": list(fit.domains), "targets": list(fit.targets)}
    page = open_page(law_page({**names, **law_data(fit, asked)}))
    rows = page.evaluate(ANSWER, mixtures_KD.tolist())
    return {name: np.array([row[name] for row in rows], dtype=float) for name in rows[0]}


def python_answers(
    fit: Fit, mixtures_KD: np.ndarray, asked: Objective | None = None
) -> dict[str, np.ndarray]:
    """Ask the fit."""
    found = fit.predict(mixtures_KD, asked)
    means_KM, stds_KM = predict_with_std(fit.regressor, mixtures_KD)
    return {
        "losses": found.losses_NM,
        "stds": fit._by_items(means_KM, stds_KM),
        "halves": found.high_NM - found.losses_NM,
        "value": found.objective_N,
        "half": found.objective_high_N - found.objective_N,
    }


def mixtures(domains: int, count: int = 50, seed: int = 0) -> np.ndarray:
    """Return random mixtures, corners and zeros among them, shape (count, D)."""
    rng = np.random.default_rng(seed)
    corners = np.eye(domains)[:6]
    edges = rng.dirichlet(np.ones(domains), 10) * (rng.random((10, domains)) < 0.6)
    edges[:, 0] += 1e-3
    inside = rng.dirichlet(np.ones(domains), count - len(corners) - len(edges))
    drawn = np.vstack([corners, edges, inside])
    return drawn / drawn.sum(axis=1, keepdims=True)
