"""A fit without an exact law is emulated in the page, which states the largest errors."""

import re

import numpy as np
import pytest
from made_fit import fitted, make_trials
from made_what_if import NATURAL, what_if_content, what_if_page
from refusals import refuses

from mixopt.errors import PluginError
from mixopt.fitting import predict_with_std
from mixopt.reporting import packed_json
from mixopt.reporting.emulator import SEVERAL, Emulator, Sliders
from mixopt.reporting.what_if import exact_law, page_law

STARTS_SD = np.array([[0.42, 0.25, 0.33], [0.3, 0.5, 0.2]])
SLIDERS = Sliders(STARTS_SD, NATURAL, np.zeros(3, dtype=int))
HALF = 0.5  # by which the largest error at other mixtures may differ


def emulated(fit):
    return Emulator.of(lambda weights_KD: predict_with_std(fit.regressor, weights_KD), SLIDERS)


def wavy(weights_KD):
    """Losses that an interpolant misses by some percent, with deviations."""
    wave_K = np.sin(90 * weights_KD[:, 0]) * np.cos(70 * weights_KD[:, 1])
    return wave_K[:, None] + 2.0, 0.1 + 0.05 * wave_K[:, None] ** 2


def test_a_moved_share_is_made_up_for_by_the_others_of_its_phase_in_proportion():
    weights_1D = np.array([[0.1, 0.2, 0.3, 0.2, 0.2]])
    sliders = Sliders(weights_1D, weights_1D[0], np.array([0, 0, 0, 1, 1]))
    moved_D = sliders.moved(weights_1D, np.array([0]), np.array([0.35]))[0]
    assert np.allclose(moved_D, [0.35, 0.1, 0.15, 0.2, 0.2])
    full_D = sliders.moved(weights_1D, np.array([3]), np.array([0.9]))[0]
    assert np.allclose(full_D, [0.1, 0.2, 0.3, 0.4, 0.0])
    back_D = sliders.moved(full_D[None], np.array([3]), np.array([0.1]))[0]
    assert np.allclose(back_D, [0.1, 0.2, 0.3, 0.1, 0.3])


def test_a_domain_that_is_alone_in_its_phase_cannot_move():
    weights_1D = np.array([[0.4, 0.3, 0.3]])
    sliders = Sliders(weights_1D, weights_1D[0], np.array([0, 1, 1]))
    assert np.allclose(sliders.moved(weights_1D, np.array([0]), np.array([0.9])), weights_1D)


@pytest.mark.parametrize("moves", [1, SEVERAL])
def test_held_out_mixtures_are_mixtures(moves):
    weights_KD = SLIDERS.walks(np.full(200, moves), np.random.default_rng(0))
    assert (weights_KD >= 0).all()
    assert np.allclose(weights_KD.sum(axis=1), 1.0)


@pytest.mark.parametrize("name", ["linear", "own_share", "log_linear", "odd_regressors:Plain"])
def test_three_domains_are_emulated_within_two_percent(name):
    errors = emulated(fitted(name)).errors
    assert max(max(pair) for pair in errors.values()) < 0.02


def test_the_errors_that_are_printed_are_those_at_other_mixtures():
    emulator = Emulator.of(wavy, SLIDERS)
    for moves, printed in emulator.errors.items():
        weights_KD = SLIDERS.walks(np.full(500, moves), np.random.default_rng(99))
        losses_KM, stds_KM = wavy(weights_KD)
        emulated_KM, emulated_stds_KM = emulator.predict(weights_KD)
        spread_M = np.maximum(losses_KM.std(axis=0), np.median(stds_KM, axis=0))
        of_losses = (np.abs(emulated_KM - losses_KM) / spread_M).max()
        of_stds = np.abs(emulated_stds_KM / stds_KM - 1).max()
        assert printed.losses > 0.001
        assert printed.losses == pytest.approx(of_losses, rel=HALF)
        assert printed.stds == pytest.approx(of_stds, rel=HALF)


@pytest.mark.parametrize("name", ["odd_regressors:Plain", "odd_regressors:OfItsOwnKind"])
def test_a_regressor_with_predict_alone_has_a_what_if_that_states_its_errors(name):
    fit = fitted(name)
    content = what_if_content(fit)
    assert content["law"]["model"]["kind"] == "emulated"
    errors = emulated(fit).errors
    shown = [float(share) for share in re.findall(r"losses <?([\d.]+)%", content["note"])]
    assert shown == pytest.approx([100 * pair.losses for pair in errors.values()], abs=0.1)


def test_an_exact_law_needs_no_note():
    fit = fitted("gaussian_process")
    law, note = page_law(fit, SLIDERS)
    assert law.keys() == exact_law(fit).keys()
    assert note is None


def test_a_fit_of_steps_is_left_out_with_its_error():
    fit = fitted(
        "lightgbm", trials=make_trials(lambda weights_ND: 3.0 + (weights_ND[:, [0] * 4] > 0.4))
    )
    hint = r"regressor 'lightgbm', and emulated losses are off by up to \d+% of their spread"
    refuses(PluginError, hint, page_law, fit, SLIDERS)


def test_predictions_that_are_not_finite_are_refused():
    def broken(weights_KD):
        return np.log(weights_KD[:, :1] - 0.1), np.ones((len(weights_KD), 1))

    with np.errstate(invalid="ignore", divide="ignore"):
        refuses(PluginError, "not finite", Emulator.of, broken, SLIDERS)


def test_sixty_four_domains_and_twenty_losses_leave_room_in_a_page_of_a_megabyte():
    rng = np.random.default_rng(0)
    starts_SD = rng.dirichlet(np.ones(64), 3)
    loads_DM = rng.random((64, 20))

    def predict(weights_KD):
        losses_KM = np.exp(-weights_KD @ loads_DM)
        return losses_KM, 0.1 * losses_KM

    sliders = Sliders(starts_SD, starts_SD[0], np.zeros(64, dtype=int))
    law = Emulator.of(predict, sliders).plain_law()
    assert len(packed_json(law)) < 700_000


@pytest.mark.nightly
def test_a_browser_emulates_as_python_does_and_shows_the_errors(open_page, tmp_path):
    fit = fitted("log_linear")
    content = what_if_content(fit)
    emulator = emulated(fit)
    page = open_page(what_if_page(content, tmp_path / "page.html"))
    assert content["note"] in page.locator(".wi-note").inner_text()
    weights_KD = SLIDERS.walks(np.full(40, 3), np.random.default_rng(3))
    answer = """(mixtures) => {
      const data = readWhatIf(document.getElementById("data").textContent);
      const law = makeLaw(data);
      return mixtures.map((w) => [Array.from(law.predict(w)), Array.from(law.stds(w))]);
    }"""
    losses_KM, stds_KM = emulator.predict(weights_KD)
    found = np.array(page.evaluate(answer, weights_KD.tolist()))
    assert np.abs(found[:, 0] - losses_KM).max() < 1e-6
    assert np.abs(found[:, 1] - stds_KM).max() < 1e-6
    means_KM, _ = predict_with_std(fit.regressor, weights_KD)
    spread_M = means_KM.std(axis=0)
    assert (np.abs(found[:, 0] - means_KM) / spread_M).max() < 0.02
