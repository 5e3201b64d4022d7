"""A drag of a target: searches that continue, and answers that are as near as a search afresh."""

import numpy as np
import pytest
from law_answers import law_page, mixtures
from made_fit import fitted
from made_laws import one_size, pilot_runs
from made_what_if import (
    made_fit_of_gaussians,
    many_domains,
    some_limits,
    what_if_content,
    what_if_page,
)

from mixopt.what_if import law_data, view_script

# Drags from a mixture to a goal in steps that cut searches short; [reached, squared change] of the
# answer at rest, and of a search from the mixture. Some searches that continue are worse here.
DRAGS = """([starts, target, change]) => starts.map((from) => {
  const start = Float64Array.from(from);
  const quantity = quantityOf(model, target);
  const free = new Uint8Array(start.length);
  const ended = (steps, most = Infinity) => {
    let step = steps.next();
    for (let n = 1; !step.done && n < most; n++) step = steps.next();
    return step.value;
  };
  const about = ({ weights, reached }) => [Number(reached), squaredDistance(start)(weights).value];
  const drag = targetDrag(model, start, free, target);
  const now = largest(quantity.values(start));
  for (let part = 1; part < 20; part++) ended(drag.toward(now + (change * part) / 20), 2);
  ended(drag.toward(now + change));
  const rested = about(ended(drag.afresh()));
  const allowed = allowedMixtures(data, law, start, free);
  return [rested, about(ended(reachTarget(law, allowed, start, quantity, now + change)))];
})"""
SLIDE = """async ([name, from, to]) => {
  const slider = document.querySelector(`[data-target="${name}"] input[type=range]`);
  for (let part = 0; part <= 10; part++) {
    slider.value = from + (part / 10) * (to - from);
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise((done) => requestAnimationFrame(done));
  }
}"""
READ = """() => {
  const all = (kind) => [...document.querySelectorAll(`.wi-list [data-${kind}]`)];
  const half = Number(document.querySelector(".what-if").dataset.half);
  return { half, said: document.querySelector(".wi-said").innerText,
    shares: all("domain").map((row) => [row.dataset.domain, Number(row.dataset.share)]),
    thumbs: all("domain").map((row) => Number(row.querySelector("[type=range]").value)),
    losses: Object.fromEntries(
      all("target").map((row) => [row.dataset.target, Number(row.dataset.loss)])) };
}"""
ALONE = """(w) => {
  const [losses, slopes] = [law.predict(w), law.gradient(w)];
  const own = (m) => slopes.slice(m * w.length, (m + 1) * w.length);
  const among = law.targets.map((_, m) => [losses[m], ...own(m)]);
  const alone = law.targets.map((_, m) => [law.only(m).loss(w), ...law.only(m).slope(w)]);
  return [alone, among];
}"""
PAIR = "() => document.querySelector('.what-if').dataset.half > 0"


@pytest.fixture(scope="module")
def fit():
    return made_fit_of_gaussians()


@pytest.fixture
def drags(open_page):
    """A function that drags a target of a law with many near mixtures, from several mixtures."""
    content = many_domains(4, 6, 30)
    content["law"]["model"]["lengths_MD"] /= 10.0
    page = open_page(law_page(content))
    page.evaluate(
        f"""() => {{ {view_script()}
          const data = readWhatIf(document.getElementById("data").textContent);
          const {{ domains, targets }} = data;
          const model = {{ data, law, domains, targets, pieces: data.objective.pieces }};
          window.drags = {DRAGS}; }}"""
    )
    starts_KD = np.random.default_rng(0).dirichlet(np.ones(4), 40)

    def asked(target, change):
        given = [starts_KD.tolist(), target, change]
        return np.array(page.evaluate("(given) => window.drags(given)", given))

    return asked


@pytest.mark.parametrize(("target", "change"), [(-1, -0.05), (0, -0.2), (0, -0.3)])
def test_the_answer_at_rest_is_no_farther_than_that_of_a_search_afresh(drags, target, change):
    rested, afresh = np.moveaxis(drags(target, change), 1, 0)
    assert (rested[:, 0] >= afresh[:, 0]).all()
    both = (rested[:, 0] == 1) & (afresh[:, 0] == 1)
    assert both.sum() > 5
    assert (rested[both, 1] <= afresh[both, 1] * (1 + 2e-6)).all()


@pytest.mark.parametrize("name", ["power", "made_laws:few_units", "made_laws:few_members"])
def test_a_loss_that_is_asked_for_alone_is_the_one_among_all(open_page, name):
    fit = fitted(name, trials=one_size(), folds=3)
    for carried in (fit, fit.with_pilots(pilot_runs(3))):
        law = {"domains": list(fit.domains), "targets": list(fit.targets), **law_data(carried)}
        page = open_page(law_page(law))
        for weights_D in mixtures(3, 20)[-2:].tolist():
            alone, among = np.array(page.evaluate(ALONE, weights_D))
            assert np.abs(alone - among).max() < 1e-12


@pytest.mark.parametrize("target", ["Objective", "code"])
def test_after_a_drag_all_numbers_are_those_of_python(open_page, fit, tmp_path, target):
    path = what_if_page(what_if_content(fit, some_limits()), tmp_path / "page.html")
    page = open_page(path.as_uri())
    page.wait_for_function(PAIR)
    now = page.evaluate(READ)["losses"][target]
    page.evaluate(SLIDE, [target, now, now - 0.05])
    page.wait_for_timeout(600)
    read = page.evaluate(READ)
    assert "Reached" in read["said"]
    shares = dict(read["shares"])
    weights_D = np.array([shares[name] for name in fit.domains])
    found = fit.predict(weights_D[None])
    losses = dict(zip(fit.targets, found.losses_NM[0], strict=True))
    assert read["losses"][target] == pytest.approx(now - 0.05, abs=1e-6)
    assert read["losses"]["Objective"] == pytest.approx(found.objective_N[0], abs=1e-6)
    for name, loss in losses.items():
        assert read["losses"][name] == pytest.approx(loss, abs=1e-6)
    assert read["half"] == pytest.approx((found.objective_high_N - found.objective_N)[0], abs=1e-6)
    assert read["thumbs"] == pytest.approx([share for _, share in read["shares"]], abs=1e-6)
