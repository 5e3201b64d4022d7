"""The what-if in a browser: what its sliders, limits, drawings and link do."""

import numpy as np
import pytest
from made_what_if import (
    NATURAL,
    RECOMMENDED,
    made_fit_of_gaussians,
    many_domains,
    no_limits,
    some_limits,
    what_if_content,
    what_if_page,
)

CLOSE = 1e-6
READ = """() => {
  const own = (name, field) => [...document.querySelectorAll(`.wi-list [data-${name}]`)]
    .map((row) => [row.dataset[name], Number(row.dataset[field])]);
  const root = document.querySelector(".what-if");
  const text = (kind) => document.querySelector(kind).innerText;
  return { shares: own("domain", "share"), losses: own("target", "loss"),
    halves: own("target", "half"), value: Number(root.dataset.value),
    half: Number(root.dataset.half), limits: text(".wi-limits"), note: text(".wi-note"),
    said: text(".wi-said"), live: text(".wi-live") };
}"""
SLIDE = """([kind, name, value]) => {
  const slider = document.querySelector(`[data-${kind}="${name}"] input[type=range]`);
  slider.value = value;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  slider.dispatchEvent(new Event("change", { bubbles: true }));
}"""
PAIR = "() => document.querySelector('.what-if').dataset.half > 0"


@pytest.fixture(scope="module")
def fit():
    return made_fit_of_gaussians()


@pytest.fixture
def view(open_page, fit, tmp_path):
    """A function that opens the what-if and waits for its intervals."""

    def opened(limits=None, fragment="", **settings):
        path = what_if_page(what_if_content(fit, limits), tmp_path / "page.html")
        page = open_page(path.as_uri() + fragment, **settings)
        page.wait_for_function(PAIR)
        return page

    return opened


def settled(page):
    page.wait_for_timeout(500)
    return page.evaluate(READ)


def slide(page, name, value, kind="domain"):
    page.evaluate(SLIDE, [kind, name, value])
    return settled(page)


def ask(page, name, value):
    return slide(page, name, value, "target")


def shares(read):
    return np.array([dict(read["shares"])[name] for name in ("code", "prose", "law")])


def test_sliders_change_the_numbers_to_those_of_python(view, fit):
    page = view()
    for name, value in (("code", 0.7), ("law", 0.05), ("prose", 0.0)):
        read = slide(page, name, value)
        found = fit.predict(shares(read)[None])
        columns = [fit.targets.index(name) for name, _ in read["losses"][1:]]
        losses = np.array([loss for _, loss in read["losses"]])
        halves = np.array([half for _, half in read["halves"]])
        assert abs(read["value"] - found.objective_N[0]) < CLOSE
        assert abs(losses[0] - found.objective_N[0]) < CLOSE
        assert np.abs(losses[1:] - found.losses_NM[0, columns]).max() < CLOSE
        assert abs(read["half"] - (found.objective_high_N - found.objective_N)[0]) < CLOSE
        assert np.abs(halves[1:] - (found.high_NM - found.losses_NM)[0, columns]).max() < CLOSE


def test_the_others_make_room_in_proportion(view):
    now = shares(slide(view(), "code", 0.71))
    assert now.sum() == pytest.approx(1.0, abs=1e-12)
    assert now[0] == pytest.approx(0.71, abs=1e-12)
    assert now[1] / now[2] == pytest.approx(RECOMMENDED[1] / RECOMMENDED[2], rel=1e-9)


def test_a_locked_domain_stays(view):
    page = view()
    page.get_by_label("Lock prose").check()
    now = shares(slide(page, "code", 0.9))
    assert now[1] == RECOMMENDED[1]
    assert now[0] == pytest.approx(1.0 - RECOMMENDED[1], abs=1e-12)
    assert now.sum() == pytest.approx(1.0, abs=1e-12)


def test_a_drag_there_and_back_changes_nothing(view):
    page = view()
    both = """() => {
      const slider = document.querySelector("[data-domain=code] input[type=range]");
      for (const value of [1, 0.42]) {
        slider.value = value;
        slider.dispatchEvent(new Event("input", { bubbles: true }));
      }
    }"""
    page.evaluate(both)
    assert np.abs(shares(settled(page)) - RECOMMENDED).max() < 1e-12


