"""Real text for the tests: two domains and a target, cut from Python's own library."""

import ast
import json
import os
import shutil
import signal
import sys
import sysconfig
import warnings
from pathlib import Path

import pytest
import yaml
from fault_runs import EXPERIMENT
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

MODULES = ("argparse", "ast", "calendar", "difflib", "inspect", "pickle", "tarfile", "typing")
WORDY = ("optparse", "turtle", "statistics", "threading", "random", "datetime")

# Fixtures that start a cluster or a store, whose tests `make nightly` runs.
SERVERS = {"ray_nodes", "slurm_cluster", "s3"}


def pytest_collection_modifyitems(items):
    """Mark tests that start a cluster or a store as nightly."""
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.nightly)


@pytest.fixture(scope="session", autouse=True)
def wide_terminal():
    """Widen the terminal, so that no message is wrapped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "1000")
        yield


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def text_files(tmp_path_factory) -> dict[str, Path]:
    """JSONL files of real text by name: code, prose and, for a target, help."""
    folder, library = tmp_path_factory.mktemp("text"), Path(sysconfig.get_paths()["stdlib"])
    sources = [(library / f"{name}.py").read_text(encoding="utf-8") for name in MODULES + WORDY]
    code = [
        text[k : k + 2000] for text in sources[: len(MODULES)] for k in range(0, len(text), 2000)
    ]
    nodes = [node for text in sources for node in ast.walk(ast.parse(text))]
    documented = [n for n in nodes if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef))]
    prose = [text for text in map(ast.get_docstring, documented) if text and len(text) > 120]
    half = len(prose) // 2
    texts = {"code": code, "prose": prose[:half], "help": prose[half:]}
    return {
        name: write_jsonl(folder / f"{name}.jsonl", documents) for name, documents in texts.items()
    }


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A small corpus of two domains and a target, which no test changes."""
    from mixopt.testing import tiny_corpus

    return tiny_corpus(tmp_path_factory.mktemp("tiny") / "corpus")


@pytest.fixture(scope="session")
def experiment(text_files) -> str:
    return EXPERIMENT.format(folder=text_files["code"].parent)


@pytest.fixture
def config_path(experiment, tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(experiment, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def finished(experiment, tmp_path_factory) -> Path:
    """The directory of a finished run, not to be changed, with its configuration beside it.

    Its law can be drawn in a page; it has a length, limits, and a mixture by hand that breaks one.
    """
    import mixopt

    folder, config = tmp_path_factory.mktemp("finished"), yaml.safe_load(experiment)
    for domain in config["corpus"]["domains"].values():
        domain["tokens"] = 20_000_000_000
    config["fit"]["regressors"] = ["skills"]
    config["propose"] |= {"target_tokens": 25_000_000_000, "bootstrap": 2}
    hand = {"hand": {"code": 0.9, "prose": 0.1}}
    config["validate"]["baselines"] = ["natural", "uniform", "best_trial", hand]
    config["constraints"] = {"bounds": {"code": [0, 0.8]}, "max_epochs": 4}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
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
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def context():
    return forked()


@pytest.fixture(scope="session")
def s3_process(tmp_path_factory):
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
    files = request.getfixturevalue(request.param)
    return MemoryStore(files) if request.param == "memory" else files


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """A database that MLflow has made, which takes it seconds; for copies."""
    mlflow = pytest.importorskip("mlflow")

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with warnings.catch_warnings():
        # MLflow's mappers use a loader that SQLAlchemy 2.1 deprecates.
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")
        mlflow.MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path
