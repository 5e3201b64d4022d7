"""A designed run for the tests that have it trained by tasks."""

from __future__ import annotations

import pytest
from work_runs import WorkRun, said


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
