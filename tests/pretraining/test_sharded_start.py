"""A sharded run starts with the weights of a single process, and only rank 0 holds them whole."""

from __future__ import annotations

from itertools import product
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
    "moe": {"name": "decoder", "options": {"size": "moe-tiny", "balance": "bias"}},
    "llama": {"name": "llama", "options": SMALL["llama"]},
    "olmoe": {"name": "olmoe", "options": SMALL["olmoe"]},
    "gpt2": {"name": "gpt2", "options": SMALL["gpt2"]},
    "folder": {"from": "llama folder"},
    "large": {"name": "decoder", "options": {"layers": 6, "width": 256, "heads": 4, "ff": 512}},
}
WHOLE = {"odd": "Odd", "valued": "Valued", "listed": "Listed", "wider": "Wider"}
FEW = ("decoder", "moe", "llama", "folder", "large")  # what four ranks start with
JOBS = {2: (("fsdp",), (*MODELS, *WHOLE)), 4: (("fsdp", "hsdp"), FEW)}
WAYS = [(2, "fsdp"), (4, "fsdp"), (4, "hsdp")]


def marked(ranks: int, *rest: str):
    """Leave four ranks, each of which imports transformers, to the slow tests."""
    return pytest.param(ranks, *rest, marks=[pytest.mark.nightly] if ranks > 2 else [])


CASES = [marked(ranks, kind, name) for ranks, kind in WAYS for name in JOBS[ranks][1]]
APART = [case for case in CASES if case.values[-1] in MODELS]


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
    for name, kind in WHOLE.items():
        write_model(out, name, {"name": f"sharded_start_job:{kind}"})
    return out


@pytest.fixture(scope="module")
def started(models):
    """What each rank has of a model, by the number of ranks and how they share."""
    found = {}

    def of(ranks: int, kind: str, name: str) -> list[dict]:
        if (ranks, kind, name) not in found:
            kinds, names = JOBS[ranks]
            on_ranks(ranks, sharded_start_job.__file__, "start_all", models, kinds, names)
            for one, model in product(kinds, names):
                files = [models / f"{model}.{one}.{rank}.pt" for rank in range(ranks)]
                found[ranks, one, model] = [torch.load(f, weights_only=False) for f in files]
        return found[ranks, kind, name]

    return of


@pytest.mark.parametrize(("ranks", "kind", "name"), CASES)
def test_the_start_is_that_of_one_process_to_the_last_bit(models, started, ranks, kind, name):
    expected = alone(models, name)
    for rank in started(ranks, kind, name):
        for what in ("weights", "buffers"):
            assert rank[what].keys() == expected[what].keys()
            for place, tensor in expected[what].items():
                assert rank[what][place].dtype == tensor.dtype
                assert torch.equal(rank[what][place], tensor), place
        for what in ("frozen", "tied", "saved"):
            assert rank[what] == expected[what]
        assert torch.equal(rank["logits"], expected["logits"])


@pytest.mark.parametrize(("ranks", "kind", "name"), APART)
def test_rank_0_alone_has_weights_before_they_are_sharded(started, ranks, kind, name):
    first, *others = started(ranks, kind, name)
    assert first["whole"]
    assert not any(rank["whole"] for rank in others)
    assert not first["said"]


@pytest.mark.parametrize(("ranks", "kind"), [marked(*way) for way in WAYS])
def test_no_other_rank_ever_holds_much_more_than_its_part(started, ranks, kind):
    """Every allocation of tensors counts, from before the model is built until it has weights."""
    first, *others = started(ranks, kind, "large")
    size = sum(weight.nbytes for weight in first["weights"].values())
    largest = max(weight.nbytes for weight in first["weights"].values())
    parts = 2 if kind == "hsdp" else ranks
    for rank in others:
        assert rank["most"] < size / parts + 1.5 * largest
    assert first["most"] >= size


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("valued", "Tensor.item() cannot be called on meta tensors"),
        ("listed", "Listed.shifts has tensors of its own"),
        ("odd", "Odd.plain has tensors of its own"),
        ("wider", "its tensors are others there: layers.0.gate_up"),
    ],
)
def test_a_model_that_needs_values_is_built_whole_on_each_rank_and_a_line_says_why(
    started, name, why
):
    first, *others = started(2, "fsdp", name)
    assert all(rank["whole"] for rank in (first, *others))
    (line,) = first["said"]
    assert "every rank holds the whole model at the start" in line
    assert why in line
    assert not any(rank["said"] for rank in others)
