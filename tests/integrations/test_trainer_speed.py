"""The Trainer counts the rows that a rank really gets."""

from __future__ import annotations

import pytest
from trainer_parts import Tiny, trainer_arguments

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler, SamplerError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ROWS = {name: [{"input_ids": [k % 50] * 8} for k in range(40)] for name in ("web", "code")}


def trainer(folder, **options):
    from mixopt.integrations import MixtureTrainer

    dataset = MixtureDataset(ROWS)
    sampler = MixtureSampler(dataset.sizes, [0.5, 0.5], batch_size=16)
    args = trainer_arguments(folder, max_steps=2, **options)
    return MixtureTrainer(Tiny(50), args=args, mixture=MixtureLoader(dataset, sampler))


def test_a_batch_size_that_contradicts_the_samplers_is_refused(tmp_path):
    with pytest.raises(SamplerError, match=r"per_device_train_batch_size=4, but a rank gets 16"):
        trainer(tmp_path, per_device_train_batch_size=4)


def test_samples_a_second_are_those_of_the_samplers_batches(tmp_path):
    ended = trainer(tmp_path).train()
    seconds = ended.metrics["train_runtime"]
    assert ended.metrics["train_samples_per_second"] == pytest.approx(2 * 16 / seconds, rel=0.02)
