"""The nearest mixture within a total variation of a reference is exact."""

import numpy as np
import pytest
from law_answers import law_page
from made_what_if import made_fit_of_gaussians, what_if_content

from mixopt.what_if import view_script

# By sides and by tangents, from the same points: an answer of both is [weights, weights].
BOTH = """([point, middle, size, high]) => {
  const run = (steps) => { let s; do s = steps.next(); while (!s.done); return s.value; };
  const limit = variationLimit({ weights: Float64Array.from(middle), size });
  const bounds = { low: new Float64Array(point.length), high: Float64Array.from(high) };
  const allowed = { bounds, rows: [], kinked: [limit], smooth: [], guards: [] };
  const from = Float64Array.from(point);
  const plain = nearestMixture(from, bounds, []);
  const sided = run(nearestOnSides(from, bounds, [], plain.weights, limit));
  const cut = run(nearestByTangents({ allowed, tangents: [] }, from, from, [], (found) => found));
  return [Array.from(sided.weights), Array.from(cut.weights)];
}"""


@pytest.fixture
def page(open_page):
    plain = open_page(law_page(what_if_content(made_fit_of_gaussians())))
    plain.evaluate(f"() => {{ {view_script()}; window.both = {BOTH}; }}")
    return plain


@pytest.mark.parametrize("size", [0.05, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_both_ways_find_the_same_mixture(page, size, seed):
    rng = np.random.default_rng(seed)
    middle = rng.dirichlet(np.ones(8))
    point = middle + 0.4 * rng.standard_normal(8)
    high = np.maximum(middle, 0.5)
    sided, cut = np.array(
        page.evaluate(
            "(given) => window.both(given)", [point.tolist(), middle.tolist(), size, high.tolist()]
        )
    )
    assert sided.sum() == pytest.approx(1.0, abs=1e-9)
    assert np.abs(sided - middle).sum() / 2 <= size + 1e-9
    assert np.abs(sided - cut).max() < 1e-5
    assert ((sided - point) ** 2).sum() <= ((cut - point) ** 2).sum() + 1e-6
