"""The what-if in a page and in a notebook: its numbers are Python's, sliders and limits hold."""

import numpy as np
import pytest
from made_fit import fitted, objective, table
from made_what_if import (
    INVENTORY,
    LIMITS,
    NATURAL,
    RECOMMENDED,
    made_fit_of_gaussians,
    many_domains,
    what_if_content,
    what_if_page,
)
from page_checks import cut_off

import mixopt

pytestmark = pytest.mark.nightly

CLOSE = 1e-6
READ = """() => {
  const own = (name, field) => Object.fromEntries([...document.querySelectorAll(`[data-${name}]`)]
    .map((row) => [row.dataset[name], Number(row.dataset[field])]));
  const root = document.querySelector(".what-if");
  const text = (kind) => document.querySelector(kind).innerText;
  return { shares: own("domain", "share"), losses: own("target", "loss"),
    halves: own("target", "half"), value: Number(root.dataset.value),
    half: Number(root.dataset.half), limits: text(".wi-limits"), nearest: text(".wi-nearest"),
    live: text(".wi-live"), top: document.querySelector(".wi-columns").offsetTop };
}"""
SLIDE = """([name, values]) => {
  const slider = document.querySelector(`[data-domain="${name}"] input[type=range]`);
  for (const value of values) {
    slider.value = value;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  }
  slider.dispatchEvent(new Event("change", { bubbles: true }));
}"""
DRAG = """async (share) => {
  const root = document.querySelector(".what-if"), before = root.dataset.frame;
  const slider = root.querySelector("[data-domain] input[type=range]");
  slider.value = share;
  slider.dispatchEvent(new Event("input"));
  while (root.dataset.frame === before) await new Promise((then) => requestAnimationFrame(then));
  return Number(root.dataset.frame);
}"""
# What a notebook has between a widget and its script is here a function that the page calls.
CONNECT = """async ([script, values]) => {
  const state = { ...values }, heard = {};
  let changed = {};
  window.take = (found) => {
    const same = (name) => JSON.stringify(found[name]) === JSON.stringify(state[name]);
    const news = Object.keys(found).filter((name) => !same(name));
    Object.assign(state, found);
    for (const name of news) for (const action of heard[`change:${name}`] ?? []) action();
  };
  const model = {
    get: (name) => state[name],
    set: (name, value) => { state[name] = changed[name] = value; },
    save_changes: async () => {
      const sent = changed;
      changed = {};
      window.take(await window.toPython(sent));
    },
    on: (event, action) => (heard[event] ??= new Set()).add(action),
    off: (event, action) => heard[event]?.delete(action),
  };
  const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const { default: widget } = await import(address);
  window.forget = await widget.render({ model, el: document.getElementById("cell") });
}"""
READY = "() => document.querySelector('.what-if').dataset.half > 0"


def synced(widget):
    """Return what both sides have."""
    return {"_data": widget._data, "weights": widget.weights}


@pytest.fixture(scope="module")
def fit():
    return made_fit_of_gaussians()


@pytest.fixture
def view(open_page, fit, tmp_path):
    """A function that opens the what-if and waits for its intervals."""

    def opened(content=None, **settings):
        content = content or what_if_content(fit)
        page = open_page(what_if_page(content, tmp_path / "page.html"), **settings)
        page.wait_for_function(READY)
        return page

    return opened


def settled(page):
    page.wait_for_timeout(500)
    return page.evaluate(READ)


def slide(page, name, *values):
    page.evaluate(SLIDE, [name, values])
    return settled(page)


def shares(read):
    return np.array([read["shares"][name] for name in ("code", "prose", "law")])


def test_sliders_change_the_numbers_to_those_of_python(view, fit):
    page = view()
    assert cut_off(page) == []
    for name, value in (("code", 0.7), ("law", 0.05), ("prose", 0.0)):
        read = slide(page, name, value)
        found = fit.predict(shares(read)[None])
        assert abs(read["value"] - found.objective_N[0]) < CLOSE
        assert abs(read["half"] - (found.objective_high_N - found.objective_N)[0]) < CLOSE
        for place, target in enumerate(fit.targets):
            half = (found.high_NM - found.losses_NM)[0, place]
            assert abs(read["losses"][target] - found.losses_NM[0, place]) < CLOSE
            assert abs(read["halves"][target] - half) < CLOSE


