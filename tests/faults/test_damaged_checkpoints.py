"""A file of a checkpoint that is not what was written: the run goes on from the one before it."""

import shutil

import pytest
from pretrain_runs import CONFIG, assert_equal_runs, checkpoints, finished, write_config

from mixopt.testing import tiny_corpus

pytestmark = pytest.mark.usefixtures("one_thread")
ODM = "estimator={name: odm, observe_every: 2, options: {warmup_steps: 2}}"


@pytest.mark.parametrize(("ranks", "parallel"), [(1, "ddp"), (2, "fsdp")])
def test_the_run_goes_on_from_the_checkpoint_before_to_equal_weights(
    ranks, parallel, context, tmp_path
):
    config = write_config(
        tmp_path,
        corpus=str(tiny_corpus(tmp_path / "corpus").path),
        training={**CONFIG["training"], "steps": 9},
        checkpoint={"every": 3},
        parallel=parallel,
    )
    whole = finished(context, config, tmp_path / "whole", ranks, [ODM]).out
    assert [path.name for path in checkpoints(whole)] == ["step-00000006", "step-00000009"]
    out = shutil.copytree(whole, tmp_path / "run")
    shards = sorted(checkpoints(out)[-1].glob("*.safetensors"))
    assert len(shards) == ranks
    content = bytearray(shards[-1].read_bytes())
    content[len(content) // 2] ^= 4
    shards[-1].write_bytes(content)
    resumed = finished(context, config, out, ranks, [ODM])
    assert len(resumed.batches()) == 3
    assert_equal_runs(out, whole)
    assert (out / "checkpoints" / "damaged-step-00000009").is_dir()
