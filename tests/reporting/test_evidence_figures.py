"""Figures of evidence show what was predicted, observed and validated."""

import re
from dataclasses import replace

import numpy as np
import pytest
from made_fit import DOMAINS, TARGETS, fitted, linear_law, make_trials, with_objective
from made_validation import made_validation

from mixopt.errors import ConfigError
from mixopt.fitting import OBJECTIVE
from mixopt.mixture import Mixture
from mixopt.proposals import named
from mixopt.reporting import figure_svg, plot_held_out, plot_responses, plot_validation
from mixopt.reporting.figures import along_domain, near_trials

AT = Mixture({"code": 0.5, "prose": 0.3, "law": 0.2})


@pytest.fixture(scope="module")
def fit():
    return fitted("linear")


def line(axes, label):
    (found,) = [item for item in axes.lines if item.get_label() == label]
    return np.array(found.get_xdata()), np.array(found.get_ydata())


def words(figure):
    return " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", figure_svg(figure)))


def test_along_a_slice_the_others_keep_their_proportions_and_no_wide_interval_sets_the_axis():
    weights_KD = along_domain(AT.array, 0, np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(weights_KD, [[0, 0.6, 0.4], [0.5, 0.3, 0.2], [1, 0, 0]])
    alone_KD = along_domain(np.array([1.0, 0.0, 0.0]), 0, np.array([0.4]))
    np.testing.assert_allclose(alone_KD, [[0.4, 0.3, 0.3]])
    observed_N = np.array([2.0, 2.5, 3.0])
    assert near_trials(observed_N, (-40_000.0, 40_000.0)) == (1.0, 4.0)
    assert near_trials(observed_N, (1.9, 3.1)) == (1.9, 3.1)


def test_a_response_is_the_prediction_with_its_interval_and_every_trial_where_observed(fit):
    figure = plot_responses(fit, AT)
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == list(DOMAINS)
    shares_K, middle_K = line(figure.axes[1], "predicted")
    assert shares_K.max() == pytest.approx(1.05 * fit.trials.weights()[:, 1].max())
    found = fit.predict(along_domain(AT.array, 1, shares_K))
    np.testing.assert_allclose(middle_K, found.objective_N)
    band = figure.axes[1].collections[1].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(found.objective_low_N.min())
    assert band[:, 1].max() == pytest.approx(found.objective_high_N.max())
    dots = np.asarray(plot_responses(fit, AT, target="math").axes[0].collections[0].get_offsets())
    np.testing.assert_allclose(dots[:, 0], fit.trials.weights()[:, 0])
    np.testing.assert_allclose(dots[:, 1], fit.data.losses_NM[:, TARGETS.index("math")])
    with pytest.raises(ConfigError, match="unknown domain 'cod'; did you mean 'code'"):
        plot_responses(fit, AT, domains=["cod"])
    with pytest.raises(ConfigError, match="unknown evaluation domain 'maths'; did you mean 'math'"):
        plot_responses(fit, AT, target="maths")


def test_held_out_predictions_share_one_scale_with_the_noise_of_replicates(fit):
    figure = plot_held_out(fit)
    axes = figure.axes[0]
    assert axes.get_xlim() == axes.get_ylim()
    dots = np.asarray(axes.collections[-1].get_offsets())
    rest_N = fit.data.observed_N - fit.objective.value(fit.errors.predicted_NM)
    np.testing.assert_allclose(dots[:, 1] - dots[:, 0], rest_N)
    (noise,) = fit.report.filter(kind="ceiling", target="(objective)")["rmse"]
    assert f"{1.645 * noise:.3g}" in words(figure)
    band = axes.collections[0].get_paths()[0].vertices
    height = np.ptp(band[band[:, 0] == axes.get_xlim()[0], 1])
    assert height == pytest.approx(2 * 1.645 * noise)


def test_a_fit_s_own_figures_are_drawn_around_the_best_of_its_trials(fit):
    best = int(np.argmin(fit.predict(fit.trials.weights()).objective_N))
    (dashed,) = {item.get_xdata()[0] for item in fit.plot.responses().axes[0].lines[1:]}
    assert dashed == pytest.approx(fit.trials.weights()[best, 0])
    assert "responses()" in repr(fit.plot)
    title = fit.plot.held_out(target="math").axes[0].get_ylabel()
    assert title == "observed loss on math, bits per byte"
    assert "observed objective, bits per byte" in words(fit.plot.held_out())
    (axes,) = fit.trials.plot.design(dict.fromkeys(DOMAINS, 1 / 3)).axes
    assert len(axes.collections[0].get_offsets()) == len(DOMAINS) * len(fit.trials)


VALUES = {"proposal": [1.0, 1.1, 1.05], "natural": [1.2, 1.3, 1.26], "uniform": [1.0, 1.2, 1.0]}


def test_seeds_are_dots_in_the_row_of_their_mixture_beside_its_gain_with_an_interval():
    validation = made_validation(VALUES)
    left, right = plot_validation(validation).axes
    dots = [np.asarray(collection.get_offsets()) for collection in left.collections]
    seeds = [sorted(item[:, 0].round(6).tolist()) for item in dots]
    assert seeds == [sorted(v) for v in VALUES.values()]
    assert [item[0, 1] for item in dots] == [0, 1, 2]
    texts = [(text.get_text(), round(text.get_position()[1], 2)) for text in left.texts]
    assert texts == [("1.0500", -0.34), ("1.2533", 0.66), ("1.0667", 1.66)]
    means = [line for line in right.lines if len(line.get_ydata()) == 1]
    places = [(line.get_ydata()[0], line.get_xdata()[0]) for line in means]
    assert places == [
        (row, gain.mean) for row, gain in enumerate(validation.differences.values(), 1)
    ]
    assert left.get_ylim() == right.get_ylim()


def test_a_validation_of_right_answers_is_drawn_in_points_the_higher_the_better():
    validation = made_validation({"proposal": [0.5, 0.52], "natural": [0.4, 0.46]})
    higher = replace(validation.objective, higher=("help",), items={"help": 100})
    left, right = plot_validation(replace(validation, objective=higher)).axes
    assert sorted(np.asarray(left.collections[0].get_offsets())[:, 0]) == pytest.approx([50, 52])
    assert [text.get_text() for text in left.texts] == ["51.00", "43.00"]
    assert right.lines[1].get_xdata()[0] == pytest.approx(8.0)
    assert (left.get_xlabel(), right.get_xlabel()) == ("points", "points; above 0 is better")


def test_right_answers_are_predicted_and_observed_in_points():
    fit = fitted("linear", trials=make_trials(lambda weights_ND: linear_law(weights_ND) / 5))
    goal = replace(fit.objective, kind="target", weights={"math": 1.0}, higher=("math",))
    turned = with_objective(fit, replace(goal, items={"math": 50}))
    for target, title in (("math", "math, points"), (None, "objective, points")):
        axes = plot_responses(turned, AT, target=target).axes[0]
        dots = np.asarray(axes.collections[0].get_offsets())
        np.testing.assert_allclose(dots[:, 1], 100 * fit.data.losses_NM[:, TARGETS.index("math")])
        assert axes.figure.get_supylabel() == title
    rmse = turned.report.filter(predictor=turned.name, target=OBJECTIVE)["rmse"].item()
    assert repr(turned).endswith(f"RMSE {100 * rmse:.2f} points)")
    assert f"held-out folds {100 * rmse:.2f} (" in turned.summary()
    _, middle_K = line(axes, "predicted")
    weights_KD = along_domain(AT.array, 0, line(axes, "predicted")[0])
    np.testing.assert_allclose(middle_K, 100 * turned.predict(weights_KD).objective_N)


def colours(validation, chosen):
    left, _ = plot_validation(validation, chosen).axes
    rows = zip(left.get_yticklabels(), left.collections, strict=True)
    return {name.get_text(): tuple(dots.get_facecolor()[0]) for name, dots in rows}


def test_a_mixture_has_one_colour_in_all_figures_of_a_run_whatever_is_beside_it():
    values = {**VALUES, "ours": [1.1, 1.1, 1.1], "proposal_2": [0.9, 0.9, 0.9]}
    validation = made_validation(values)
    fewer = made_validation({name: values[name] for name in ("proposal", "natural")})
    many, few = colours(validation, "proposal_2"), colours(fewer, "proposal")
    assert [many[named(name, values)] for name in ("proposal", "natural")] == list(few.values())
    assert len(set(many.values())) == len(values)