def test_buttons_start_from_known_mixtures_and_trials(view, fit):
    page = view()
    page.get_by_role("button", name="Natural").click()
    assert np.abs(shares(settled(page)) - NATURAL).max() < 1e-12
    page.get_by_label("Trial").select_option("t003")
    read = settled(page)
    assert np.abs(shares(read) - fit.data.weights_ND[3]).max() < 1e-12
    assert "t003, total variation 0.000" in page.locator(".wi-nearest").inner_text()


def test_a_typed_percentage_counts(view):
    page = view()
    field = page.get_by_label("law, percent")
    field.fill("12.5")
    field.press("Enter")
    assert shares(settled(page))[2] == pytest.approx(0.125, abs=1e-12)


@pytest.mark.parametrize("target", ["Objective", "code", "math"])
def test_a_target_is_reached_by_the_smallest_change(view, fit, target):
    page = view(some_limits())
    goal = dict(page.evaluate(READ)["losses"])[target] - 0.05
    read = ask(page, target, goal)
    reached = dict(read["losses"])[target]
    assert reached == pytest.approx(goal, abs=1e-6)
    assert "Reached" in read["said"]
    assert "All" in read["limits"]
    moved = ((shares(read) - RECOMMENDED) ** 2).sum()
    assert moved <= nearest_of_many(fit, target, goal) + 1e-6


def nearest_of_many(fit, target, goal):
    """Return the least squared change among random mixtures that reach the goal and keep limits."""
    rng = np.random.default_rng(0)
    near = RECOMMENDED + 0.1 * rng.standard_normal((200_000, 3))
    weights_ND = near[(near >= 0).all(axis=1)] / near[(near >= 0).all(axis=1)].sum(1, keepdims=True)
    limits = some_limits()
    kept = (weights_ND >= limits["low"]).all(axis=1) & (weights_ND <= limits["high"]).all(axis=1)
    kept &= np.abs(weights_ND - NATURAL).sum(axis=1) / 2 <= 0.3
    weights_ND = weights_ND[kept]
    found = fit.predict(weights_ND)
    objective = target == "Objective"
    loss_N = found.objective_N if objective else found.losses_NM[:, fit.targets.index(target)]
    reach = weights_ND[loss_N <= goal]
    assert len(reach) > 100
    return ((reach - RECOMMENDED) ** 2).sum(axis=1).min()


def test_a_loss_out_of_reach_gives_the_best_there_is(view, fit):
    page = view(some_limits())
    low = float(page.locator("[data-target=code] input[type=range]").get_attribute("min"))
    read = ask(page, "code", low)
    assert "Not reachable" in read["said"]
    best = dict(read["losses"])["code"]
    limits = some_limits()
    drawn = np.random.default_rng(1).dirichlet(np.ones(3), 20_000)
    kept = (drawn >= limits["low"]).all(axis=1) & (drawn <= limits["high"]).all(axis=1)
    kept &= np.abs(drawn - NATURAL).sum(axis=1) / 2 <= 0.3
    assert best <= fit.predict(drawn[kept]).losses_NM[:, 0].min() + 1e-4
    assert "All" in read["limits"]


def test_a_target_leaves_locked_domains_where_they_are(view):
    page = view()
    page.get_by_label("Lock law").check()
    goal = dict(page.evaluate(READ)["losses"])["math"] - 0.05
    read = ask(page, "math", goal)
    assert shares(read)[2] == pytest.approx(RECOMMENDED[2], abs=1e-9)
    assert dict(read["losses"])["math"] == pytest.approx(goal, abs=1e-6)


def test_broken_limits_are_named_with_value_and_bound(view):
    page = view(some_limits())
    assert page.evaluate(READ)["limits"] == "All 7 limits are satisfied."
    read = slide(page, "law", 0.9)
    for line in (
        "law: epochs 9.00, at most 4.00 (constraints.max_epochs)",
        "group text: share",
        "at most 80.0% (constraints.groups.text)",
        "distance from natural: total variation 0.7000, at most 0.3000 (constraints.radius)",
    ):
        assert line in read["limits"]
    assert "limits are broken" in read["limits"]
    assert "Broken: law: epochs 9.00" in read["live"]
    assert "wi-broken" in page.locator("[data-domain=law]").get_attribute("class")
    read = slide(page, "prose", 1.0)
    assert "code: share 0.0%, at least 5.0% (constraints.bounds)" in read["limits"]
    read = slide(page, "prose", 0.0)
    assert "prose: worse than natural" in read["limits"]


