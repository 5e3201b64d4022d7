"""A sharded run starts with the weights of a single process, and only rank 0 holds them whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import sharded_start_job
import torch
from made_models import SMALL, made_model
from pretrain_runs import write_config
from ranks import on_ranks
from sharded_start_job import alone

from mixopt.testing import tiny_corpus

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {"layers": 2, "width": 32, "heads": 2, "ff": 48}
MODELS = {
    "decoder": {"name": "decoder", "options": TINY},
    "untied": {"name": "decoder", "options": TINY | {"tied": False}},
    "moe": {"name": "decoder", "options": {"size": "moe-tiny"}},
    "llama": {"name": "llama", "options": SMALL["llama"]},
    "olmoe": {"name": "olmoe", "options": SMALL["olmoe"]},
    "gpt2": {"name": "gpt2", "options": SMALL["gpt2"]},
    "folder": {"from": "llama folder"},
    "large": {"name": "decoder", "options": {"layers": 6, "width": 256, "heads": 4, "ff": 512}},
}
REFUSED = {"valued": "Valued", "wider": "Wider", "held": "Held"}
FEW = ("decoder", "moe", "llama", "folder", "large")  # what four ranks start with
JOBS = {2: (*MODELS, "odd"), 4: FEW}


def marked(ranks: int, *rest: str):
    """Leave four ranks, each of which imports transformers, to the slow tests."""
    return pytest.param(ranks, *rest, marks=[pytest.mark.nightly] if ranks > 2 else [])


CASES = [marked(ranks, name) for ranks, names in JOBS.items() for name in names]


def write_model(folder: Path, name: str, model: dict) -> None:
    path = write_config(folder, corpus=str(folder / "corpus"), model=model)
    path.rename(folder / f"{name}.yaml")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with the configuration of each model."""
    out = tmp_path_factory.mktemp("models")
    tiny_corpus(out / "corpus")
    made_model("llama", {}).save_pretrained(out / "folder")
    for name, model in MODELS.items():
        where = {"from": str(out / "folder")} if name == "folder" else model
        write_model(out, name, where)
    for name, kind in {"odd": "Odd", **REFUSED}.items():
        write_model(out, name, {"name": f"sharded_start_job:{kind}"})
    return out


@pytest.fixture(scope="module")
def started(models):
    """What each rank has of a model, by the number of ranks."""
    found = {}

    def of(ranks: int, name: str) -> list[dict]:
        if (ranks, name) not in found:
            names = (*JOBS[ranks], *REFUSED)
            on_ranks(ranks, sharded_start_job.__file__, "start_all", models, names)
            for model in names:
                files = [models / f"{model}.{rank}.pt" for rank in range(ranks)]
                found[ranks, model] = [torch.load(f, weights_only=False) for f in files]
        return found[ranks, name]

    return of


@pytest.mark.parametrize(("ranks", "name"), CASES)
def test_the_start_is_that_of_one_process_to_the_last_bit(models, started, ranks, name):
    expected = alone(models, name)
    first, *others = started(ranks, name)
    assert first["whole"]
    assert not any(rank["whole"] for rank in others)
    for rank in (first, *others):
        for what in ("weights", "buffers"):
            assert rank[what].keys() == expected[what].keys()
            for place, tensor in expected[what].items():
                assert rank[what][place].dtype == tensor.dtype
                assert torch.equal(rank[what][place], tensor), place
        for what in ("frozen", "tied", "saved"):
            assert rank[what] == expected[what]
        assert torch.equal(rank["logits"], expected["logits"])


@pytest.mark.parametrize("ranks", [2, marked(4)])
def test_no_other_rank_ever_holds_much_more_than_its_part(started, ranks):
    """Every allocation of tensors counts, from before the model is built until it has weights."""
    first, *others = started(ranks, "large")
    size = sum(weight.nbytes for weight in first["weights"].values())
    largest = max(weight.nbytes for weight in first["weights"].values())
    for rank in others:
        assert rank["most"] < size / ranks + 1.5 * largest
    assert first["most"] >= size


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("valued", "Tensor.item() cannot be called on meta tensors"),
        ("held", "Held.plain is a tensor of its own"),
        ("wider", "its tensors are others there: layers.0.gate_up"),
    ],
)
def test_a_model_that_needs_values_is_refused_in_a_line(started, name, why):
    first, _ = started(2, name)
    assert "parallel: fsdp: the model cannot be built on torch's meta device" in first["error"]
    assert why in first["error"]
    assert first["error"].endswith("give ddp")
