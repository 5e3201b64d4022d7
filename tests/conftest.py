"""Real text for the tests: two domains and a target, cut from Python's own library."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import sys
import sysconfig
from pathlib import Path

import pytest
from hypothesis import settings
from places import SUPPORT
from ranks import forked
from s3_server import MemoryStore, s3_server

# No test asks the hub of Hugging Face: where it cannot be reached, each asks for a minute.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Workers import modules of the support by name, as this process does, and find our commands.
for name, place in (("PYTHONPATH", SUPPORT), ("PATH", Path(sys.executable).parent)):
    os.environ[name] = os.pathsep.join(filter(None, [str(place), os.environ.get(name)]))

# A shared core makes any example late now and then; what is slow is found by the benchmarks.
settings.register_profile("mixopt", deadline=None)
settings.load_profile("mixopt")

# A suite that is started in the background inherits an ignored SIGINT, and so would its children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["browser", "ray_nodes", "slurm_cluster", "work_runs"]

LIBRARY = Path(sysconfig.get_paths()["stdlib"])
MODULES = ("argparse", "ast", "calendar", "difflib", "inspect", "pickle", "tarfile", "typing")


# Fixtures that start a cluster or a store, whose tests `make nightly` runs.
SERVERS = {"ray_nodes", "slurm_cluster", "s3"}


def pytest_collection_modifyitems(items):
    """Leave what starts a cluster or a store to `make nightly`."""
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.nightly)


@pytest.fixture(scope="session", autouse=True)
def wide_terminal():
    """Let a line be a message: messages are wrapped to the terminal's width."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "1000")
        yield


def python_sources() -> list[str]:
    """Return pieces of source code of some modules, 2,000 characters each."""
    texts = [(LIBRARY / f"{name}.py").read_text(encoding="utf-8") for name in MODULES]
    return [text[at : at + 2000] for text in texts for at in range(0, len(text), 2000)]


def docstrings() -> list[str]:
    """Return the docstrings of the same modules and of some others."""
    names = (*MODULES, "optparse", "turtle", "statistics", "threading", "random", "datetime")
    trees = [ast.parse((LIBRARY / f"{n}.py").read_text(encoding="utf-8")) for n in names]
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = [ast.get_docstring(n) for tree in trees for n in ast.walk(tree) if isinstance(n, kinds)]
    return [text for text in found if text and len(text) > 120]


def write_jsonl(path: Path, texts: list[str]) -> Path:
    """Write one document a line."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def text_files(tmp_path_factory) -> dict[str, Path]:
    """JSONL files of real text by name: code, prose and, for a target, help."""
    folder = tmp_path_factory.mktemp("text")
    prose = docstrings()
    half = len(prose) // 2
    return {
        "code": write_jsonl(folder / "code.jsonl", python_sources()),
        "prose": write_jsonl(folder / "prose.jsonl", prose[:half]),
        "help": write_jsonl(folder / "help.jsonl", prose[half:]),
    }


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A small corpus of two domains and a target, which no test changes."""
    from mixopt.testing import tiny_corpus

    return tiny_corpus(tmp_path_factory.mktemp("tiny") / "corpus")


@pytest.fixture(scope="session")
def experiment(text_files) -> str:
    """The YAML of an experiment that an n-gram proxy does in seconds."""
    return f"""\
name: tiny
corpus:
  domains:
    code: {{path: {text_files["code"]}}}
    prose: {{path: {text_files["prose"]}}}
evaluation:
  help: {{path: {text_files["help"]}}}
design: {{trials: 8, replicates: 2, max_usage: null}}
proxy:
  name: ngram
  tokens: 20000
  eval_tokens: 4096
sweep: {{workers: 2}}
fit: {{regressors: [linear], folds: 3}}
objective: {{target: help}}
propose: {{samples: 2000, bootstrap: 3}}
validate: {{max_seeds: 3, rounds: 1}}
tracking: {{enabled: false}}
"""


@pytest.fixture
def config_path(experiment, tmp_path) -> Path:
    """The experiment as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(experiment, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def finished(experiment, text_files, tmp_path_factory) -> Path:
    """The directory of a run, not to be changed, whose file is beside it.

    Its law can be drawn in a page; it has a length, limits, and a mixture by hand that breaks one.
    """
    import mixopt

    folder = tmp_path_factory.mktemp("finished")
    text = experiment.replace("[linear]", "[skills]").replace("bootstrap: 3", "bootstrap: 2")
    for name in ("code", "prose"):
        path = f"{{path: {text_files[name]}}}"
        text = text.replace(f"{name}: {path}", f"{name}: {{tokens: 20e9, {path[1:]}")
    text = text.replace("{samples: 2000,", "{target_tokens: 25e9, samples: 2000,")
    hand = "baselines: [natural, uniform, best_trial, {hand: {code: 0.9, prose: 0.1}}]"
    text = text.replace("rounds: 1}", f"rounds: 1, {hand}}}")
    text += "constraints: {bounds: {code: [0, 0.8]}, max_epochs: 4}\n"
    (folder / "tiny.yaml").write_text(text, encoding="utf-8")
    mixopt.run(folder / "tiny.yaml", folder / "run")
    return folder / "run"


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of the run that a test may change, with its configuration beside it."""
    shutil.copy(finished.parent / "tiny.yaml", tmp_path / "tiny.yaml")
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def one_thread():
    """Let torch use one thread, as the ranks do."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def context():
    """Processes that have torch already when they are forked."""
    return forked()


@pytest.fixture(scope="session")
def s3_process(tmp_path_factory):
    """A real S3 API in a process of its own."""
    pytest.importorskip("moto")
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_process, tmp_path, monkeypatch):
    """The S3 API, empty, that this process and its children reach; and a cache of their own."""
    s3_process.forget()
    for name, value in s3_process.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MIXOPT_CACHE", str(tmp_path / "cache"))
    return s3_process


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """The memory file system, empty, and a cache of one's own."""
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("MIXOPT_CACHE", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    files.rm("/", recursive=True) if files.ls("/") else None
    return files


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.nightly)])
def store(request):
    """Objects in this process or, nightly, of the S3 API."""
    found = request.getfixturevalue(request.param)
    return MemoryStore(found) if request.param == "memory" else found


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """A database that MLflow has made, which takes it seconds; for copies."""
    pytest.importorskip("mlflow")
    import warnings

    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with warnings.catch_warnings():
        # MLflow's mappers use a loader that SQLAlchemy 2.1 deprecates.
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")
        MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path
