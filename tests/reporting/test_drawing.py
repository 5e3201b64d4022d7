"""matplotlib is imported where the working directory has no say."""

import os
import subprocess
import sys

import pytest

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
