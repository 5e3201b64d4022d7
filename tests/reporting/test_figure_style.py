"""Equal figures become equal SVG, and no file of the working directory is read."""

import os
import subprocess
import sys

import pytest

from mixopt.reporting import figure_svg, plot_mixtures

NATURAL = {"web": 0.7, "code": 0.3}
PROPOSAL = {"web": 0.1, "code": 0.9}


def test_equal_figures_give_equal_svg():
    first, second = (figure_svg(plot_mixtures(PROPOSAL, NATURAL)) for _ in range(2))
    assert first == second


ASK = (
    "import os; from mixopt.reporting.figure_style import matplotlib;"
    "print(matplotlib.rcParams['text.usetex'], os.getcwd())"
)


@pytest.mark.parametrize("content", ["text.usetex: True\n", None])
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
