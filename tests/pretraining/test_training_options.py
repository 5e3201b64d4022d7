"""What `training` says of the optimiser and the learning rate."""

import pytest
import torch
from pretrain_runs import CONFIG, metrics_of, weights_of, write_config
from torch import nn

from mixopt import pretrain
from mixopt.errors import ConfigError
from mixopt.pretraining.config import TrainingConfig
from mixopt.pretraining.ranks import device_named
from mixopt.pretraining.training_step import make_optimizer, token_losses

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = {"schedule": "wsd", "lr_decay": 4, "lr_decay_shape": "sqrt", "warmup": 3, "eps": 1e-6}
STEPS = 10


def training(**options):
    return TrainingConfig(**{"steps": 100, "batch": 2, "sequence_length": 8, "lr": 3e-3, **options})


def test_numbers_are_read_as_people_write_them():
    for tokens in ("50B", "50e9", 50_000_000_000):
        found = TrainingConfig(batch=8, sequence_length=32, lr="3e-4", tokens=tokens)
        assert (found.steps, found.lr) == (-(-50_000_000_000 // (8 * 32)), 3e-4)
    assert training(steps="2k", betas=["9e-1", "95e-2"]).steps == 2_000


@pytest.fixture(scope="module")
def runs(corpus, tmp_path_factory):
    """A run in passes of one sequence, and one in passes of all that it has of a batch."""
    folder = tmp_path_factory.mktemp("passes")
    options = {**CONFIG["training"], **OPTIONS, "steps": STEPS}
    config = write_config(folder, corpus=str(corpus.path), training=options, metrics={"every": 1})
    for name, micro in (("one", "1"), ("whole", "null")):
        pretrain(config, folder / name, [f"training.micro_batch={micro}"])
    return folder / "one", folder / "whole"


def test_passes_of_any_size_add_up_to_the_same_gradients_at_the_rates_of_the_curve(runs):
    single, whole = map(weights_of, runs)
    for name, value in single.items():
        torch.testing.assert_close(value, whole[name], rtol=1e-3, atol=1e-4)
    losses = [[line["loss"] for line in metrics_of(out) if "loss" in line] for out in runs]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    rates = [line["learning_rate"] for line in metrics_of(runs[0]) if "loss" in line]
    section = training(**{**OPTIONS, "steps": STEPS})
    assert rates == [section.rates.rate(step) for step in range(STEPS)]
    assert rates[0] < rates[1] < rates[3] == rates[5] == 3e-3 > rates[-2] > rates[-1] > 3e-4


def test_a_gradient_is_no_longer_than_clip(runs, tmp_path):
    options = ("steps=2", "warmup=0", "lr_decay=1", "weight_decay=0")
    sets = [f"training.{option}" for option in options]
    found = {}
    for name in ("lr=1e-30", "clip=1e-20", "clip=0"):
        pretrain(runs[0].parent / "run.yaml", tmp_path / name, [*sets, f"training.{name}"])
        weights = weights_of(tmp_path / name)
        found[name] = torch.cat([w.flatten() for n, w in weights.items() if n.startswith("model.")])
    torch.testing.assert_close(found["clip=1e-20"], found["lr=1e-30"], rtol=0, atol=1e-9)
    assert (found["clip=0"] - found["lr=1e-30"]).abs().max() > 1e-3


@pytest.mark.parametrize("logits", [1, 61, 1 << 24])
def test_losses_of_tokens_are_the_same_some_rows_at_a_time(logits, monkeypatch):
    monkeypatch.setattr("mixopt.pretraining.training_step._CHUNK_LOGITS", logits)
    draw = torch.Generator().manual_seed(0)
    output_BTV = torch.randn(5, 3, 10, generator=draw).requires_grad_()
    targets_BT = torch.randint(10, (5, 3), generator=draw)
    losses_BT = token_losses(output_BTV, targets_BT)
    expected_BT = -output_BTV.log_softmax(-1).gather(-1, targets_BT[..., None])[..., 0]
    torch.testing.assert_close(losses_BT, expected_BT)
    found, expected = (
        torch.autograd.grad(x.sum(), output_BTV)[0] for x in (losses_BT, expected_BT)
    )
    torch.testing.assert_close(found, expected)


def test_a_rank_has_a_device_of_its_own_or_is_refused(monkeypatch):
    def device(name, present, rank):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: present > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: present)
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        return str(device_named(name))

    assert device("auto", 0, rank=1) == device("cpu", 2, rank=1) == "cpu"
    assert device("auto", 2, rank=1) == "cuda:1"
    assert device("cuda", 1, rank=0) == "cuda:0"
    for name, count in (("auto", 2), ("cuda", 0)):
        message = f"device: '{name}' for local rank {count}, and there are {count} GPUs; start as"
        with pytest.raises(ConfigError, match=message):
            device(name, count, rank=count)


class Tables(nn.Module):
    """Has a table of embeddings, a matrix, a vector, and a weight that is not trained."""

    def __init__(self):
        super().__init__()
        self.table, self.linear = nn.Embedding(7, 4), nn.Linear(4, 7)
        self.fixed = nn.Parameter(torch.ones(2, 2), requires_grad=False)


def test_matrices_and_embeddings_decay_and_vectors_do_not():
    model = Tables()
    optimizer = make_optimizer(model, training())
    names = {weight: name for name, weight in model.named_parameters()}
    decays = {
        names[weight]: group["weight_decay"]
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    assert decays == {"table.weight": 0.1, "linear.weight": 0.1, "linear.bias": 0.0}
    assert {float(state["step"]) for state in optimizer.state.values()} == {0.0}
