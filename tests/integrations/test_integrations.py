"""Real training frameworks on a mixture: swaps and resume are exact, and known traps are met."""

from __future__ import annotations

import csv
from itertools import islice

import pytest
from sampler_rows import pairs_in_order, pairs_of
from trainer_parts import (
    LENGTH,
    QUIET,
    Recording,
    Tiny,
    lightning_fit,
    random_rows,
    trainer_arguments,
)

from mixopt import MixtureLoader, MixtureSampler, SamplerError
from mixopt.integrations import MixtureState
from mixopt.integrations.hf_trainer import STATE_FILE, read_state
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


# --- Hugging Face Trainer and accelerate --------------------------------------------------------


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
    assert first.mixture.realised().metrics.items() <= logged[-1].items()
    second, _ = hf_trainer(dataset, tmp_path)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-12"))
    assert pairs_of([*first.seen[:12], *second.seen]) == expected(dataset, 24, (14, OTHER))
    with pytest.raises(SamplerError, match=r"mixture\.json: not found: another Trainer wrote"):
        second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-9"))


def test_the_hf_trainer_leaves_the_batches_unwrapped(dataset, tmp_path):
    """Wrapped, rank 0 would read for all ranks, or each rank would read and drop the others'."""
    trainer, _ = hf_trainer(dataset, tmp_path)
    prepared = trainer.accelerator.prepare(trainer.get_train_dataloader())
    assert type(prepared).__name__ == "TrainerBatches"
    assert next(iter(prepared))["labels"].shape == (8, LENGTH)


def test_accelerate_saves_and_loads_the_state(dataset, tmp_path):
    import accelerate

    accelerator = accelerate.Accelerator(cpu=True)
    one = accelerator.prepare(loader(dataset))
    accelerator.register_for_checkpointing(one)
    seen = []
    for batch in one:
        seen.append(batch)
        if len(seen) == 4:
            assert one.set_weights(OTHER) == 4
        if len(seen) == 9:
            accelerator.save_state(str(tmp_path))
            break
    resumed = accelerate.Accelerator(cpu=True)
    other = resumed.prepare(loader(dataset))
    resumed.register_for_checkpointing(other)
    resumed.load_state(str(tmp_path))
    assert pairs_of([*seen, *islice(other, 9)]) == expected(dataset, 18, (4, OTHER))


# --- Lightning ----------------------------------------------------------------------------------


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


def test_lightning_with_workers_and_accumulation_resumes_a_checkpoint_of_the_middle(
    dataset, tmp_path
):
    first = fitted(dataset, tmp_path, 5)
    second = fitted(dataset, tmp_path, 11, checkpoint=str(tmp_path / "5.ckpt"))
    assert (len(first), len(second)) == (10, 12)
    with (tmp_path / "shares/5/metrics.csv").open(encoding="utf-8") as file:
        logged = [(line["step"], float(line["mixture/web"])) for line in csv.DictReader(file)]
    web = [sum(domain == 0 for batch in pairs_of(first[:n]) for domain, _ in batch) for n in (4, 8)]
    assert logged == [("1", web[0] / 32), ("3", web[1] / 64)]  # as Lightning numbers its own
    # Batch 9 is the first that no worker was asked for, and 10 the first of an optimizer step.
    assert pairs_of([*first, *second]) == expected(dataset, 22, (10, OTHER))


def test_lightning_is_not_given_batches_without_a_length_or_a_pass_that_ends_within_a_step(
    dataset, tmp_path
):
    """Without a length it fetches a batch ahead, which the checkpoint counts as trained on."""
    with pytest.raises(SamplerError, match=r"batches=41\) with .*=4: .*; give batches=44"):
        fitted(dataset, tmp_path, 5, batches=41, accumulate=4)
    with pytest.raises(SamplerError, match=r"loses a batch on resume.*batches="):
        fitted(dataset, tmp_path, 5, batches=None)


# --- saved states -------------------------------------------------------------------------------


def sampler():
    return MixtureSampler({"web": 100, "code": 50}, [0.5, 0.5], batch_size=8)


@pytest.fixture
def saved(tmp_path):
    write_sealed(tmp_path / STATE_FILE, sampler().state_dict())
    return tmp_path


def test_a_damaged_state_is_one_line(saved):
    file = saved / STATE_FILE
    file.write_text(file.read_text().replace('"position": 0', '"position": 8'))
    message = "mixture.json: has changed since it was written"
    with pytest.raises(SamplerError, match=message) as caught:
        read_state(saved / STATE_FILE)
    assert "\n" not in str(caught.value)


def test_a_damaged_entry_of_torchs_checkpoint_is_one_line():
    state = MixtureState(sampler())
    with pytest.raises(SamplerError, match="the checkpoint's mixture: mixture: is missing"):
        state.load_state_dict({})
    with pytest.raises(SamplerError, match="the checkpoint's mixture: cannot be read"):
        state.load_state_dict({"mixture": "{"})
