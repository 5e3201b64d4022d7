"""An estimator changes the mixture under real training frameworks, and resume is exact."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from driver_parts import Turning, held_from, lines
from sampler_rows import pairs_of
from torch import nn
from trainer_parts import (
    LENGTH,
    QUIET,
    KilledError,
    Recording,
    Tiny,
    lightning_fit,
    random_rows,
    trainer_arguments,
)

from mixopt import MixtureLoader, MixtureSampler
from mixopt.errors import EstimatorError
from mixopt.online import Driver, DriverOptions

pytestmark = QUIET


@pytest.fixture(scope="module")
def dataset():
    return random_rows()


def driver_over(dataset, log, *, batch_size=8, **options):
    order = MixtureSampler(dataset.sizes, [0.5, 0.3, 0.2], batch_size=batch_size, batches=400)
    loader = MixtureLoader(dataset, order)
    options |= {"steps": 24, "tokens_per_sample": LENGTH, "log": log}
    estimator = Turning(3)
    return Driver(estimator, loader, DriverOptions(**options)), estimator


# --- Hugging Face Trainer -----------------------------------------------------------------------


def hf_trainer(driver, folder, *, steps=18, **options):
    pytest.importorskip("accelerate", reason="the Trainer needs accelerate")
    from mixopt.integrations import OnlineTrainer

    class Recorded(Recording, OnlineTrainer):
        pass

    args = trainer_arguments(folder, max_steps=steps, save_steps=7, **options)
    return Recorded(model=Tiny(), args=args, driver=driver)


def test_a_trainer_with_changing_weights_goes_on_to_the_same_mixtures(dataset, tmp_path):
    whole, estimator = driver_over(dataset, tmp_path / "whole.jsonl")
    undisturbed = hf_trainer(whole, tmp_path / "whole")
    undisturbed.train()
    assert held_from(tmp_path / "whole.jsonl") == [0, 3, 6, 9, 12, 15, 18]
    assert whole.cost.perturbed_steps > 0
    assert estimator.told[0].learning_rate == pytest.approx(5e-5 * 16 / 18)

    log = tmp_path / "again.jsonl"
    first, _ = driver_over(dataset, log)
    killed = hf_trainer(first, tmp_path / "again")
    killed.killed_at = 11
    with pytest.raises(KilledError):
        killed.train()
    again, _ = driver_over(dataset, log)
    trainer = hf_trainer(again, tmp_path / "again")
    trainer.train(resume_from_checkpoint=True)
    assert pairs_of(trainer.seen) == pairs_of(undisturbed.seen[7:])
    assert log.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_trainer_accumulates_over_the_batches_of_a_step(dataset, tmp_path):
    log = tmp_path / "log.jsonl"
    driver, estimator = driver_over(dataset, log, batch_size=4, accumulation=2)
    trainer = hf_trainer(driver, tmp_path / "out", steps=8, gradient_accumulation_steps=2)
    trainer.train()
    assert held_from(log) == [0, 6, 12]
    assert [o.loss_count_D.sum() for o in estimator.told] == [3 * 8 * (LENGTH - 1)] * 2
    assert len(trainer.seen) == 16


def test_a_trainer_that_cannot_be_driven_says_so(dataset, tmp_path):
    driver, _ = driver_over(dataset, None)
    with pytest.raises(EstimatorError, match=r"gradient_accumulation_steps is 4; they must be"):
        hf_trainer(driver, tmp_path, gradient_accumulation_steps=4)
    options = DriverOptions(steps=5, tokens_per_sample=LENGTH)
    bare = Driver(Turning(3), driver.mixture.sampler, options)
    with pytest.raises(EstimatorError, match=r"takes its batches from a Driver\(mixture=loader\)"):
        hf_trainer(bare, tmp_path)
    with pytest.raises(EstimatorError, match=r"returns no logits: override token_losses"):
        hf_trainer(driver, tmp_path).token_losses({"loss": 1.0}, {})


# --- Lightning ----------------------------------------------------------------------------------


def fitted(driver, folder, steps, checkpoint=None):
    pytest.importorskip("lightning", reason="lightning is absent")
    from mixopt.integrations.lightning import OnlineCallback

    def loss(model, batch):
        tokens = batch["input_ids"]
        logits = model(tokens, tokens)["logits"][:, :-1].transpose(1, 2)
        losses = nn.functional.cross_entropy(logits, tokens[:, 1:], reduction="none")
        driver.record(losses, batch["domain"])
        return losses.mean()

    options = {"checkpoint": checkpoint, "callbacks": [OnlineCallback(driver)]}
    return pairs_of(lightning_fit(driver.mixture, folder, steps, loss, **options))


def test_lightning_goes_on_to_the_same_mixtures(dataset, tmp_path):
    driver, estimator = driver_over(dataset, tmp_path / "whole.jsonl")
    whole = fitted(driver, tmp_path, 18)
    assert held_from(tmp_path / "whole.jsonl") == [0, 3, 6, 9, 12, 15, 18]
    assert estimator.told[0].learning_rate == 0.1
    log = tmp_path / "again.jsonl"
    first = fitted(driver_over(dataset, log)[0], tmp_path, 8)
    rest = fitted(driver_over(dataset, log)[0], tmp_path, 18, str(tmp_path / "8.ckpt"))
    assert [*first, *rest] == whole
    assert log.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_lightning_with_several_optimizers_is_refused(dataset):
    pytest.importorskip("lightning", reason="lightning is absent")
    from mixopt.integrations.lightning import OnlineCallback

    trainer = SimpleNamespace(optimizers=[None, None])
    with pytest.raises(EstimatorError, match="the module has 2 optimizers, but Lightning counts"):
        OnlineCallback(driver_over(dataset, None)[0]).on_train_start(trainer)


def test_a_trainers_losses_are_those_of_the_tokens_that_follow(dataset, tmp_path):
    trainer = hf_trainer(driver_over(dataset, None)[0], tmp_path)
    tokens = torch.arange(24).reshape(2, 12)
    labels = tokens.masked_fill(tokens % 5 == 0, -100)
    logits = Tiny()(tokens, tokens)["logits"]
    losses, mask = trainer.token_losses({"logits": logits}, {"labels": labels})
    expected = nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none"
    )
    assert (mask == (tokens[:, 1:] % 5 != 0)).all()
    torch.testing.assert_close(losses[mask], expected[mask])


@pytest.mark.nightly
def test_a_killed_trainer_of_two_ranks_goes_on_to_the_mixtures_and_rows_of_one_process(tmp_path):
    pytest.importorskip("accelerate", reason="the Trainer needs accelerate")
    import trainer_job as job

    whole, ranks = tmp_path / "whole", tmp_path / "ranks"
    job.trainer_over(whole, 1).train()

    def launch(killed_at):
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command = [*launcher, "--nproc-per-node", "2", job.__file__, str(ranks), str(killed_at)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, check=False, env=environment, capture_output=True, timeout=120
        )

    assert launch(15).returncode != 0
    before = [rows_of(ranks / f"rows.{rank}") for rank in range(2)]
    assert len(before[0]) >= 15
    again = launch(job.STEPS + 1)
    assert again.returncode == 0, again.stderr.decode()[-2000:]
    after = [rows_of(ranks / f"rows.{rank}") for rank in range(2)]
    alone = rows_of(whole / "rows.0")
    assert len({str(line["weights"]) for line in lines(whole / "log.jsonl")}) > 3
    assert (ranks / "log.jsonl").read_bytes() == (whole / "log.jsonl").read_bytes()
    for parts, batches in ((before, range(15)), (after, range(job.STEPS))):
        assert all(parts[0][batch] + parts[1][batch] == alone[batch] for batch in batches)


def rows_of(file):
    """Rows by batch; of a batch that was taken twice, those of the last time."""
    return dict(lines(file))
