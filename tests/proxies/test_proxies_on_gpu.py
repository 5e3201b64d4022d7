"""What a GPU needs of the loop, as far as a CPU can tell.

Tensors that pretend to be on a GPU carry devices and shapes through a step: what would mix devices,
or wait for a number, fails. Autograd's engine asks for a real device, so gradients are of the right
shapes only, and what the backward pass calls is looked at on the CPU.
"""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mixopt_proxies.decoder import Passes, StackTrainer, make_size, members_by_rule
from mixopt_proxies.decoder.group_training import member_bytes
from mixopt_proxies.decoder.stack_trainer import StepGraph
from mixopt_proxies.decoder.trial_batches import blocks
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mixopt.mixture import Mixture
from mixopt.trials import Trial

CPU, GPU = torch.device("cpu"), torch.device("cuda")
WAITING = {"_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "unique"}
TRIALS = [Trial(f"t{seed}", Mixture({"any": 1.0}), seed=seed) for seed in (0, 1)]
SHORT = {"sequence_length": 32, "batch": 2}


class Watched(TorchDispatchMode):
    """Counts what makes Python wait for a device: a number taken from it, or a copy to the CPU."""

    def __init__(self):
        super().__init__()
        self.waits = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        given = tree_leaves((args, kwargs or {}))
        came = {x.device.type for x in given if isinstance(x, torch.Tensor)}
        if name == "_fused_adamw_" and "cuda" in came:
            # PyTorch cannot pretend this one; all that it reads must be there.
            assert came == {"cuda"}
            return None
        out = func(*args, **(kwargs or {}))
        left = {x.device.type for x in tree_leaves(out) if isinstance(x, torch.Tensor)}
        if name in WAITING or ("cuda" in came and "cpu" in left):
            self.waits[name] += 1
        return out


def trainer_of(device, name, vocab, steps=3):
    size = make_size(name, **SHORT)
    dtype = torch.bfloat16 if device == GPU else torch.float32
    passes = Passes(size, vocab, device=device, dtype=dtype, compiled=False)
    trainer = StackTrainer(TRIALS, passes, steps=steps)
    return trainer, passes, torch.zeros(2, 2, 33, dtype=torch.int64, device=device)


@pytest.fixture
def no_engine(monkeypatch):
    def shaped(outputs, inputs, upstream=None):
        return [torch.empty_like(leaf) for leaf in inputs]

    monkeypatch.setattr(torch.autograd, "grad", shaped)


@pytest.mark.parametrize(("name", "vocab"), [("tiny", 4096), ("moe-tiny", 256)])
def test_a_step_and_an_evaluation_stay_on_a_gpu(no_engine, name, vocab):
    with FakeTensorMode():
        trainer, passes, tokens = trainer_of(GPU, name, vocab)
        with Watched() as watched:
            trainer.step(tokens)
            trainer.step(tokens)
            losses_KB = passes.evaluated(trainer.weights.leaves, tokens)[0]
        assert trainer._losses_SK.device.type == losses_KB.device.type == "cuda"
    assert not watched.waits


@pytest.mark.parametrize(("name", "vocab"), [("tiny", 4096), ("moe-tiny", 256)])
def test_a_step_takes_no_number_from_the_device_in_its_backward_pass_either(name, vocab):
    trainer, _, tokens = trainer_of(CPU, name, vocab)
    trainer.step(tokens)
    with Watched() as watched:
        trainer.step(tokens)
    assert not watched.waits


def read(first, stop):
    return np.arange(first, stop, dtype=np.int32)[:, None]


SPANS = [(0, 3), (3, 6), (6, 9), (9, 12), (12, 13)]


def test_blocks_come_in_order_and_what_reading_ahead_raises_is_raised_at_its_block():
    found = list(blocks(read, SPANS, CPU))
    assert [first for first, _ in found] == [first for first, _ in SPANS]
    assert torch.cat([block for _, block in found]).flatten().tolist() == list(range(13))
    assert {block.dtype for _, block in found} == {torch.int64}

    def broken(first, stop):
        if first == 6:
            raise OSError("the disk is gone")
        return read(first, stop)

    stream = blocks(broken, SPANS, CPU)
    assert [next(stream)[0], next(stream)[0]] == [0, 3]
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)


@pytest.mark.skipif(torch.cuda.is_available(), reason="recording fails only without a GPU")
def test_a_step_that_cannot_be_recorded_goes_on_without(caplog):
    taken = []
    step = StepGraph(lambda tokens: taken.append(int(tokens)) or len(taken))
    assert [step(torch.tensor(i)) for i in range(5)] == [1, 2, 3, 4, 5]
    assert taken == [0, 1, 2, 3, 4]
    (warning,) = caplog.messages
    assert warning.startswith("no CUDA graph of the training step, continuing without it: ")
    assert "\n" not in warning


def test_members_fill_half_of_what_is_free_on_a_gpu_or_a_quarter_of_a_host(monkeypatch):
    size, vocab = make_size("tiny"), 256
    each = member_bytes(size, vocab)
    assert (each, member_bytes(make_size("moe-tiny"), vocab)) == (10_574_720, 17_560_448)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _device: 0)

    def members(free, device=GPU):
        host = SimpleNamespace(total=free)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free, 80 << 30))
        monkeypatch.setattr("psutil.virtual_memory", lambda: host)
        return members_by_rule(size, vocab, device)

    assert [members(2 * free) for free in (4 * each, 4 * each - 1, 0)] == [4, 2, 1]
    assert [members(4 * free, CPU) for free in (2 * each, 2 * each - 1)] == [2, 1]
    assert (members(80 << 30), members(80 << 30, CPU)) == (64, 4)  # 32,768 and 2,048 tokens
