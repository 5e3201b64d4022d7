"""`run.plot` draws each figure with the run's own objects, or names the command that is next."""

import re

import numpy as np
import pytest
from made_experts import counted

from mixopt.errors import ConfigError, RunError
from mixopt.proposals import mixture_of
from mixopt.reporting import figure_svg, plot_domain_experts
from mixopt.reporting.run_experts import SweepExperts, shown_trial
from mixopt.routing import ExpertCounts
from mixopt.run_directory import Run, load_run


@pytest.fixture(scope="module")
def run(finished):
    return load_run(finished)


def words(figure):
    return " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", figure_svg(figure)))


def test_all_figures_are_found_by_completion(run):
    found = {name for name in dir(run.plot) if not name.startswith("_")}
    assert found == {
        "mixtures", "cells", "epochs", "design", "held_out", "responses", "validation", "experts",
    }  # fmt: skip
    assert "epochs()" in repr(run.plot)


def test_figures_of_a_run_are_of_its_recommendation_beside_natural_and_the_caps(run):
    figure = run.plot.mixtures()
    drawn = {round(bar.get_width(), 9) for bar in figure.axes[0].patches}
    found = run.recommendation
    assert drawn == {
        round(share, 9) for one in (found.mixture, found.natural) for share in one.values()
    }
    assert "recommended" in words(figure)
    figure = run.plot.epochs()
    (caps,) = [one for one in figure.axes[0].collections if one.get_label() == "maximum allowed"]
    assert {path.vertices[0][0] for path in caps.get_paths()} == {4.0}
    drawn = sorted(round(bar.get_width(), 6) for bar in figure.axes[0].patches)
    assert drawn == sorted(round(passes, 6) for passes in found.epochs.values())
    axes = run.plot.responses().axes[0]
    marks = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert marks == [pytest.approx(found.mixture[axes.get_title(loc="left")])]


def test_without_experts_the_figure_of_them_says_what_has_some(run):
    with pytest.raises(ConfigError, match="no trial recorded experts: .*size: moe-tiny"):
        run.plot.experts()


def test_experts_are_those_of_a_trial_of_the_recommended_mixture(run, monkeypatch):
    names = [*run.trials.table["trial"], *run.validation.trials.table["trial"]]
    counts = {}
    for number, name in enumerate(names):
        layers = [np.full((2, 4), 8) + number * np.eye(2, 4, dtype=int)]
        counts[name] = ExpertCounts(counted(layers), counted(layers))
    found = SweepExperts(run.path, None, counts, shown_trial(run, counts), None)
    monkeypatch.setattr(SweepExperts, "read", lambda *_, **__: found)
    name = next(one for one in names if mixture_of(one) == run.recommendation.chosen)
    expected = plot_domain_experts(counts[name].held_out)
    assert figure_svg(run.plot.experts()) == figure_svg(expected)
    assert figure_svg(run.plot.experts(trial=names[0])) != figure_svg(expected)
    with pytest.raises(ConfigError, match=f"trial '{names[0]}x' recorded no experts; did you"):
        run.plot.experts(trial=f"{names[0]}x")


def test_a_figure_of_a_step_that_is_not_done_says_which_command_does_it(run, copied, tmp_path):
    load_run(copied).log.discard("fit")
    half = load_run(copied)
    for draw, step in (
        (half.plot.mixtures, "propose"),
        (half.plot.held_out, "fit"),
        (half.plot.validation, "validate"),
    ):
        said = rf"'{step}' is not done yet: mixopt run {half.path} --until {step}"
        with pytest.raises(RunError, match=said):
            draw()
    assert half.plot.design().axes
    empty = Run(tmp_path / "none", run.config)
    with pytest.raises(RunError, match="'sweep' is not done yet: mixopt run .* --until sweep"):
        empty.plot.design()
