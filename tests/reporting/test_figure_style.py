"""Figures differ in grey, become equal SVG, and no file of the working directory is read."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from mixopt.reporting import figure_svg, plot_mixtures
from mixopt.reporting.figure_style import FURTHER, LOOKS

ALL = tuple(one.colour for one in (*LOOKS.values(), *FURTHER))
NATURAL = {"web": 0.7, "code": 0.3}
PROPOSAL = {"web": 0.1, "code": 0.9}
# Deuteranopia in linear RGB, by Vienot, Brettel and Mollon (1999).
DEUTERANOPIA = np.array(
    [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]
)
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour):
    channels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """Return a colour of linear RGB in CIELAB: lightness, and two axes of hue."""
    xyz = np.clip(TO_XYZ @ rgb, 0, None) / (TO_XYZ @ np.ones(3))
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def in_grey(colour):
    return float(lab(linear(colour))[0])


def test_all_colours_differ_to_those_without_green_receptors():
    seen = [lab(DEUTERANOPIA @ linear(colour)) for colour in ALL]
    apart = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
    assert min(apart) > 8  # 2.3 is just noticed


def test_colours_that_are_alike_in_grey_have_other_markers_and_hatches():
    looks = [*LOOKS.values(), *FURTHER]
    assert len({one.marker for one in looks}) == len({one.hatch for one in looks}) == len(ALL)
    for one, other in itertools.combinations(looks, 2):
        alike = abs(in_grey(one[0]) - in_grey(other[0])) < 12
        assert not alike or (one[1] != other[1] and one[2] != other[2])


def test_the_scale_of_loads_falls_in_lightness_all_the_way():
    from mixopt.reporting.expert_plots import LOADS

    light = [in_grey("#" + "".join(f"{round(255 * c):02x}" for c in LOADS(x)[:3])) for x in STEPS]
    assert (np.diff(light) < 0).all()


STEPS = np.linspace(0, 1, 21)


def test_equal_figures_give_equal_svg():
    first, second = (figure_svg(plot_mixtures(PROPOSAL, NATURAL)) for _ in range(2))
    assert first == second


ASK = (
    "import os; from mixopt.reporting.figure_style import matplotlib;"
    "print(matplotlib.rcParams['text.usetex'], os.getcwd())"
)


@pytest.mark.parametrize("content", ["text.usetex: True\n", "\0", None])
def test_settings_in_the_working_directory_do_not_count(tmp_path, content):
    settings = tmp_path / "matplotlibrc"
    if content is None:
        os.mkfifo(settings)
    else:
        settings.write_text(content)
    answer = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert answer.stdout == f"False {tmp_path}\n", answer.stderr