def test_the_address_keeps_the_state(view, open_page):
    page = view(some_limits())
    page.get_by_label("Lock prose").check()
    before = slide(page, "code", 0.61)
    page.get_by_label("Colour").select_option("math")
    page.wait_for_timeout(400)
    address = page.evaluate("() => location.href")
    again = open_page(address)
    again.wait_for_function(PAIR)
    after = again.evaluate(READ)
    assert np.abs(shares(after) - shares(before)).max() < 1e-8
    assert again.get_by_label("Lock prose").is_checked()
    assert again.get_by_label("Colour").input_value() == "3"


def test_a_copied_link_opens_the_mixture_that_was_asked_for(view, open_page):
    page = view(some_limits(), options={"permissions": ["clipboard-read", "clipboard-write"]})
    goal = dict(page.evaluate(READ)["losses"])["math"] - 0.05
    before = ask(page, "math", goal)
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Link copied.").wait_for()
    again = open_page(page.evaluate("() => navigator.clipboard.readText()"))
    again.wait_for_function(PAIR)
    after = again.evaluate(READ)
    assert np.abs(shares(after) - shares(before)).max() < 1e-8
    assert dict(after["losses"])["math"] == pytest.approx(goal, abs=1e-6)
    assert f"This mixture was asked for: math at {goal:.4f}." in after["said"]


@pytest.mark.parametrize(
    ("fragment", "why"),
    [
        ("#what-if?of=other&w=1", "other domains"),
        ("#what-if?%%%", "other domains"),
        ("#what-if?of=HASH&w=0.5,0.5", "add up to 1"),
        ("#what-if?of=HASH&w=0.5,0.5,x", "add up to 1"),
        ("#what-if?of=HASH&w=0.9,0.9,0.9&lock=99", "add up to 1"),
    ],
)
def test_an_unreadable_address_is_ignored_with_a_line(view, fragment, why):
    if "HASH" in fragment:
        address = "() => location.hash"
        page = view()
        slide(page, "code", 0.5)
        known = page.evaluate(address).split("of=")[1].split("&")[0]
        fragment = fragment.replace("HASH", known)
    read = view(fragment=fragment).evaluate(READ)
    assert np.abs(shares(read) - RECOMMENDED).max() < 1e-12
    assert why in read["note"]


def test_an_address_of_the_page_is_no_state(view):
    assert view(fragment="#validation").evaluate(READ)["note"] == ""


def test_arrows_move_a_slider_and_the_ternary(view):
    page = view()
    page.locator("[data-domain=code] input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    moved = shares(settled(page))
    assert moved[0] > RECOMMENDED[0]
    page.locator(".wi-ternary").focus()
    top = page.get_by_label("Top").input_value()
    page.keyboard.press("ArrowUp")
    after = shares(settled(page))
    assert after[int(top[1:])] > moved[int(top[1:])]
    assert after.sum() == pytest.approx(1.0, abs=1e-12)


def test_the_point_of_the_ternary_is_dragged(view):
    page = view()
    drawing = page.locator(".wi-edge")
    drawing.scroll_into_view_if_needed()
    box = drawing.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 0.9 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 3, box["y"] + box["height"] - 2)
    page.mouse.up()
    left = page.get_by_label("Left").input_value()
    assert shares(settled(page))[int(left[1:])] > 0.95


def test_points_of_the_front_are_best_and_can_be_chosen(view, fit):
    page = view(some_limits())
    page.locator(".wi-trade").scroll_into_view_if_needed()
    points = page.locator(".wi-front circle")
    points.first.wait_for()
    pair = [
        int(page.get_by_label(name).input_value()) for name in ("Horizontal axis", "Vertical axis")
    ]
    drawn = np.random.default_rng(2).dirichlet(np.ones(3), 20_000)
    limits = some_limits()
    kept = (drawn >= limits["low"]).all(axis=1) & (drawn <= limits["high"]).all(axis=1)
    kept &= np.abs(drawn - NATURAL).sum(axis=1) / 2 <= 0.3
    others = fit.predict(drawn[kept]).losses_NM[:, pair]
    for place in range(points.count()):
        points.nth(place).press("Enter")
        read = settled(page)
        assert "All" in read["limits"]
        own = np.array([dict(read["losses"])[fit.targets[t]] for t in pair])
        assert not (others < own - 1e-3).all(axis=1).any()


