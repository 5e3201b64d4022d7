"""What is light stays light: start-up loads nothing that the work at hand does not need."""

import subprocess
import sys

import pytest

HEAVY = "torch polars sklearn lightgbm mlflow pydantic datasets scipy matplotlib numpy yaml typer"
EXPORT = """
from mixopt import Mixture
from mixopt.integrations import EXPORT_TOOLS, export_mixture
known = dict(inventory={'web': 9}, sample_tokens=3)
for tool in EXPORT_TOOLS:
    export_mixture(Mixture({'web': 1.0}), tool, tokens=9, **known)
"""
LOAD = """
from mixopt import MixtureDataset, MixtureLoader, MixtureSampler
rows = MixtureDataset({'a': [{'n': 1}] * 4})
order = MixtureSampler(rows.sizes, [1.0], batch_size=4)
next(iter(MixtureLoader(rows, order, output='numpy')))
"""
HELP = """
import contextlib, io
from mixopt.cli.main import app
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    app(['--help'])
"""


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def loaded_after(code):
    ended = python(f"{code}\nimport sys; print(*[m for m in {HEAVY.split()} if m in sys.modules])")
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("code", "packages"),
    [
        ("import mixopt", set()),
        ("import mixopt; mixopt.Mixture({'web': 1.0})", {"numpy", "yaml"}),
        ("import mixopt; mixopt.Proposal", {"numpy", "yaml"}),
        ("import mixopt.routing", set()),
        pytest.param(EXPORT, {"numpy", "yaml"}, id="export"),
        pytest.param(LOAD, {"numpy", "yaml"}, id="load"),
        pytest.param(HELP, {"typer"}, id="help"),
    ],
)
def test_what_is_light_loads_what_it_needs_alone(code, packages):
    assert loaded_after(code) == packages


def test_experts_are_counted_without_what_tables_and_figures_need():
    heavy = loaded_after("import mixopt.routing; mixopt.routing.RouterStats")
    assert not heavy & {"polars", "matplotlib", "scipy", "datasets", "pydantic"}


def test_counting_experts_without_torch_says_what_to_install():
    ended = python(
        "import sys; sys.modules['torch'] = None; import mixopt.routing as r; r.RouterStats"
    )
    message = "RoutingError: mixopt.routing.RouterStats needs torch: pip install 'mixopt[all]'"
    assert message in ended.stderr


def test_every_public_name_can_be_loaded():
    ended = python("import mixopt; [getattr(mixopt, name) for name in mixopt.__all__]")
    assert ended.returncode == 0, ended.stderr
