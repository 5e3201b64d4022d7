"""A pretraining that ends while a thread writes its checkpoint leaves the one before it whole."""

import os
import signal
from pathlib import Path

import pytest
from pretrain_runs import CONFIG, Job, assert_equal_runs, checkpoints, finished, write_config

from mixopt.pretraining import verify_pretraining
from mixopt.testing import tiny_corpus

pytestmark = [pytest.mark.nightly, pytest.mark.usefixtures("one_thread")]
STEPS, EVERY = 9, 3
RANKS = (1, 2)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    corpus = tiny_corpus(tmp_path_factory.mktemp("corpus"))
    return write_config(
        tmp_path_factory.mktemp("config"),
        corpus=str(corpus.path),
        model={"name": "pretrain_job:Heavy"},
        training={**CONFIG["training"], "steps": STEPS},
        checkpoint={"every": EVERY, "keep": STEPS},
    )


@pytest.fixture(scope="module", params=RANKS)
def whole(request, context, config, tmp_path_factory) -> Job:
    """An undisturbed run."""
    return finished(context, config, tmp_path_factory.mktemp("whole") / "run", request.param)


def states_of(out: Path) -> dict[str, str]:
    return {part.name: part.state for part in verify_pretraining(out)}


def half_written(out: Path, step: int) -> bool:
    """Whether a shard of a checkpoint has begun."""
    parts = (out / "checkpoints" / f".step-{step:08d}.tmp").glob("*.safetensors")
    return any(part.stat().st_size for part in parts)


def test_a_kill_while_the_thread_writes_leaves_the_one_before(context, config, whole, tmp_path):
    out = tmp_path / "run"
    job = Job(context, config, out, whole.ranks)
    job.until_true(lambda: half_written(out, 2 * EVERY))
    job.kill()
    assert (out / "checkpoints" / f".step-{2 * EVERY:08d}.tmp").exists()
    assert [path.name for path in checkpoints(out)] == ["step-00000003"]
    assert set(states_of(out).values()) == {"whole"}
    finished(context, config, out, whole.ranks)
    assert_equal_runs(out, whole.out)
    assert not list(out.rglob("*.tmp"))


def test_sigterm_while_the_thread_writes_leaves_both(context, config, whole, tmp_path):
    out = tmp_path / "run"
    job = Job(context, config, out, whole.ranks)
    job.until_true(lambda: half_written(out, EVERY))
    os.kill(job.processes[-1].pid, signal.SIGTERM)
    assert job.wait() == [0] * whole.ranks, job.error
    assert "checkpoints/step-00000003" in states_of(out)
    assert len(checkpoints(out)) >= 2 or job.batches() == whole.batches()[:EVERY]
    assert set(states_of(out).values()) == {"whole"}
    finished(context, config, out, whole.ranks)
    assert_equal_runs(out, whole.out)
