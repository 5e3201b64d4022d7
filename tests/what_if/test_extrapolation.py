"""Beyond the trials the page's intervals widen as Python's do, and it warns as `predict` does."""

import numpy as np
import pytest
from made_fit import fitted, objective, table
from made_what_if import NATURAL, what_if_content, what_if_page

from mixopt.mixture import Mixture
from mixopt.proposals.proposal_warnings import prediction_warnings

NEAR, FAR = 0.31, 1.0  # shares of code; natural is 0.3
SLIDE = """(value) => {
  const slider = document.querySelector("[data-domain=code] input[type=range]");
  slider.value = value;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  slider.dispatchEvent(new Event("change", { bubbles: true }));
}"""
READ = """() => {
  const line = document.querySelector(".wi-nearest");
  const rows = [...document.querySelectorAll(".wi-list [data-domain]")];
  const probe = document.createElement("i");
  probe.style.color = "var(--bad)";
  line.append(probe);
  const found = {
    half: Number(document.querySelector(".what-if").dataset.half),
    shares: Object.fromEntries(rows.map((row) => [row.dataset.domain, Number(row.dataset.share)])),
    top: document.querySelector(".wi-columns").getBoundingClientRect().top + scrollY,
    said: line.innerText, live: document.querySelector(".wi-live").innerText,
    isWarning: getComputedStyle(line).color === getComputedStyle(probe).color,
  };
  probe.remove();
  return found;
}"""


@pytest.fixture(scope="module")
def fit():
    """A fit of trials near the natural mixture, whose deviations do not tell where it is off."""
    rng = np.random.default_rng(8)
    weights_ND = rng.dirichlet(40 * NATURAL, 24)
    losses_NM = 2.0 + np.sqrt(weights_ND) @ rng.random((3, 4)) + 0.02 * rng.standard_normal((24, 4))
    found = fitted(
        "linear", trials=table(weights_ND, losses_NM), asked=objective("code", "law", "math")
    )
    halves_N = found.objective_calibration().halves(found.objective.spread(found.held_out_stds()))
    assert np.ptp(halves_N) == 0
    return found


@pytest.fixture
def opened(open_page, fit, tmp_path):
    """A function that opens the page, and gives one that slides code to a share and reads."""

    def at(size):
        content = what_if_content(fit) | {"proposal": NATURAL, "recommended": None}
        page = open_page(what_if_page(content, tmp_path / "page.html"), size)
        page.wait_for_function("() => document.querySelector('.what-if').dataset.half > 0")
        return lambda share: slide(page, share)

    return at


def slide(page, share):
    page.evaluate(SLIDE, share)
    page.wait_for_timeout(500)
    return page.evaluate(READ)


@pytest.fixture
def slid(opened):
    return opened("wide")


@pytest.mark.parametrize("size", ["wide", "narrow"])
def test_the_warning_moves_nothing_below_it(opened, size):
    slid = opened(size)
    assert slid(NEAR)["top"] == slid(FAR)["top"]


def mixture(read) -> Mixture:
    return Mixture(read["shares"])


def test_one_width_among_the_trials_widens_beyond_them(slid, fit):
    widths = []
    for share in (NEAR, 0.7, FAR):
        read = slid(share)
        found = fit.predict(mixture(read))
        widths.append(read["half"])
        assert abs(read["half"] - (found.objective_high_N - found.objective_N)[0]) < 1e-6
    assert widths[0] < widths[1] < widths[2]
    assert widths[2] > 3 * widths[0]


@pytest.mark.parametrize(("share", "is_far"), [(NEAR, False), (FAR, True)])
def test_the_page_warns_of_an_extrapolation_where_python_does(slid, fit, share, is_far):
    read = slid(share)
    warnings = prediction_warnings(fit, mixture(read))
    assert any("is an extrapolation" in line for line in warnings) == is_far
    assert ("Extrapolation: " in read["said"]) == is_far
    assert ("Extrapolation: " in read["live"]) == is_far
    assert read["isWarning"] == is_far


def test_the_warning_has_the_numbers_of_python(slid, fit):
    read = slid(FAR)
    line = next(w for w in prediction_warnings(fit, mixture(read)) if "extrapolation" in w)
    numbers = [word.strip("():") for word in line.split() if "0." in word]
    assert len(numbers) == 2
    assert f"{numbers[0]} (total variation) from the nearest trial" in read["said"]
    assert f"its nearest neighbour ({numbers[1]})" in read["said"]