def test_an_objective_of_right_answers_is_written_in_points_and_its_gains_too(view, fit):
    content = what_if_content(fit)
    content["objective"] |= {"factor": -100.0, "unit": "points", "shares": [0]}
    page = view(content)
    read = slide(page, "code", 0.7)
    value, gain = -100 * read["value"], 100 * (content["values"][0] - read["value"])
    shown = page.locator(".wi-summary").inner_text().replace("\N{MINUS SIGN}", "-")
    assert f"{value:.2f}" in shown
    assert f"\u00b1 {100 * read['half']:.2f} (90%)" in shown
    assert f"gain over natural {gain:+.2f}" in " ".join(shown.split())
    assert "higher is better" in page.locator(".wi-objective").inner_text()
    name, shown = content["targets"][0], page.locator(".wi-target").all_inner_texts()
    (row,) = [" ".join(item.split()) for item in shown if item.split()[0] == name]
    gain = 100 * (fit.predict(np.array([NATURAL])).losses_NM[0, 0] - read["losses"][name])
    value = f"{100 * read['losses'][name]:.1f} \u00b1 {100 * read['halves'][name]:.1f} points"
    assert f"{value} {gain:+.1f}" in row.replace("\N{MINUS SIGN}", "-")


def test_the_others_make_room_in_proportion_but_a_locked_one_stays_and_a_drag_back_is_exact(view):
    page = view()
    now = shares(slide(page, "code", 0.71))
    rest = 0.29 / RECOMMENDED[1:].sum()
    assert now == pytest.approx([0.71, *rest * RECOMMENDED[1:]], abs=1e-12)
    assert shares(slide(page, "code", 1, 0.71)) == pytest.approx(now, abs=1e-12)
    page.get_by_label("Lock prose").check()
    now = shares(slide(page, "code", 0.9))
    assert now == pytest.approx([1 - rest * RECOMMENDED[1], rest * RECOMMENDED[1], 0], abs=1e-12)


def test_a_page_starts_from_known_mixtures_takes_a_percentage_and_copies_weights(view):
    page = view(options={"permissions": ["clipboard-read", "clipboard-write"]})
    page.get_by_role("button", name="Copy weights").click()
    page.get_by_text("Weights copied.").wait_for()
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied == '"code": 0.42\n"prose": 0.25\n"law": 0.33'
    page.get_by_role("button", name="Natural").click()
    assert np.abs(shares(settled(page)) - NATURAL).max() < 1e-12
    page.get_by_label("law, percent").fill("12.5")
    page.get_by_label("law, percent").press("Enter")
    assert shares(settled(page))[2] == pytest.approx(0.125, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "share", "said"),
    [
        ("code", 0.02, "code: share 2.0%, at least 5.0% (constraints.bounds)"),
        ("code", 0.51, "code: epochs 5.10, at most 5.00 (constraints.max_epochs)"),
        ("law", 0.45, "law: epochs 6.75, at most 6.00 (constraints.max_epochs)"),
        ("code", 0.95, "group text: share 5.0%, at least 20.0% (constraints.groups.text)"),
        ("prose", 1.0, "distance from natural: total variation 0.5000, at most 0.3000"),
        ("prose", 0.0, "prose: gain over natural"),
    ],
)
def test_a_broken_limit_is_named_with_its_value(view, fit, name, share, said):
    page = view(what_if_content(fit, LIMITS), size="narrow")
    assert cut_off(page) == []
    assert "No limit is broken" in page.evaluate(READ)["limits"]
    read = slide(page, name, share)
    assert said in read["limits"]
    assert said in read["live"]


def test_beyond_the_trials_intervals_widen_as_python_s_do_and_a_warning_moves_nothing(view):
    rng = np.random.default_rng(8)
    weights_ND = rng.dirichlet(40 * NATURAL, 24)
    losses_NM = 2.0 + np.sqrt(weights_ND) @ rng.random((3, 4)) + 0.02 * rng.standard_normal((24, 4))
    near = fitted(
        "gaussian_process",
        trials=table(weights_ND, losses_NM),
        goal=objective("code", "law", "math"),
    )
    content = what_if_content(near) | {"starts": [["Natural", NATURAL]]}
    page = view(content)
    tops = set()
    for share, is_far in ((0.31, False), (1.0, True)):
        read = slide(page, "code", share)
        found = near.predict(shares(read)[None])
        assert abs(read["half"] - (found.objective_high_N - found.objective_N)[0]) < CLOSE
        warned = ["Extrapolation: " in read[place] for place in ("nearest", "live")]
        assert warned == [is_far, is_far]
        tops.add(read["top"])
    assert len(tops) == 1


