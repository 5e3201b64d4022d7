"""The package says one thing everywhere: version, extras, what is in the sdist."""

import re
import subprocess
import tomllib
from importlib.metadata import metadata, version

import pytest
import yaml
from places import PROJECT

import mixopt

DECLARED = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = DECLARED["project"]["optional-dependencies"]


def test_the_version_is_written_in_one_place_and_the_metadata_has_what_an_index_shows():
    assert version("mixopt") == mixopt.__version__
    assert "version" in DECLARED["project"]["dynamic"]
    cited = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(cited["version"]) == mixopt.__version__
    found = metadata("mixopt")
    assert found["Author"] == "mixopt maintainers"
    assert {line.split(",")[0] for line in found.get_all("Project-URL")} >= {"Source", "Issues"}
    pythons = re.findall(r"Python :: (3\.\d+)", "\n".join(found.get_all("Classifier")))
    assert pythons == ["3.11", "3.12", "3.13", "3.14"]


def test_all_brings_what_every_other_extra_brings_and_the_page_on_installing_names_each():
    (extra,) = (line for line in EXTRAS["all"] if line.startswith("mixopt["))
    assert set(re.findall(r"[a-z]+", extra.partition("[")[2])) == set(EXTRAS) - {"all"}
    page = (PROJECT / "docs" / "install.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.M)) == sorted(EXTRAS)


def test_the_sdist_has_every_file_that_git_has():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a checkout of git")
    included = DECLARED["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    written = ("pyproject.toml", ".gitignore")  # hatch adds both
    aside = (".github/", ".pre-commit-config.yaml", ".dockerignore")
    known = (*(name.lstrip("/") for name in included), *written, *aside)
    assert [name for name in listed.stdout.splitlines() if not name.startswith(known)] == []
