"""A running job is given another schedule by its file; all ranks follow from one batch."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from itertools import chain

import pytest
from places import PROJECT
from ranks import free_port

from mixopt import Mixture, MixtureDataset, MixtureLoader, MixtureSampler
from mixopt.loading import schedule_watch
from mixopt.sampling import Schedule, Stage

SIZES = {"web": 500, "code": 500}
WEB, CODE = Mixture({"web": 0.75, "code": 0.25}), Mixture({"web": 0.25, "code": 0.75})
HALF = Mixture.uniform(("web", "code"))
STEPS = 60


def schedule(*parts, batch=8):
    stages = tuple(Stage(mixture, steps=steps) for mixture, steps in parts)
    return Schedule(stages, batch=batch, sequence_length=16)


FIRST = schedule((WEB, 40), (CODE, 20))
OTHER = schedule((WEB, 5), (HALF, 45), (CODE, 10))


def loader_of(file, **options):
    rows = {name: [{"x": k} for k in range(size)] for name, size in SIZES.items()}
    order = MixtureSampler(SIZES, schedule=FIRST, **options)
    return MixtureLoader(MixtureDataset(rows), order, output="numpy", prefetch=2, watch=file)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Look at the file whenever that is due."""
    monkeypatch.setattr(schedule_watch.ScheduleWatch.__init__, "__kwdefaults__", {"seconds": 0.0})


@pytest.fixture
def file(tmp_path):
    FIRST.to_file(tmp_path / "schedule.yaml")
    return tmp_path / "schedule.yaml"


def rows_until(loader, stop, at=None, do=None):
    """Return the rows of the batches before `stop`; something is done when a batch has come."""
    found = []
    for batch in loader:
        offset = [0, SIZES["web"]]
        found.append([offset[d] + r for d, r in zip(batch["domain"], batch["row"], strict=True)])
        if loader.sampler.batch == at:
            do()
        if loader.sampler.batch == stop:
            break
    return found


def expected(changes):
    sampler = MixtureSampler(
        SIZES, WEB, batch_size=8, batches=STEPS, rank=0, world_size=1, schedule=changes
    )
    return list(sampler)


def log_of(loader):
    return [(entry.batch, entry.mixture) for entry in loader.sampler.log]


def test_the_same_file_changes_nothing(file):
    loader = loader_of(file)
    order = loader.sampler.order
    assert rows_until(loader, STEPS) == expected([(40, CODE)])
    assert loader.sampler.order is order


def test_another_file_holds_from_a_batch_and_what_is_past_stays(file):
    loader = loader_of(file)
    rows = rows_until(loader, STEPS, at=12, do=lambda: OTHER.to_file(file))
    # Seen when batch 20 is due, followed 10 batches later.
    assert rows == expected([(30, HALF), (50, CODE)])
    assert log_of(loader) == [(0, WEB), (30, HALF), (50, CODE)]


@pytest.mark.parametrize("stop", [15, 25, 35])
def test_a_job_that_goes_on_looks_again(file, stop):
    loader = loader_of(file)
    rows = rows_until(loader, stop, at=12, do=lambda: OTHER.to_file(file))
    again = loader_of(file)
    again.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    rows += rows_until(again, STEPS)
    start = {15: 30, 25: 40, 35: 30}[stop]
    assert rows == expected([(start, HALF), (50, CODE)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: [", "not valid YAML"),
        (None, "schedule.yaml"),
        (schedule((WEB, 30), (CODE, 30), batch=16), "batch: 16, and the job has 8"),
        (schedule((WEB, 30)), "steps: 30, and the job has 60"),
        (schedule((Mixture({"web": 0.5, "math": 0.5}), 60)), "unknown domain 'math'"),
    ],
)
def test_a_file_that_is_wrong_is_one_warning_and_changes_nothing(file, caplog, text, message):
    def spoil():
        text.to_file(file) if isinstance(text, Schedule) else file.write_text(text or "batch: 8\n")

    loader = loader_of(file)
    with caplog.at_level(logging.WARNING, "mixopt.loading"):
        assert rows_until(loader, STEPS, at=12, do=spoil) == expected([(40, CODE)])
    (said,) = [record.getMessage() for record in caplog.records]
    assert message in said
    assert said.startswith(str(file))
    assert said.endswith("; the schedule is unchanged")


def test_a_file_that_is_away_is_waited_for(tmp_path):
    loader = loader_of(tmp_path / "later.yaml")
    write = lambda: OTHER.to_file(tmp_path / "later.yaml")  # noqa: E731
    assert rows_until(loader, STEPS, at=12, do=write) == expected([(30, HALF), (50, CODE)])


def ranks_of(folder, file, stop, resume=False):
    """Run two gloo ranks until a batch; return their rows, batch by batch."""
    port = str(free_port())
    processes = []
    for rank in range(2):
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_PORT": port}
        environment |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
        job = PROJECT / "tests" / "support" / "watch_job.py"
        asked = [sys.executable, job, folder, file, stop, int(resume)]
        processes.append(subprocess.Popen(list(map(str, asked)), env=environment))
    assert [process.wait(120) for process in processes] == [0, 0]
    parts = [json.loads((folder / f"rows.{rank}").read_text()) for rank in range(2)]
    logs = [(folder / f"log.{rank}").read_text() for rank in range(2)]
    assert logs[0] == logs[1]
    return [list(chain(*batch)) for batch in zip(*parts, strict=True)], json.loads(logs[0])


def test_two_ranks_follow_from_one_batch_also_over_a_checkpoint(file, tmp_path):
    rows, log = ranks_of(tmp_path, file, stop=35)
    assert rows == expected([(30, HALF), (50, CODE)])[:35]
    assert log == [[0, dict(WEB)], [30, dict(HALF)], [50, dict(CODE)]]
    more, log = ranks_of(tmp_path, file, stop=STEPS, resume=True)
    assert rows + more == expected([(30, HALF), (50, CODE)])
    assert [batch for batch, _ in log] == [0, 30, 50]