def test_everything_is_reached_by_keyboard_and_has_a_name(view):
    page = view(some_limits())
    nameless = page.evaluate("""() => [...document.querySelectorAll(
      ".what-if input, .what-if select, .what-if button, .what-if svg[tabindex]")]
      .filter((one) => !(one.labels && one.labels.length) && !one.getAttribute("aria-label")
        && !one.textContent.trim()).map((one) => one.outerHTML)""")
    assert nameless == []
    assert page.get_by_role("slider", name="code", exact=True).count() == 2  # a domain and a target
    assert "Objective" in settled(page)["live"] or slide(page, "code", 0.5)["live"]


def test_the_weights_are_copied(view):
    page = view(options={"permissions": ["clipboard-read", "clipboard-write"]})
    page.get_by_role("button", name="Copy weights").click()
    page.get_by_text("Weights copied.").wait_for()
    assert '"code": 0.42\n"prose": 0.25\n"law": 0.33' in page.evaluate(
        "() => navigator.clipboard.readText()"
    )


@pytest.mark.parametrize("size", ["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut(view, size, scheme):
    page = view(some_limits(), size=size, scheme=scheme)
    slide(page, "law", 0.9)
    wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0
    beyond = page.evaluate("""() => [...document.querySelectorAll(".what-if *")]
      .filter((one) => !one.closest("svg") && one.getBoundingClientRect().right > innerWidth + 1)
      .map((one) => one.className)""")
    assert beyond == []


def test_names_of_a_run_never_become_markup(open_page, fit, tmp_path):
    content = what_if_content(fit, no_limits())
    attack = "</script><img src=x onerror=alert(1)>"
    content["domains"] = [attack, "prose", "law"]
    content["targets"] = [attack, "prose", "law", "math"]
    content["trials"]["names"][0] = attack
    page = open_page(what_if_page(content, tmp_path / "page.html"))
    page.wait_for_function(PAIR)
    assert page.locator("img").count() == 0
    assert page.get_by_label(f"Lock {attack}").count() == 1


def test_two_domains_have_sliders_and_a_trade_off_but_no_triangle(open_page, tmp_path):
    page = open_page(what_if_page(many_domains(2, 3, 12), tmp_path / "page.html"))
    page.wait_for_function(PAIR)
    before = settled(page)
    after = slide(page, "source00", 0.25)
    assert dict(after["shares"]) == pytest.approx({"source00": 0.25, "source01": 0.75})
    assert after["losses"] != before["losses"]
    assert page.get_by_label("Ternary slice").count() == 0
    assert page.locator(".wi-dots circle").count() == 12


@pytest.mark.parametrize("size", ["wide", "narrow"])
def test_the_interval_of_the_trade_off_ends_at_its_frame_with_an_arrow(open_page, tmp_path, size):
    content = many_domains(2, 3, 12)
    content["law"]["intervals"]["factors"] = np.full(3, 1e3)
    page = open_page(what_if_page(content, tmp_path / "page.html"), size=size)
    page.wait_for_function(PAIR)
    drawn = [page.locator(kind) for kind in (".wi-interval", ".wi-axes path >> nth=0")]
    drawn[0].scroll_into_view_if_needed()  # what is out of sight is not drawn
    for one in drawn:
        one.wait_for()
    bar, frame = (one.bounding_box() for one in drawn)
    assert frame["x"] - 6 <= bar["x"]
    assert bar["x"] + bar["width"] <= frame["x"] + frame["width"] + 6
    assert frame["y"] - 6 <= bar["y"]
    assert bar["y"] + bar["height"] <= frame["y"] + frame["height"] + 6
    assert page.locator(".wi-interval").get_attribute("d").count("L") == 4 + 4 * 2
