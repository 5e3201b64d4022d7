"""The package says one thing everywhere: version, extras, what is in the sdist."""

import re
import subprocess
import tomllib
from importlib.metadata import metadata, version
from pathlib import Path

import pytest
import yaml

import mixopt

HOUSE = Path(__file__).parents[1]
PROJECT = tomllib.loads((HOUSE / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_is_written_in_one_place():
    assert version("mixopt") == mixopt.__version__
    assert "version" in PROJECT["project"]["dynamic"]
    cited = yaml.safe_load((HOUSE / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(cited["version"]) == mixopt.__version__


def test_all_brings_what_every_other_extra_brings():
    extras = PROJECT["project"]["optional-dependencies"]
    (own,) = (line for line in extras["all"] if line.startswith("mixopt["))
    assert set(re.findall(r"[a-z]+", own.partition("[")[2])) == set(extras) - {"all"}


def test_the_page_on_installing_names_every_extra():
    page = (HOUSE / "docs" / "install.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", page, re.M)
    assert sorted(rows) == sorted(PROJECT["project"]["optional-dependencies"])


def test_the_metadata_has_what_an_index_shows():
    found = metadata("mixopt")
    assert found["Author"] == "mixopt maintainers"
    assert {line.split(",")[0] for line in found.get_all("Project-URL")} >= {"Source", "Issues"}
    pythons = {
        line.rpartition(" ")[2] for line in found.get_all("Classifier") if "Python :: 3." in line
    }
    assert pythons == {"3.11", "3.12", "3.13", "3.14"}


def test_the_sdist_has_every_file_that_git_has():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=HOUSE, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a checkout of git")
    included = tuple(
        name.lstrip("/")
        for name in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    )
    written = {"pyproject.toml", ".gitignore"}  # hatch adds both
    aside = (".github/", ".pre-commit-config.yaml", ".dockerignore")
    left = [
        name
        for name in listed.stdout.splitlines()
        if not name.startswith(included) and name not in written and not name.startswith(aside)
    ]
    assert left == []
