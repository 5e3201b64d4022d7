"""What `training` says of the optimiser and the learning rate, in whole runs on real ranks."""

from __future__ import annotations

import pytest
import torch
import yaml
from mixopt_proxies.decoder import CausalLM
from pretrain_runs import (
    CONFIG,
    STEPS,
    Job,
    assert_goes_on,
    assert_same_weights,
    finished,
    metrics_of,
    weights_of,
    write_config,
)
from torch import nn

from mixopt import ConfigError, Corpus, pretrain
from mixopt.config import dump_sections
from mixopt.errors import RunError
from mixopt.pretraining import load_pretraining
from mixopt.pretraining.training_config import TrainingConfig
from mixopt.pretraining.training_step import make_optimizer
from mixopt.sampling import RATE_CURVES
from mixopt.testing import tiny_corpus

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = {
    "schedule": "wsd",
    "lr_decay": 6,
    "lr_decay_shape": "sqrt",
    "warmup": 3,
    "eps": 1e-6,
    "decay_embeddings": False,
    "z_loss": 0.01,
    "ema_decay": 0.9,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return tiny_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def config(corpus, tmp_path_factory):
    return write_config(
        tmp_path_factory.mktemp("config"),
        prepared_corpus=str(corpus.path),
        training={**CONFIG["training"], **OPTIONS},
        held_out={**CONFIG["held_out"], "ema": True},
    )


@pytest.fixture(scope="module")
def whole(context, config, tmp_path_factory):
    return finished(context, config, tmp_path_factory.mktemp("whole") / "run")


def training(**options):
    return TrainingConfig(**{"steps": 100, "batch": 2, "sequence_length": 8, "lr": 3e-3, **options})


# --- Whole runs ---------------------------------------------------------------------------------


@pytest.mark.nightly
def test_a_killed_run_goes_on_on_two_ranks_as_if_it_was_not(whole, context, config, tmp_path):
    first = Job(context, config, tmp_path / "run", 1)
    first.until(2 * 14)
    first.kill()
    second = finished(context, config, tmp_path / "run", ranks=2)
    assert_goes_on(first, second, whole)
    assert_same_weights(weights_of(second.out), weights_of(whole.out))
    assert metrics_of(second.out) == metrics_of(whole.out)


def test_sharded_ranks_have_the_same_average(whole, context, config, tmp_path):
    # What is gathered for an evaluation must not be what the next step trains on.
    first = Job(context, config, tmp_path / "run", 2, ["parallel=fsdp", "held_out.every=1"])
    first.until(17)
    first.kill()
    job = finished(context, config, tmp_path / "run", overrides=["parallel=none"])
    found, expected = weights_of(job.out), weights_of(whole.out)
    assert found.keys() == expected.keys()
    assert "optimizer.state.embedding.ema" in found
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
    ours, theirs = (
        [
            line["held_out_loss"]
            for line in metrics_of(out)
            if "held_out_loss" in line and line["step"] in {12, 24}
        ]
        for out in (job.out, whole.out)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_held_out_losses_are_those_of_the_average(whole, config, corpus):
    held_out = [line for line in metrics_of(whole.out) if "held_out_loss" in line]
    found = weights_of(whole.out)
    losses = {}
    for kind in ("model.{}", "optimizer.state.{}.ema"):
        model = CausalLM(corpus.vocab_size, 32, layers=1, width=32, heads=2, ff=48)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(found[kind.format(name)])
        rows = corpus.domains[0].validation.rows([33 * k for k in range(16)], 33).astype("int64")
        tokens = torch.from_numpy(rows)
        logits = model(tokens[:, :-1]).flatten(0, 1)
        losses[kind] = nn.functional.cross_entropy(logits, tokens[:, 1:].flatten()).item()
    name = corpus.domains[0].name
    assert held_out[-1]["held_out_loss"][name] == pytest.approx(losses["optimizer.state.{}.ema"])
    assert losses["model.{}"] != pytest.approx(losses["optimizer.state.{}.ema"], abs=1e-3)


def test_the_z_loss_is_logged_beside_the_cross_entropy(whole):
    lines = [line for line in metrics_of(whole.out) if "loss" in line]
    # Small initial weights have logits near 0: the total is the vocabulary's size.
    assert 0.001 < lines[0]["z_loss"] < 0.01 * 7**2
    assert lines[-1]["z_loss"] < lines[0]["z_loss"]


def test_passes_of_any_size_add_up_to_the_same_gradients(config, tmp_path):
    one, whole = tmp_path / "one", tmp_path / "whole"
    for out, micro in ((one, 1), (whole, 8)):
        pretrain(config, out, ["training.steps=10", f"training.micro_batch={micro}"])
    expected = weights_of(whole)
    for name, value in weights_of(one).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4)
    losses = [[line.get("z_loss") for line in metrics_of(out)][:2] for out in (one, whole)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_it_goes_with_what_balances_experts(config, tmp_path):
    model = "{name: decoder, options: {size: moe-tiny, balance: auxiliary, layers: 1}}"
    pretrain(config, tmp_path / "run", [f"model={model}", "training.steps=10", "metrics.every=1"])
    line = metrics_of(tmp_path / "run")[0]
    assert line["auxiliary_loss"] > 0
    assert line["z_loss"] > 0
    assert line["loss"] == pytest.approx(5.5, abs=0.5)  # ln 257: the cross-entropy alone


def test_an_average_is_not_begun_in_the_middle_of_a_run(whole, config):
    with pytest.raises(RunError, match=r"was started with training\.ema_decay 0\.9, and here it"):
        pretrain(config, whole.out, ["training.ema_decay=0.8"])


# --- Learning rates -----------------------------------------------------------------------------


def test_the_learning_rates_of_the_run_are_those_of_the_curve(whole):
    rates = [line["learning_rate"] for line in metrics_of(whole.out) if "loss" in line]
    section = training(**{**OPTIONS, "steps": STEPS})
    assert rates == [section.rates.rate(k - 1) for k in range(4, STEPS + 1, 4)]
    assert rates[3] == 3e-3 > rates[-1]


@pytest.mark.parametrize("schedule", RATE_CURVES)
def test_a_run_cut_into_two_has_the_rates_of_one(schedule):
    whole = training(schedule=schedule)
    first = training(schedule=schedule, steps=37, lr_total_steps=100)
    second = training(schedule=schedule, steps=63, lr_start_step=37, lr_total_steps=100)
    pieces = [first.rates.rate(k) for k in range(37)]
    pieces += [second.rates.rate(k) for k in range(63)]
    assert pieces == [whole.rates.rate(k) for k in range(100)]


def test_a_stage_that_anneals_takes_up_where_a_stable_one_ended():
    stable = training(schedule="constant", steps=80)
    decay = training(schedule="wsd", steps=20, lr_start_step=80, lr_decay=20, warmup=2)
    assert decay.rates.rate(0) == stable.rates.rate(79) == 3e-3
    assert decay.rates.rate(19) == pytest.approx(3e-3 * (0.1 + 0.9 / 20))


# --- Groups of weights --------------------------------------------------------------------------


class Tables(nn.Module):
    """Has a table of embeddings, a matrix and a vector."""

    def __init__(self):
        super().__init__()
        self.table, self.linear = nn.Embedding(7, 4), nn.Linear(4, 7)


def decays(model, **options):
    optimizer = make_optimizer(model, training(**options))
    names = {weight: name for name, weight in model.named_parameters()}
    return {
        names[weight]: group["weight_decay"]
        for group in optimizer.param_groups
        for weight in group["params"]
    }


def test_embeddings_decay_unless_they_are_left_out():
    assert decays(Tables()) == {"table.weight": 0.1, "linear.weight": 0.1, "linear.bias": 0.0}
    spared = decays(Tables(), decay_embeddings=False)
    assert spared == {"table.weight": 0.0, "linear.weight": 0.1, "linear.bias": 0.0}


def test_the_embedding_of_our_decoder_is_one():
    found = decays(CausalLM(64, 8, size="tiny", layers=1), decay_embeddings=False)
    assert found["embedding"] == 0.0
    assert found["layers.0.qkv"] == 0.1


def test_a_model_without_embeddings_has_none_to_leave_out():
    with pytest.raises(ConfigError, match=r"training\.decay_embeddings: false, and the model has"):
        make_optimizer(nn.Linear(2, 2), training(decay_embeddings=False))


def test_betas_and_eps_are_adamw_s():
    optimizer = make_optimizer(Tables(), training(eps=1e-5, betas=(0.8, 0.99)))
    assert {(g["eps"], g["betas"]) for g in optimizer.param_groups} == {(1e-5, (0.8, 0.99))}


# --- The file -----------------------------------------------------------------------------------


def test_what_is_not_given_is_not_recorded(corpus, tmp_path):
    file = write_config(tmp_path, prepared_corpus=str(corpus.path))
    recorded = dump_sections(load_pretraining(file))["training"]
    assert not recorded.keys() & {*OPTIONS, "lr_start_step", "lr_total_steps"} - {
        "schedule",
        "warmup",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "wsd", "lr_decay": 40}, "lr_decay: 40 steps of decay after 0.48 of warm-up"),
        ({"schedule": "cosin"}, "training.schedule: should be 'cosine', 'constant', 'linear',"),
        ({"schedule": "constant", "lr_decay": 0.1}, "lr_decay: a constant rate has no decay; give"),
        ({"schedule": "inverse_sqrt"}, "warmup: 0.48 steps, and an inverse_sqrt falls by the"),
        (
            {"lr_start_step": 10, "lr_total_steps": 30},
            "lr_total_steps 30 end before the run does: it takes 24 steps from lr_start_step 10 on;"
            " give at least 34",
        ),
        ({"ema_decay": 1.0}, "training.ema_decay: should be less than 1"),
        ({"z_loss": 0}, "training.z_loss: should be greater than 0"),
    ],
)
def test_what_cannot_be_right_is_one_line(options, message, corpus, tmp_path):
    section = {**CONFIG["training"], **options}
    file = write_config(tmp_path, prepared_corpus=str(corpus.path), training=section)
    with pytest.raises(ConfigError) as error:
        load_pretraining(file)
    assert message in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_evaluation_of_no_average_is_refused(corpus, tmp_path):
    file = write_config(tmp_path, prepared_corpus=str(corpus.path), held_out={"ema": True})
    with pytest.raises(ConfigError, match=r"held_out\.ema: there are no averaged weights: give"):
        load_pretraining(file)


def test_numbers_may_be_written_as_people_do(corpus, tmp_path):
    section = {**CONFIG["training"], "z_loss": "1e-4", "eps": "1e-8", "ema_decay": "9e-1"}
    file = write_config(tmp_path, prepared_corpus=str(corpus.path), training=section)
    assert yaml.safe_load(file.read_text())["training"]["z_loss"] == "1e-4"
    loaded = load_pretraining(file).training
    assert (loaded.z_loss, loaded.eps, loaded.ema_decay) == (1e-4, 1e-8, 0.9)
