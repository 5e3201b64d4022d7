"""What is light stays light: start-up loads nothing that the work at hand does not need."""

import subprocess
import sys

import pytest

HEAVY = "torch polars sklearn lightgbm mlflow pydantic datasets scipy matplotlib numpy yaml typer"


def loaded_after(code: str) -> set[str]:
    script = f"{code}; import sys; print(*[m for m in {HEAVY.split()} if m in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(ended.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("code", "packages"),
    [
        ("import mixopt", set()),
        ("import mixopt; mixopt.Mixture({'web': 1.0})", {"numpy", "yaml"}),
        ("import mixopt; mixopt.Proposal", {"numpy", "yaml"}),
        ("import mixopt.routing", set()),
    ],
)
def test_what_is_light_loads_what_it_needs_alone(code, packages):
    assert loaded_after(code) <= packages


def test_exporting_a_mixture_needs_no_more():
    code = (
        "from mixopt import Mixture\n"
        "from mixopt.integrations import EXPORT_TOOLS, export_mixture\n"
        "known = dict(inventory={'web': 9}, sample_tokens=3)\n"
        "for tool in EXPORT_TOOLS:\n"
        "    export_mixture(Mixture({'web': 1.0}), tool, tokens=9, **known)\n"
        "print()"
    )
    assert loaded_after(f"exec({code!r})") == {"numpy", "yaml"}


def test_experts_are_counted_without_what_tables_and_figures_need():
    heavy = loaded_after("import mixopt.routing; mixopt.routing.RouterStats")
    assert not heavy & {"polars", "matplotlib", "scipy", "datasets", "pydantic"}


def test_counting_experts_without_torch_says_what_to_install():
    code = (
        "import sys; sys.modules['torch'] = None\nimport mixopt.routing\nmixopt.routing.RouterStats"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    message = "RoutingError: mixopt.routing.RouterStats needs torch: pip install 'mixopt[all]'"
    assert message in ended.stderr


def test_the_help_of_the_command_line_loads_typer_alone():
    code = (
        "import contextlib, io\nfrom mixopt.cli.main import app\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    app(['--help'])\nprint()"
    )
    assert loaded_after(f"exec({code!r})") == {"typer"}


def test_every_public_name_can_be_loaded():
    code = "import mixopt; [getattr(mixopt, name) for name in mixopt.__all__]"
    subprocess.run([sys.executable, "-c", code], check=True)
