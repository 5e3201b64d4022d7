"""A small corpus, and a designed run for the tests that have it trained elsewhere."""

from __future__ import annotations

import pytest
from work_runs import WorkRun, said

from mixopt.config import CorpusConfig
from mixopt.corpus import prepare_corpus

__all__ = ["designed", "local_table", "small_corpus", "work_run"]


@pytest.fixture(scope="session")
def small_corpus(text_files, tmp_path_factory):
    """A prepared corpus of two domains."""
    path = tmp_path_factory.mktemp("small") / "corpus"
    domains = {name: {"path": str(text_files[name])} for name in ("code", "prose")}
    config = CorpusConfig.model_validate({"domains": domains})
    prepare_corpus(config, {}, path, fingerprint="test", seed=0, min_tokens=2)
    return path


@pytest.fixture(scope="session")
def designed(text_files, tmp_path_factory):
    """A designed run, and the table that a sweep on this machine gives."""
    folder = tmp_path_factory.mktemp("designed")
    lines = {n: path.read_text().splitlines(keepends=True)[:50] for n, path in text_files.items()}
    texts = {name: folder / f"{name}.jsonl" for name in lines}
    for name, path in texts.items():
        path.write_text("".join(lines[name]))
    run = WorkRun(folder, texts)
    run.design()
    return run


@pytest.fixture
def work_run(designed, tmp_path):
    """Make a copy of the designed run, whose proxy has some options."""
    made = []

    def make(**options) -> WorkRun:
        made.append(designed.copy(tmp_path, **options))
        return made[-1]

    yield make
    for run in made:
        run.end()


@pytest.fixture(scope="session")
def local_table(designed, tmp_path_factory):
    """What a sweep on this machine comes to."""
    run = designed.copy(tmp_path_factory.mktemp("local"), executor="local")
    said(run.owner())
    return run.table()
