"""`run.plot` draws each figure with the run's own objects, or names the command that is next."""

import re
import shutil

import numpy as np
import pytest
from made_experts import counted
from made_run import make_run
from places import SUPPORT

from mixopt.errors import ConfigError, RunError
from mixopt.proposals import mixture_of
from mixopt.reporting import figure_svg, plot_domain_experts
from mixopt.routing import ExpertCounts
from mixopt.run_directory import Run, load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SUPPORT))  # where its proxy is
        yield make_run(tmp_path_factory.mktemp("run"), domains=6, trials=18)


def words(figure):
    return " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", figure_svg(figure)))


def rows(figure):
    return [tick.get_text() for tick in figure.axes[0].get_yticklabels()]


def test_all_figures_are_found_by_completion(run):
    found = {name for name in dir(run.plot) if not name.startswith("_")}
    assert found == {
        "mixtures", "epochs", "design", "held_out", "responses", "validation", "experts",
    }  # fmt: skip
    assert "epochs()" in repr(run.plot)


def test_the_mixtures_are_the_recommended_and_the_natural_one(run):
    figure = run.plot.mixtures()
    drawn = {round(bar.get_width(), 9) for bar in figure.axes[0].patches}
    found = run.recommendation
    assert drawn == {
        round(share, 9) for one in (found.mixture, found.natural) for share in one.values()
    }
    assert "recommended" in words(figure)


def test_epochs_have_the_caps_of_the_configuration(run):
    figure = run.plot.epochs()
    (caps,) = [one for one in figure.axes[0].collections if one.get_label() == "maximum allowed"]
    assert {path.vertices[0][0] for path in caps.get_paths()} == {4.0}
    drawn = sorted(round(bar.get_width(), 6) for bar in figure.axes[0].patches)
    assert drawn == sorted(round(passes, 6) for passes in run.recommendation.epochs.values())


def test_responses_go_through_the_recommended_mixture(run):
    axes = run.plot.responses().axes[0]
    marks = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert marks == [pytest.approx(run.recommendation.mixture[axes.get_title(loc="left")])]


def test_a_design_has_a_row_for_each_domain_and_a_dot_for_each_trial(run):
    figure = run.plot.design()
    assert rows(figure) == list(run.trials.domains)
    assert len(np.asarray(figure.axes[0].collections[0].get_offsets())) == len(run.trials)


def test_without_experts_the_figure_of_them_says_what_has_some(run):
    with pytest.raises(ConfigError, match="no trial recorded experts: .*size: moe-tiny"):
        run.plot.experts()


def test_experts_are_those_of_a_trial_of_the_recommended_mixture(run, monkeypatch):
    def of_trial(number):
        counts_DE = np.full((2, 4), 8) + number * np.eye(2, 4, dtype=int)
        return ExpertCounts(counted([counts_DE]), counted([counts_DE]))

    trials = [*run.trials.table["trial"], *run.validation.trials.table["trial"]]
    found = {name: of_trial(number) for number, name in enumerate(trials)}
    monkeypatch.setattr("mixopt.reporting.run_experts._counts_of", lambda _: found)
    name = next(one for one in trials if mixture_of(one) == run.recommendation.chosen)
    expected = plot_domain_experts(found[name].held_out)
    assert figure_svg(run.plot.experts()) == figure_svg(expected)
    assert figure_svg(run.plot.experts(trial=trials[0])) != figure_svg(expected)
    with pytest.raises(ConfigError, match=f"trial '{trials[0]}x' recorded no experts; did you"):
        run.plot.experts(trial=f"{trials[0]}x")


def test_a_figure_of_a_step_that_is_not_done_says_which_command_does_it(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    half = load_run(tmp_path / "run", trust=True)
    half.log.discard("fit")
    half = load_run(tmp_path / "run", trust=True)
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