def test_hostile_names_are_text_and_data_of_an_unknown_kind_is_not_called(
    view, open_page, fit, tmp_path, page_problems
):
    content = what_if_content(fit)
    content["domains"] = ["</script><img src=x onerror=hit()>", "<b>bold</b>", "__proto__"]
    names = [item.inner_text() for item in view(content).locator(".wi-domain .wi-name").all()]
    assert set(names) == set(content["domains"])
    content["law"]["model"]["kind"] = "constructor"
    open_page(what_if_page(content, tmp_path / "page.html"))
    assert any("unknown kind of law: constructor" in problem for problem in page_problems)
    page_problems.clear()


def test_of_many_domains_those_that_change_most_come_first_and_a_filter_finds_all(view):
    content = many_domains()
    page = view(content)
    moved = np.abs(content["starts"][0][1] - content["natural"])
    order = [content["domains"][place] for place in np.argsort(-moved)]
    assert list(page.evaluate(READ)["shares"]) == order[:12]
    page.get_by_label("Filter domains").fill(order[-1].upper())
    assert list(page.evaluate(READ)["shares"]) == order[-1:]
    page.get_by_label("Filter domains").fill("")
    page.get_by_role("button", name="Show all 20").click()
    assert list(page.evaluate(READ)["shares"]) == order


def test_a_drag_among_sixty_domains_and_targets_takes_less_than_a_frame(view):
    page = view(many_domains(domains=60, targets=60, trials=180))
    page.get_by_role("button", name="Show all 60").click()
    frames = [page.evaluate(DRAG, float(share)) for share in np.linspace(0.01, 0.09, 12)]
    # The least: what other processes take of a core is added to a frame, never taken from it.
    assert min(frames) < 16.0


CELL = '<!doctype html><title>t</title>{style}<body><p class="wi-big">text</p><div id="cell"></div>'
INSIDE = 'document.querySelector("#cell > div").shadowRoot'
WIDGET_SHARES = f"""() => Object.fromEntries([...{INSIDE}.querySelectorAll("[data-domain]")]
  .map((row) => [row.dataset.domain, Number(row.dataset.share)]))"""
INK = f"() => getComputedStyle({INSIDE}.querySelector('.wi-widget')).color"


@pytest.fixture
def widget(fit):
    return mixopt.explore(fit, inventory=INVENTORY, tokens=1e10)


@pytest.fixture
def shown(open_page, widget):
    """A function that shows the widget in a page with some style of its own."""

    def taken(sent):
        for name, value in sent.items():
            setattr(widget, name, value)
        return synced(widget)

    def opened(style="", **settings):
        page = open_page(CELL.format(style=f"<style>{style}</style>"), **settings)
        page.expose_function("toPython", taken)
        page.evaluate(CONNECT, [widget._esm, synced(widget)])
        page.locator("[data-domain]").first.wait_for()
        return page

    return opened


def until(page, true):
    """Wait until something is true of Python."""
    for _ in range(400):
        if true():
            return
        page.wait_for_timeout(50)
    raise AssertionError("not within 20 seconds")


def test_a_slider_changes_the_mixture_in_python_and_one_set_there_moves_the_sliders(shown, widget):
    page, before = shown(), widget.mixture["law"]
    page.evaluate("() => { window.keys = 0; addEventListener('keydown', () => { keys += 1; }); }")
    page.locator("[data-domain=law] input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    until(page, lambda: widget.mixture["law"] > before)
    assert page.evaluate(WIDGET_SHARES)["law"] == pytest.approx(widget.mixture["law"])
    page.keyboard.press("d")
    assert page.evaluate("() => keys") == 0  # none is a command of the notebook
    widget.mixture = mixopt.Mixture({"code": 0.25, "prose": 0.15, "law": 0.6})
    page.evaluate("(found) => take(found)", synced(widget))
    until(page, lambda: page.evaluate(WIDGET_SHARES)["law"] == 0.6)
    page.evaluate("() => forget()")
    assert page.locator(".wi-domain").count() == 0


def test_it_is_light_or_dark_as_what_is_behind_it_and_follows_a_change(shown):
    page = shown("body{background:#fff}body[data-dark]{background:oklch(0.2 0.02 250)}")
    until(page, lambda: page.evaluate(INK) == "rgb(27, 32, 39)")
    page.evaluate("() => document.body.setAttribute('data-dark', '')")
    until(page, lambda: page.evaluate(INK) == "rgb(230, 233, 237)")


def test_in_a_notebook_no_style_comes_in_or_leaves_and_nothing_is_cut(shown):
    page = shown("button{display:none}", size="narrow")
    assert page.get_by_role("button", name="Natural").is_visible()
    weight = page.evaluate("() => getComputedStyle(document.querySelector('p.wi-big')).fontWeight")
    assert weight == "400"
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
