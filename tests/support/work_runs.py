"""A designed run of a small sweep, and owners that have it trained anywhere."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest
import yaml
from fault_runs import command, quick_config, variables

from mixopt import pipeline
from mixopt.mixture import Mixture
from mixopt.sweeps import Job, Training
from mixopt.trials import Trial


class WorkRun:
    """A run in `folder` on `texts`, with the notes of its faulty proxy, which has the options."""

    def __init__(
        self, folder, texts, proxy=None, trials=6, executor="local", choices=None, **options
    ):
        folder.mkdir(exist_ok=True)
        self.path, self.config, self.log = folder / "run", folder / "work.yaml", folder / "log"
        self._given, self._started = (texts, proxy, trials), []
        faulty = {"name": "faulty_proxy:Faulty", "tokens": 4000}
        content = quick_config(texts) | {
            "design": {"trials": trials, "replicates": 0, "anchors": [], "max_usage": None},
            "proxy": proxy or faulty | {"options": {"log": str(self.log), **options}},
            "sweep": {"workers": 2, "executor": executor, "options": choices or {}},
        }
        del content["tasks"]
        self.config.write_text(yaml.safe_dump(content))

    def design(self):
        """Prepare the corpus, and choose the mixtures."""
        pipeline.run(self.config, self.path, until="design")
        return self

    def copy(self, folder, **options):
        """Return a run of the same design, on another executor or whose proxy has other options."""
        other = WorkRun(folder, *self._given, **options)
        shutil.copytree(self.path, other.path)
        return other.design()

    def owner(self, *more, **environment):
        words = command("sweep", self.config, "--out", self.path, *more)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self._started.append(subprocess.Popen(words, env=variables(environment), **pipes))
        return self._started[-1]

    def end(self):
        for process in self._started:
            process.kill()
            process.communicate()

    def table(self):
        """Return the table of trials, without what clocks say."""
        table = pl.read_parquet(self.path / "trials.parquet")
        return table.drop("seconds").to_dict(as_series=False)

    def notes(self, what):
        """Return the trials with this note, in order."""
        return [name for group in noted(self.log, what) for name in group.split(",")]

    def wait_until(self, holds):
        until = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < until, "timed out"
            time.sleep(0.05)

    def wait_for(self, what, count=1):
        """Wait until so many trials have this note."""
        self.wait_until(lambda: len(self.notes(what)) >= count)


def trials_named(*names):
    """Return trials whose shares of code go up from 0."""
    shares = [place / len(names) for place in range(len(names))]
    return [
        Trial(name, Mixture({"code": share, "manual": 1 - share}), seed)
        for seed, (name, share) in enumerate(zip(names, shares, strict=True))
    ]


def faulty_job(folder, corpus, **options):
    """Return a job of the faulty proxy, which notes in a folder what it does."""
    options = {"log": str(folder / "trained.log"), **options}
    return Job("faulty_proxy:Faulty", options, corpus, Training(1000, device="cpu"))


def noted(log, what):
    """Return the groups of which the faulty proxy has noted something, in order."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split()[2] for line in lines if line.startswith(f"{what} ")]


def output_of(process, code=0):
    """Wait for a process, check its exit code, and return what it printed."""
    text = process.communicate(timeout=400)[0]
    assert code is None or process.returncode == code, text
    return text


@pytest.fixture(scope="session")
def short_texts(text_files, tmp_path_factory) -> Path:
    """A folder with 50 documents of each file, and a task made of some of them."""
    folder = tmp_path_factory.mktemp("texts")
    for name, path in text_files.items():
        lines = path.read_text().splitlines(keepends=True)[:50]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    texts = [json.loads(line)["text"] for line in lines]  # of help
    items = [
        {"id": number, "context": text[:80], "continuation": text[80:120] or text}
        for number, text in enumerate(texts)
    ]
    (folder / "words.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


@pytest.fixture(scope="session")
def designed(short_texts, tmp_path_factory):
    return WorkRun(tmp_path_factory.mktemp("designed"), short_texts).design()


@pytest.fixture
def work_run(designed, tmp_path):
    """Make a copy of the designed run, whose proxy has some options."""
    copies = []

    def make(**options):
        copies.append(designed.copy(tmp_path, **options))
        return copies[-1]

    yield make
    for run in copies:
        run.end()


@pytest.fixture(scope="session")
def local_table(designed, tmp_path_factory):
    """The table of a sweep on this machine."""
    run = designed.copy(tmp_path_factory.mktemp("local"))
    output_of(run.owner())
    return run.table()
