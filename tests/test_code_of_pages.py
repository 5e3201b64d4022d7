"""The code of some pages and of all trainers' runs; the files and fields that pages name exist."""

import importlib.util
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from doc_pages import work_through
from places import EXPERIMENTS, PROJECT, experiment
from token_writers import write_index, write_shards

from mixopt import Mixture, load_run
from mixopt.config import Config, load_config
from mixopt.errors import ConfigError
from mixopt.pretraining import PretrainConfig

BLOCK = re.compile(r"(?:<!-- needs: (\w+) -->\n)?```python\n(.*?)```", re.DOTALL)
TRAINERS = sorted((PROJECT / "docs" / "trainers").glob("*.md"))
PLACE = re.compile(r"`((?:tests|experiments|examples|mixopt|proxies|regressors)/[\w/.-]+)`")


def blocks_of(page):
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def examples():
    """Each example of a page, after what the page begins with, and the package that it needs."""
    for name, is_setup in (("packing", False), ("plug_in", True), ("streams", False)):
        first, *others = blocks_of(PROJECT / "docs" / f"{name}.md")
        for needs, code in others if is_setup else (first, *others):
            yield pytest.param(first[1] * is_setup + code, needs, id=f"{name}-{needs or 'bare'}")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the corpus and the recommendation of a run."""
    corpus = tmp_path / "runs" / "web" / "corpus"
    mixture = Mixture({"web": 0.5, "code": 0.3, "books": 0.2})
    for k, name in enumerate(mixture):
        tokens = np.random.default_rng(k).integers(0, 64, 160 * 16)
        write_shards(corpus / name / "train", tokens)
    write_index(corpus, mixture)
    mixture.to_file(corpus.parent / "recommendation.yaml")
    monkeypatch.chdir(tmp_path)


def require(*packages):
    for package in packages:
        if package and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is absent: make trainers")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("code", "needs"), list(examples()))
def test_an_example_runs(here, code, needs):
    require(needs)
    exec(compile(code, "page", "exec"), {"__name__": "example"})


@pytest.mark.nightly
@pytest.mark.parametrize("page", TRAINERS, ids=lambda page: page.stem)
def test_the_code_of_the_page_of_a_trainer_runs(page, here):
    blocks = blocks_of(page)
    require(*(needs for needs, _ in blocks))
    code = textwrap.indent("\n".join(code for _, code in blocks), "    ")
    Path("page.py").write_text(f'if __name__ == "__main__":\n{code}', encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "page.py"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
def test_the_tutorial_goes_from_text_to_a_loop_in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = work_through("tutorial")
    proposal = load_run("runs/first").proposal
    assert proposal.epochs["manual"] == pytest.approx(4, abs=0.01)  # as section 3 says
    assert "constraints.max_epochs" in str(proposal.to_json()["binding"])
    assert Path("runs/first/report.html").exists()
    assert Path("blend.json").exists()
    assert sum(names["loader"].realised().values()) == pytest.approx(1, abs=1e-6)


def test_files_that_pages_name_exist():
    pages = [PROJECT / "README.md", *(PROJECT / "docs").rglob("*.md")]
    named = {place for page in pages for place in PLACE.findall(page.read_text(encoding="utf-8"))}
    assert len(named) > 10
    assert [place for place in sorted(named) if not (PROJECT / place).exists()] == []
    named = {name for page in pages for name in re.findall(r"`(test_\w+\.py)`", page.read_text())}
    assert named - {path.name for path in (PROJECT / "tests").rglob("test_*.py")} == set()


surface = experiment("checks", "surface")


def test_the_page_is_that_of_the_models():
    page = (EXPERIMENTS.parent / "docs" / "fields.md").read_text(encoding="utf-8")
    assert page == surface.page(), "run: python experiments/checks/surface.py --write"


@pytest.mark.parametrize(("model", "most"), [(Config, 110), (PretrainConfig, 70)])
def test_every_field_of_an_experiment_and_a_pretraining_has_its_line(model, most):
    found = [(p, name, field) for p, _, fields in surface.sections(model) for name, field in fields]
    assert [(p, name) for p, name, field in found if not field.get("description")] == []
    assert 50 < len(found) <= most


def test_an_error_says_what_the_page_says_of_the_field(config_path):
    fields = next(fields for place, _, fields in surface.sections(Config) if place == "design")
    line = dict(fields)["replicates"]["description"]
    with pytest.raises(ConfigError) as caught:
        load_config(config_path, ["design.replicates=many"])
    assert str(caught.value).endswith(f"got 'many' ({line})")
