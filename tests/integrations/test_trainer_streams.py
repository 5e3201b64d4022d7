"""The Trainer on a MixtureStream: its batches, weights that change with a step, exact resume."""

from __future__ import annotations

import pytest
import torch
from stream_sources import SIZES, hub, numbered
from trainer_parts import QUIET, Recording, Tiny, trainer_arguments
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from mixopt import MixtureStream, SamplerError
from mixopt.integrations.hf_trainer import MixtureTrainer, MixtureTrainerMixin

pytestmark = QUIET


def tokens_of(document):
    return [byte % 50 for byte in document["text"].encode()] + [0]


def stream(**options):
    sources = {name: hub(numbered(name)) for name in SIZES}
    rows = {"length": 12, "tokenize": tokens_of, "buffer": 40} | options
    return MixtureStream(sources, [0.5, 0.3, 0.2], batch_size=8, **rows)


class Recorded(Recording, MixtureTrainer):
    pass


class Steer(TrainerCallback):
    """Asks for other weights in the middle of a step."""

    def __init__(self, batches):
        self.batches = batches

    def on_substep_end(self, args, state, control, **_):
        if state.global_step == 1:
            self.held = self.batches.set_weights([0.1, 0.1, 0.8])


def trained(batches, folder, steps, *, resume=None, **options):
    args = trainer_arguments(folder, max_steps=steps, per_device_train_batch_size=8, **options)
    steer = Steer(batches)
    trainer = Recorded(model=Tiny(), args=args, mixture=batches, callbacks=[steer])
    trainer.train(resume_from_checkpoint=resume)
    return trainer, steer


def test_the_trainer_goes_on_with_a_stream_where_its_checkpoint_was(tmp_path):
    options = {"save_steps": 3, "gradient_accumulation_steps": 2}
    whole, steer = trained(stream(), tmp_path / "whole", 6, **options)
    assert steer.held == 4  # the first batch of the next step
    known = stream(schedule=[(4, [0.1, 0.1, 0.8])])
    for number, (mine, plain) in enumerate(zip(whole.seen, known, strict=False)):
        assert mine["batch"] == plain["batch"] == number
        assert torch.equal(mine["input_ids"], plain["input_ids"])
        assert torch.equal(mine["domain"], plain["domain"])
    trained(stream(), tmp_path / "halves", 3, **options)
    checkpoint = get_last_checkpoint(str(tmp_path / "halves"))
    second, _ = trained(stream(workers=2), tmp_path / "halves", 6, resume=checkpoint, **options)
    assert [batch["batch"] for batch in second.seen] == list(range(6, 12))
    for mine, other in zip(second.seen, whole.seen[6:], strict=True):
        assert torch.equal(mine["input_ids"], other["input_ids"])


def test_the_trainers_collator_puts_documents_together(tmp_path):
    def collate(rows):
        return {"input_ids": torch.tensor([row["input_ids"][:4] for row in rows])}

    args = trainer_arguments(tmp_path, max_steps=1)
    trainer = Recorded(model=Tiny(), args=args, mixture=stream(), data_collator=collate)
    trainer.train()
    assert trainer.seen[0]["input_ids"].shape == (8, 4)
    assert len(trainer.seen[0]["domain"]) == 8
    with pytest.raises(SamplerError, match=r"MixtureStream\(collate=\) has precedence; leave"):
        MixtureTrainer(
            model=Tiny(), args=args, mixture=stream(collate=collate), data_collator=collate
        )


def test_a_trainer_that_prepares_its_rows_is_refused_with_what_to_use(tmp_path):
    class Prepares:
        def _prepare_dataset(self, dataset):
            return dataset

    class Trainer(MixtureTrainerMixin, Prepares):
        pass

    with pytest.raises(SamplerError, match=r"prepares its rows .* use MixtureTrainer with"):
        Trainer(args=trainer_arguments(tmp_path, max_steps=1), mixture=stream())
