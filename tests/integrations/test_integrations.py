"""Real training frameworks on a mixture: swaps and resume are exact, and known traps are met."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from sampler_rows import located
from trainer_parts import Tiny, lightning_trainer, trainer_arguments

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler, SamplerError
from mixopt.corpus import TokenWriter
from mixopt.system import write_json

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

LENGTH = 16
WEIGHTS = [0.5, 0.3, 0.2]
OTHER = [0.0, 0.1, 0.9]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for k, (name, rows) in enumerate((("web", 90), ("code", 41), ("books", 17))):
        tokens = np.random.default_rng(k).integers(0, 50, rows * LENGTH).astype(np.uint16)
        with TokenWriter(folder / name / "train", dtype="uint16", tokenizer="t") as writer:
            writer.write(tokens, documents=1, bytes=1)
    write_json(folder / "index.json", {"domains": ["web", "code", "books"]})
    return folder


@pytest.fixture
def dataset(corpus):
    return MixtureDataset.from_corpus(corpus, length=LENGTH)


def sampler(dataset, **options):
    return MixtureSampler(dataset.sizes, WEIGHTS, batch_size=8, **options)


def loader(dataset, *, workers=0, **options):
    return MixtureLoader(dataset, sampler(dataset, **options), workers=workers)


def rows_of(batches):
    return [list(zip(b["domain"].tolist(), b["row"].tolist(), strict=True)) for b in batches]


def expected(dataset, batches, *changes):
    known = sampler(dataset)
    for batch, weights in changes:
        known.set_weights(weights, batch=batch)
    domain, row = located(known, 0, batches)
    pairs = list(zip(domain.tolist(), row.tolist(), strict=True))
    return [pairs[k : k + 8] for k in range(0, len(pairs), 8)]


# --- Hugging Face Trainer -----------------------------------------------------------------------


def hf_trainer(dataset, folder, *, workers=0, swap_at=None, steps=24, **options):
    from transformers import TrainerCallback

    from mixopt.integrations import MixtureTrainer

    mixture = loader(dataset, workers=workers)
    seen, held = [], []

    class Recording(MixtureTrainer):
        def compute_loss(self, model, inputs, *rest, **named):
            seen.append(inputs)
            return super().compute_loss(model, inputs, *rest, **named)

    class Swap(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == swap_at:
                held.append(mixture.set_weights(OTHER))

    args = trainer_arguments(folder, max_steps=steps, save_steps=12, **options)
    return Recording(model=Tiny(), args=args, mixture=mixture, callbacks=[Swap()]), seen, held


def test_the_hf_trainer_swaps_in_a_callback_and_resumes_exactly(dataset, tmp_path):
    pytest.importorskip("accelerate", reason="the Trainer needs accelerate")
    first, seen, held = hf_trainer(dataset, tmp_path, workers=2, swap_at=10, steps=14)
    first.train()
    assert held == [14]
    assert rows_of(seen) == expected(dataset, 14, (held[0], OTHER))
    second, again, _ = hf_trainer(dataset, tmp_path)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-12"))
    assert rows_of([*seen[:12], *again]) == expected(dataset, 24, (held[0], OTHER))
    assert not second.args.ignore_data_skip or again[0]["batch"] == 12


def test_the_hf_trainer_leaves_the_batches_unwrapped(dataset, tmp_path):
    """Wrapped, rank 0 would read for all ranks, or each rank would read and drop the others'."""
    pytest.importorskip("accelerate", reason="the Trainer needs accelerate")
    trainer, _, _ = hf_trainer(dataset, tmp_path)
    prepared = trainer.accelerator.prepare(trainer.get_train_dataloader())
    assert type(prepared).__name__ == "TrainerBatches"
    assert next(iter(prepared))["labels"].shape == (8, LENGTH)


# --- accelerate ---------------------------------------------------------------------------------


def test_accelerate_saves_and_loads_the_state(dataset, tmp_path):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is absent")
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
    assert rows_of([*seen, *islice(other, 9)]) == expected(dataset, 18, (4, OTHER))


# --- Lightning ----------------------------------------------------------------------------------


def lightning_fit(
    module,
    dataset,
    folder,
    steps,
    *,
    checkpoint=None,
    batches=40,
    swap_at=None,
    workers=0,
    **options,
):
    import lightning

    seen = []

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.tiny = Tiny()

        def training_step(self, batch, index):
            seen.append(batch)
            if batch["batch"] == swap_at:
                mixture.set_weights(OTHER)
            return self.tiny(batch["input_ids"], batch["input_ids"])["loss"]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    mixture = loader(dataset, batches=batches, workers=workers)
    trainer = lightning_trainer(folder, max_steps=steps, **options)
    trainer.fit(Model(), module(mixture), ckpt_path=checkpoint)
    trainer.save_checkpoint(folder / f"{steps}.ckpt")
    return seen


def test_lightning_with_workers_and_accumulation_resumes_a_checkpoint_of_the_middle(
    dataset, tmp_path
):
    pytest.importorskip("lightning", reason="lightning is absent")
    from mixopt.integrations import MixtureDataModule

    options = {"workers": 2, "accumulate_grad_batches": 2}
    first = lightning_fit(MixtureDataModule, dataset, tmp_path, 5, swap_at=4, **options)
    second = lightning_fit(
        MixtureDataModule, dataset, tmp_path, 11, checkpoint=str(tmp_path / "5.ckpt"), **options
    )
    assert (len(first), len(second)) == (10, 12)
    # Batch 9 is the first that no worker was asked for, and 10 the first of an optimizer step.
    assert rows_of([*first, *second]) == expected(dataset, 22, (10, OTHER))


def test_lightning_is_not_given_a_pass_that_ends_within_a_step(dataset, tmp_path):
    pytest.importorskip("lightning", reason="lightning is absent")
    from mixopt.integrations import MixtureDataModule

    options = {"batches": 41, "accumulate_grad_batches": 4}
    with pytest.raises(SamplerError, match=r"batches=41\) with .*=4: .*; give batches=44"):
        lightning_fit(MixtureDataModule, dataset, tmp_path, 5, **options)


def test_lightning_is_not_given_batches_without_a_length(dataset):
    """Without one it fetches a batch ahead, which the checkpoint then counts as trained on."""
    pytest.importorskip("lightning", reason="lightning is absent")
    from mixopt.integrations import MixtureDataModule

    with pytest.raises(SamplerError, match=r"loses a batch on resume.*batches="):
        MixtureDataModule(loader(dataset))
