"""Real training frameworks on a mixture and with an estimator: swaps and resume are exact."""

import csv
import os
import subprocess
import sys
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from driver_parts import Turning, held_from, lines
from sampler_rows import pairs_in_order, pairs_of
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

from mixopt import MixtureLoader, MixtureSampler, SamplerError
from mixopt.errors import EstimatorError
from mixopt.integrations import MixtureState
from mixopt.integrations.hf_trainer import STATE_FILE, read_state
from mixopt.online import Driver, DriverOptions
from mixopt.system import write_sealed

pytest.importorskip("accelerate", reason="the Trainer needs accelerate")
pytestmark = QUIET

WEIGHTS = [0.5, 0.3, 0.2]
OTHER = [0.0, 0.1, 0.9]


@pytest.fixture(scope="module")
def dataset():
    return random_rows()


def loader(dataset, *, workers=0, **options):
    sampler = MixtureSampler(dataset.sizes, WEIGHTS, batch_size=8, **options)
    return MixtureLoader(dataset, sampler, workers=workers)


def expected(dataset, batches, *changes):
    known = loader(dataset).sampler
    for batch, weights in changes:
        known.set_weights(weights, batch=batch)
    return pairs_in_order(known, batches)


def hf_trainer(dataset, folder, *, workers=0, swap_at=None, steps=24):
    from transformers import TrainerCallback

    from mixopt.integrations import MixtureTrainer

    mixture, held = loader(dataset, workers=workers), []

    class Recorded(Recording, MixtureTrainer):
        pass

    class Swap(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == swap_at:
                held.append(mixture.set_weights(OTHER))

    how = {"save_steps": 12, "logging_strategy": "steps", "logging_steps": 7}
    args = trainer_arguments(folder, max_steps=steps, **how)
    return Recorded(model=Tiny(), args=args, mixture=mixture, callbacks=[Swap()]), held


def test_the_hf_trainer_swaps_in_a_callback_and_resumes_exactly(dataset, tmp_path):
    first, held = hf_trainer(dataset, tmp_path, workers=2, swap_at=10, steps=14)
    first.train()
    assert held == [14]
    assert pairs_of(first.seen) == expected(dataset, 14, (14, OTHER))
    logged = [line for line in first.state.log_history if "mixture/web" in line]
    assert [line["step"] for line in logged] == [7, 14]
    realised = {f"mixture/{n}": share for n, share in first.mixture.realised().items()}
    assert realised.items() <= logged[-1].items()
    second, _ = hf_trainer(dataset, tmp_path)
    # Wrapped, rank 0 would read for all ranks, or each rank would read and drop the others'.
    prepared = second.accelerator.prepare(second.get_train_dataloader())
    assert type(prepared).__name__ == "TrainerBatches"
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-12"))
    assert pairs_of([*first.seen[:12], *second.seen]) == expected(dataset, 24, (14, OTHER))
    with pytest.raises(SamplerError, match=r"mixture\.json: not found: another Trainer wrote"):
        second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-9"))


def test_accelerate_saves_and_loads_the_state(dataset, tmp_path):
    import accelerate

    accelerator = accelerate.Accelerator(cpu=True)
    prepared = accelerator.prepare(loader(dataset))
    accelerator.register_for_checkpointing(prepared)
    seen = []
    for batch in prepared:
        seen.append(batch)
        if len(seen) == 4:
            assert prepared.set_weights(OTHER) == 4
        if len(seen) == 9:
            accelerator.save_state(str(tmp_path))
            break
    resumed = accelerate.Accelerator(cpu=True)
    other = resumed.prepare(loader(dataset))
    resumed.register_for_checkpointing(other)
    resumed.load_state(str(tmp_path))
    assert pairs_of([*seen, *islice(other, 9)]) == expected(dataset, 18, (4, OTHER))


def fitted(dataset, folder, steps, *, batches=40, accumulate=2, **options):
    lightning = pytest.importorskip("lightning", reason="lightning is absent")
    from mixopt.integrations.lightning import RealisedShares

    mixture = loader(dataset, batches=batches, workers=2)

    def loss(model, batch):
        if batch["batch"] == 4:
            mixture.set_weights(OTHER)
        return model(batch["input_ids"], batch["input_ids"])["loss"]

    options |= {"accumulate_grad_batches": accumulate, "callbacks": [RealisedShares(mixture)]}
    logger = lightning.pytorch.loggers.CSVLogger(folder, "shares", str(steps))
    return lightning_fit(
        mixture, folder, steps, loss, logger=logger, log_every_n_steps=2, **options
    )


def test_lightning_resumes_mid_run_with_workers_and_accumulation(dataset, tmp_path):
    first = fitted(dataset, tmp_path, 5)
    second = fitted(dataset, tmp_path, 11, checkpoint=str(tmp_path / "5.ckpt"))
    assert (len(first), len(second)) == (10, 12)
    with (tmp_path / "shares/5/metrics.csv").open(encoding="utf-8") as file:
        logged = [(line["step"], float(line["mixture/web"])) for line in csv.DictReader(file)]
    web = [sum(domain == 0 for batch in pairs_of(first[:n]) for domain, _ in batch) for n in (4, 8)]
    assert logged == [("1", web[0] / 32), ("3", web[1] / 64)]  # as Lightning numbers its own
    # Batch 9 is the first that no worker was asked for, and 10 the first of an optimizer step.
    assert pairs_of([*first, *second]) == expected(dataset, 22, (10, OTHER))


def test_lightning_needs_batches_with_a_length_and_whole_steps(dataset, tmp_path):
    """Without a length it fetches a batch ahead, which the checkpoint counts as trained on."""
    with pytest.raises(SamplerError, match=r"batches=41\) with 4 .*; give batches=44"):
        fitted(dataset, tmp_path, 5, batches=41, accumulate=4)
    with pytest.raises(SamplerError, match=r"loses a batch on resume.*batches="):
        fitted(dataset, tmp_path, 5, batches=None)


def test_a_damaged_state_or_entry_of_torchs_checkpoint_is_one_line(tmp_path):
    sampler = MixtureSampler({"web": 100, "code": 50}, [0.5, 0.5], batch_size=8)
    file = tmp_path / STATE_FILE
    write_sealed(file, sampler.state_dict())
    file.write_text(file.read_text().replace('"position": 0', '"position": 8'))
    with pytest.raises(SamplerError, match=r"^.*mixture\.json: has changed since .*$"):
        read_state(file)
    state = MixtureState(sampler)
    with pytest.raises(SamplerError, match="the checkpoint's mixture: mixture: is missing"):
        state.load_state_dict({})
    with pytest.raises(SamplerError, match="the checkpoint's mixture: cannot be read"):
        state.load_state_dict({"mixture": "{"})


def driver_over(dataset, log, *, batch_size=8, **options):
    order = MixtureSampler(dataset.sizes, WEIGHTS, batch_size=batch_size, batches=400)
    loader = MixtureLoader(dataset, order)
    options |= {"steps": 24, "tokens_per_sample": LENGTH, "log": log}
    estimator = Turning(3)
    return Driver(estimator, loader, DriverOptions(**options)), estimator


def driven_trainer(driver, folder, *, steps=18, eval_dataset=None, **options):
    from mixopt.integrations import OnlineTrainer

    class Recorded(Recording, OnlineTrainer):
        pass

    args = trainer_arguments(folder, max_steps=steps, save_steps=7, **options)
    return Recorded(model=Tiny(), args=args, driver=driver, eval_dataset=eval_dataset)


def test_a_resumed_trainer_with_changing_weights_has_the_same_mixtures(dataset, tmp_path):
    whole, estimator = driver_over(dataset, tmp_path / "whole.jsonl")
    undisturbed = driven_trainer(whole, tmp_path / "whole")
    undisturbed.train()
    assert held_from(tmp_path / "whole.jsonl") == [0, 3, 6, 9, 12, 15, 18]
    assert whole.perturbed_steps > 0
    assert estimator.observations[0].learning_rate == pytest.approx(5e-5 * 16 / 18)

    log = tmp_path / "again.jsonl"
    first, _ = driver_over(dataset, log)
    killed = driven_trainer(first, tmp_path / "again")
    killed.killed_at = 11
    with pytest.raises(KilledError):
        killed.train()
    resumed, _ = driver_over(dataset, log)
    trainer = driven_trainer(resumed, tmp_path / "again")
    trainer.train(resume_from_checkpoint=True)
    assert pairs_of(trainer.seen) == pairs_of(undisturbed.seen[7:])
    assert log.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_trainer_accumulates_over_the_batches_of_a_step(dataset, tmp_path):
    log = tmp_path / "log.jsonl"
    driver, estimator = driver_over(dataset, log, batch_size=4, accumulation=2)
    trainer = driven_trainer(driver, tmp_path / "out", steps=8, gradient_accumulation_steps=2)
    trainer.train()
    assert held_from(log) == [0, 6, 12]
    assert [o.loss_count_D.sum() for o in estimator.observations] == [3 * 8 * (LENGTH - 1)] * 2
    assert len(trainer.seen) == 16


def test_a_trainer_records_the_losses_of_training_and_not_of_evaluation(dataset, tmp_path):
    driver, estimator = driver_over(dataset, None)
    tokens = list(range(LENGTH))
    held_out = [{"input_ids": tokens, "labels": tokens, "domain": n % 3} for n in range(8)]
    evaluated = {"eval_strategy": "steps", "eval_steps": 1, "eval_dataset": held_out}
    trainer = driven_trainer(driver, tmp_path, steps=6, **evaluated)
    trainer.train()
    assert len(trainer.seen) == 6 + 6
    assert [o.loss_count_D.sum() for o in estimator.observations] == [3 * 8 * (LENGTH - 1)] * 2


def test_losses_are_of_the_next_tokens_and_a_model_without_logits_is_refused(dataset, tmp_path):
    driver, _ = driver_over(dataset, None)
    with pytest.raises(EstimatorError, match=r"gradient_accumulation_steps is 4; they must be"):
        driven_trainer(driver, tmp_path, gradient_accumulation_steps=4)
    options = DriverOptions(steps=5, tokens_per_sample=LENGTH)
    bare = Driver(Turning(3), driver.mixture.sampler, options)
    with pytest.raises(EstimatorError, match=r"takes its batches from a Driver\(mixture=loader\)"):
        driven_trainer(bare, tmp_path)
    trainer = driven_trainer(driver, tmp_path)
    with pytest.raises(EstimatorError, match=r"returns no logits: override token_losses"):
        trainer.token_losses({"loss": 1.0}, {})
    tokens = torch.arange(24).reshape(2, 12)
    labels = tokens.masked_fill(tokens % 5 == 0, -100)
    logits = Tiny()(tokens, tokens)["logits"]
    losses, mask = trainer.token_losses({"logits": logits}, {"labels": labels})
    ahead = logits[:, :-1].transpose(1, 2)
    expected = nn.functional.cross_entropy(ahead, tokens[:, 1:], reduction="none")
    assert (mask == (tokens[:, 1:] % 5 != 0)).all()
    torch.testing.assert_close(losses[mask], expected[mask])


def driven_fit(driver, folder, steps, checkpoint=None):
    pytest.importorskip("lightning", reason="lightning is absent")
    from mixopt.integrations.lightning import OnlineCallback

    def loss(model, batch):
        tokens = batch["input_ids"]
        logits = model(tokens, tokens)["logits"][:, :-1].transpose(1, 2)
        losses = nn.functional.cross_entropy(logits, tokens[:, 1:], reduction="none")
        driver.record(losses, batch["domain"])
        return losses.mean()

    options = {"checkpoint": checkpoint, "callbacks": [OnlineCallback(driver)]}
    options["accumulate_grad_batches"] = 2
    return pairs_of(lightning_fit(driver.mixture, folder, steps, loss, **options))


def test_lightning_goes_on_to_the_same_mixtures(dataset, tmp_path):
    halves = {"batch_size": 4, "accumulation": 2}
    driver, estimator = driver_over(dataset, tmp_path / "whole.jsonl", **halves)
    whole = driven_fit(driver, tmp_path, 18)
    assert held_from(tmp_path / "whole.jsonl") == [0, 6, 12, 18, 24, 30, 36]
    assert estimator.observations[0].learning_rate == 0.1
    log = tmp_path / "again.jsonl"
    first = driven_fit(driver_over(dataset, log, **halves)[0], tmp_path, 8)
    resumed, _ = driver_over(dataset, log, **halves)
    rest = driven_fit(resumed, tmp_path, 18, str(tmp_path / "8.ckpt"))
    assert [*first, *rest] == whole
    assert log.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_lightning_with_several_optimizers_is_refused(dataset):
    pytest.importorskip("lightning", reason="lightning is absent")
    from mixopt.integrations.lightning import OnlineCallback

    trainer = SimpleNamespace(optimizers=[None, None])
    with pytest.raises(EstimatorError, match="the module has 2 optimizers, but Lightning counts"):
        OnlineCallback(driver_over(dataset, None)[0]).on_train_start(trainer)


@pytest.mark.nightly
def test_two_ranks_resume_with_the_mixtures_and_rows_of_one_process(tmp_path):
    import trainer_job as job

    whole, ranks = tmp_path / "whole", tmp_path / "ranks"
    job.trainer_over(whole, 1).train()

    def launch(killed_at):
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command = [*launcher, "--nproc-per-node", "2", job.__file__, str(ranks), str(killed_at)]
        options = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "timeout": 120}
        return subprocess.run(command, check=False, capture_output=True, **options)

    # Of a batch that was taken twice, rows are those of the last time.
    assert launch(15).returncode != 0
    before = [dict(lines(ranks / f"rows.{rank}")) for rank in range(2)]
    assert len(before[0]) >= 15
    resumed = launch(job.STEPS + 1)
    assert resumed.returncode == 0, resumed.stderr.decode()[-2000:]
    after = [dict(lines(ranks / f"rows.{rank}")) for rank in range(2)]
    alone = dict(lines(whole / "rows.0"))
    assert len({str(line["weights"]) for line in lines(whole / "log.jsonl")}) > 3
    assert (ranks / "log.jsonl").read_bytes() == (whole / "log.jsonl").read_bytes()
    for parts, batches in ((before, range(15)), (after, range(job.STEPS))):
        assert all(parts[0][batch] + parts[1][batch] == alone[batch] for batch in batches)
