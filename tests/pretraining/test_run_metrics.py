"""What a run measures between two lines, the speed of a device, and the table at its end."""

from dataclasses import replace
from pathlib import Path

import torch

from mixopt.pretraining import PretrainConfig
from mixopt.pretraining.metrics import Meter, peak_flops
from mixopt.pretraining.pretraining_run import PretrainResult
from mixopt.pretraining.training_step import StepOutcome

TRAINING = {"steps": 9, "batch": 2, "sequence_length": 8, "lr": 1e-3}
CONFIG = PretrainConfig(corpus="x", model={"name": "decoder"}, training=TRAINING)


def test_a_line_is_of_the_steps_since_the_last_and_leaves_pauses_out(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("mixopt.pretraining.metrics.time.monotonic", lambda: clock[0])
    meter = Meter(("web", "code", "books"), CONFIG, flops=3.0, peak=600.0)
    losses_BT = torch.tensor([[2.0] * 8, [4.0] * 8])
    parts = [(losses_BT, torch.tensor([0, 1]))]
    taken = StepOutcome(0.1, 2.5, False, False, parts, torch.tensor([0.5]))
    broken = replace(taken, skipped=True, gradient_norm=float("nan"))
    meter.add(taken)
    meter.add(broken)
    clock[0] = 3.0
    with meter.paused():
        clock[0] = 100.0
    clock[0] += 1.0
    assert meter.line(2, taken, {"web": 1 / 3, "code": 2 / 3}) == {
        "step": 2,
        "tokens": 32,
        "loss": 3.0,
        "auxiliary_loss": 0.5,
        "learning_rate": 0.1,
        "gradient_norm": 2.5,
        "skipped": 1,
        "tokens_per_second": 32 / 4,
        "mfu": 32 / 4 * 3 / 600,
        "train_loss": {"web": 2.0, "code": 4.0},
        "weight": {"web": 0.333333333, "code": 0.666666667},
        "realised": {"web": 0.5, "code": 0.5, "books": 0.0},
    }
    meter.add(broken)
    clock[0] += 2.0
    line = meter.line(3, broken, {"web": 1.0})
    assert not {"loss", "auxiliary_loss", "gradient_norm"} & line.keys()
    assert (line["skipped"], line["tokens_per_second"], line["realised"]) == (2, 16 / 2, {})


def test_the_speed_of_a_known_device_is_that_of_the_first_name_that_fits(monkeypatch):
    def flops(name):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA {name}")
        return peak_flops(torch.device("cuda", 0))

    assert (flops("H100 80GB HBM3"), flops("H100 PCIe")) == (989e12, 756e12)
    assert (flops("L40S"), flops("A100-SXM4-80GB")) == (362e12, 312e12)
    assert flops("GeForce RTX 4090") == 0
    assert peak_flops(torch.device("cpu")) == 0


def test_the_table_at_the_end_has_each_domain_once():
    weights, losses = {"web": 0.75, "manual": 0.25}, {"web": 2.0, "other_code": 3.14159}
    result = PretrainResult(Path("r"), 1_000, 2_000, 64_000, 3, weights, losses, Path("r/c"))
    rows = [line.split() for line in str(result).splitlines()]
    assert ["web", "75.00%", "2.0000"] in rows
    assert ["manual", "25.00%"] in rows
    assert ["other_code", "3.1416"] in rows
    title = str(result).splitlines()[0]
    assert title == "1,000 of 2,000 steps, 3 of them skipped, 64,000 tokens"
    assert str(replace(result, skipped=0)).startswith("1,000 of 2,000 steps, 64,000 tokens\n")
