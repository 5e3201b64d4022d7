"""Models for the tests of how a sharded run starts, and a rank that starts with them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from made_models import logits_of
from mixopt_proxies.decoder import CausalLM
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mixopt.errors import MixoptError
from mixopt.pretraining import joined, load_pretraining
from mixopt.pretraining.model_start import initial_model, with_origin
from mixopt.pretraining.parallel import ParallelModel, starting_model

VOCAB, LENGTH = 257, 32
TOKENS_BT = torch.arange(2 * LENGTH).view(2, LENGTH)
SMALL = {"layers": 1, "width": 32, "heads": 2, "ff": 48}


class Odd(CausalLM):
    """Has what is not a weight that trains, saved or not, in a buffer or not, and twice."""

    def __init__(self, vocab_size: int, sequence_length: int) -> None:
        super().__init__(vocab_size, sequence_length, **SMALL)
        self.norm.requires_grad_(False)
        self.scale = nn.Parameter(torch.rand(3))
        self.again = self.layers[0].again = nn.Buffer(torch.rand(5), persistent=False)
        self.count = nn.Buffer(torch.tensor(7))
        self.alias = self.again

    def forward(self, input_ids: Tensor) -> Tensor:
        more = self.again.sum() + self.alias[0] + self.count
        return super().forward(input_ids) + more + self.scale.sum()


class Valued(CausalLM):
    """Cannot be built without values."""

    def __init__(self, vocab_size: int, sequence_length: int) -> None:
        super().__init__(vocab_size, sequence_length, **SMALL)
        self.largest = self.embedding.max().item()


class Held(CausalLM):
    """Has a tensor that is no weight and no buffer."""

    def __init__(self, vocab_size: int, sequence_length: int) -> None:
        super().__init__(vocab_size, sequence_length, **SMALL)
        self.plain = torch.rand(4)


class Wider(CausalLM):
    """Is another model where it is built without values."""

    def __init__(self, vocab_size: int, sequence_length: int) -> None:
        bare = torch.empty(1).is_meta
        super().__init__(vocab_size, sequence_length, **SMALL | {"ff": 64 if bare else 48})


def most_bytes(measured: profile) -> int:
    """Return how many bytes of tensors there were at most at a time."""
    events = [e for e in measured.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def has_weights(model: nn.Module) -> bool:
    return not any(weight.is_meta for weight in model.parameters())


def started(out: Path, name: str) -> dict:
    """Start with a model, and return what this rank has then."""
    config = load_pretraining(out / f"{name}.yaml", ["parallel=fsdp"])
    with joined("cpu") as ranks:
        config = ranks.first(lambda: with_origin(config, out / "run")[0])
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as p:
            parts = (config, VOCAB, out / "run")
            start = starting_model(
                partial(initial_model, *parts),
                partial(initial_model, *parts, outline=True),
                "fsdp",
                ranks,
            )
            whole = has_weights(start)
            model = ParallelModel(start, config, ranks)
        plain, places = model.plain, dict(model.plain.named_parameters(remove_duplicate=False))
        return {
            "most": most_bytes(p),
            "whole": whole,
            "weights": {n: w.detach().full_tensor() for n, w in plain.named_parameters()},
            "frozen": {n for n, w in plain.named_parameters() if not w.requires_grad},
            "tied": {n for n, w in places.items() if n not in dict(plain.named_parameters())},
            "buffers": dict(plain.named_buffers(remove_duplicate=False)),
            "saved": set(plain.state_dict()),
            "logits": logits_of_rank(model),
        }


def logits_of_rank(model: ParallelModel) -> Tensor:
    output = model.evaluate(TOKENS_BT)
    return output if isinstance(output, Tensor) else output.logits


def alone(out: Path, name: str) -> dict:
    """Return what a single process has."""
    config = with_origin(load_pretraining(out / f"{name}.yaml"), out / "run")[0]
    model = initial_model(config, VOCAB, out / "run").eval()
    places = dict(model.named_parameters(remove_duplicate=False))
    return {
        "weights": dict(model.named_parameters()),
        "frozen": {n for n, w in model.named_parameters() if not w.requires_grad},
        "tied": {n for n, w in places.items() if n not in dict(model.named_parameters())},
        "buffers": dict(model.named_buffers(remove_duplicate=False)),
        "saved": set(model.state_dict()),
        "logits": logits_of(model, TOKENS_BT),
    }


def start_all(out: Path, names: tuple[str, ...]) -> None:
    """Write what this rank has after a start with OUT/MODEL.yaml to OUT/MODEL.RANK.pt."""
    for name in names:
        try:
            found = started(out, name)
        except MixoptError as error:
            found = {"error": str(error)}
        torch.save(found, out / f"{name}.{dist.get_rank()}.pt")
